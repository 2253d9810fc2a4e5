import pytest

from tests.fault.fault_record import (
    FaultRecord,
    Span,
    append_record,
    fallbacks,
    noticed_s,
    read_records,
    recovered_s,
    span,
    whole_s,
)
from tests.fault.load_records import HUNG_UP, Asked, answer_key
from tests.fault.marked_page import write_between
from tests.fault.report import latest, table

DEADLINE_S = 1.0


def asked(due_s, *, took_s=0.01, status=200, degraded=(), failure="", code=""):
    return Asked(0, due_s, due_s + took_s, status, "1", degraded, code, failure)


def a_fault() -> list[Asked]:
    """A hundred requests a second for six seconds; from second two to four every one is refused, then degraded."""
    kinds = {2: {"status": 503, "code": "overloaded"}, 3: {"status": 503, "code": "overloaded"}}
    kinds[4] = {"degraded": ("static_score",)}
    return [asked(n / 100, **kinds.get(n // 100, {})) for n in range(600)]


def test_goodput_counts_right_answers_in_time_and_leaves_out_who_hung_up():
    answers = [asked(0.1), asked(0.2, took_s=1.5), asked(0.3, failure="wrong"), asked(0.4, status=0, failure=HUNG_UP)]
    summed = span(answers, 0.0, 1.0, DEADLINE_S)
    assert (summed.asked, summed.good) == (3, pytest.approx(1 / 3))
    assert summed.goodput_per_s == pytest.approx(1.0)


def test_a_fault_is_noticed_until_the_last_bad_answer_and_over_when_answers_are_right_again():
    answers = a_fault()
    before = span(answers, 0.0, 2.0, DEADLINE_S)
    assert noticed_s(answers, 2.0, 5.0, DEADLINE_S) == pytest.approx(1.99)
    assert recovered_s(answers, 3.0, 6.0, 1.0, before, DEADLINE_S) == pytest.approx(0.95, abs=0.1)
    assert recovered_s(answers, 3.0, 4.2, 1.0, before, DEADLINE_S) is None
    assert whole_s(answers, 3.0) == pytest.approx(1.99)
    assert fallbacks(answers, 2.0) == {"static_score": 100}


def test_what_defaults_were_fed_is_part_of_what_an_answer_must_be():
    assert answer_key("2", ["variant_fallback", "feature_default:b", "feature_default:a"]) == (
        "2+feature_default:a+feature_default:b"
    )


def test_a_report_shows_the_latest_record_of_each_fault_between_the_markers_of_its_page(tmp_path):
    summed = Span(1.0, 100, 1.0, 2.0, None)
    file, page = tmp_path / "faults.jsonl", tmp_path / "page.md"
    for recovered in (None, 0.5):
        append_record(
            file,
            FaultRecord(
                number=1,
                fault="a worker stops",
                mode="fast",
                before=summed,
                during=summed,
                after=summed,
                failures={"503 overloaded": 2},
                fallbacks={},
                noticed_s=0.25,
                recovered_s=recovered,
                whole_s=0.0,
            ),
        )
    page.write_text("before\n<!-- faults: begin -->\nold\n<!-- faults: end -->\nafter\n", encoding="utf-8")
    write_between(page, "faults", table(latest(read_records(file))))
    written = page.read_text(encoding="utf-8")
    assert written.count("a worker stops") == 1
    assert "| 503 overloaded 2 | 0.2 | 0.5 | 0.0 |" in written
    assert "old" not in written
    assert written.startswith("before\n")
    assert written.endswith("after\n")


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no <!-- faults: begin -->"):
        write_between(page, "faults", "text")
