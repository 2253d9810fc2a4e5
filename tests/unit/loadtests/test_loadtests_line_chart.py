from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from loadtests.line_chart import Line, Panel, line_chart


def drawn(panels: list[Panel], times=(0, 5, 10)) -> ET.Element:
    return ET.fromstring(line_chart('the "title"', "a <note>", times, "minutes", panels))


def points(root: ET.Element) -> list[list[tuple[float, float]]]:
    lines = [each.get("points").split() for each in root.iter() if each.tag.endswith("polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in lines]


def test_lines_are_in_proportion_to_a_scale_that_begins_at_zero():
    root = drawn([Panel("p", [Line("a", [50, 100, 0], True), Line("b", [100, 100, 100], False)])])
    own, other = points(root)
    zero, hundred = own[2][1], other[0][1]
    assert own[0][1] == pytest.approx((zero + hundred) / 2, abs=0.1)
    assert own[1][0] - own[0][0] == pytest.approx(own[2][0] - own[1][0], abs=0.1)
    assert [each.get("class") for each in root.iter() if each.tag.endswith("polyline")] == ["line own", "line"]


def test_a_panel_has_round_marks_up_to_its_largest_value_and_texts_escaped():
    root = drawn([Panel("Latency & more", [Line("<p99>", [3, 20, 47], True)])])
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert [text for text in texts if text in {"0", "10", "20", "30", "40", "50", "60"}][:6] == [
        "0",
        "10",
        "20",
        "30",
        "40",
        "50",
    ]
    assert {"Latency & more", "<p99>", "a <note>"} <= set(texts)


def test_no_time_is_marked_beyond_the_last():
    root = drawn([Panel("p", [Line("a", [1, 1, 1], False)])], times=(0, 5, 9.9))
    marks = [each.text for each in root.iter() if each.get("text-anchor") == "middle"]
    assert marks == ["0", "2", "4", "6", "8"]


def test_labels_of_lines_that_end_together_do_not_cover_each_other():
    root = drawn([Panel("p", [Line(name, [1, 1, 1], False) for name in "abc"])])
    heights = sorted(float(each.get("y")) for each in root.iter() if each.text in {"a", "b", "c"})
    assert min(later - earlier for earlier, later in pairwise(heights)) >= 12


def test_a_panel_of_zeros_is_a_line_at_zero():
    (line,) = points(drawn([Panel("p", [Line("a", [0, 0, 0], False)])]))
    assert len({y for _, y in line}) == 1


def test_a_chart_of_one_moment_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        line_chart("t", "n", [1.0], "s", [])
