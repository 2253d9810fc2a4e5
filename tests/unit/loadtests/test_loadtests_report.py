from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from loadtests.bar_chart import Bar, bar_chart
from loadtests.bench_result import BenchResult, read_result, write_result
from loadtests.cell import Cell, CellResult
from loadtests.goals import check_goals
from loadtests.machine import Machine
from loadtests.report import BEGIN, END, MarkersMissing, markdown_report, notes, with_report
from loadtests.summary import find, summarise

GOLDEN = Path(__file__).parents[2] / "golden" / "bench_result_v1.json"


def cell(stack: str, load: str, round_number: int, rate_per_s: float, **figures) -> Cell:
    given = {
        "answers": int(rate_per_s),
        "seconds": 1.0,
        "rate_per_s": rate_per_s,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "p999_ms": 3.0,
        "max_ms": 4.0,
        "answers_total": int(rate_per_s),
        "unanswered": 0,
        "errors": {},
        "units_by_version": {},
        "generator_cpu_s": 0.5,
        "generator_cpu_share": 0.5,
        "generator_lag_p99_ms": 0.0,
    }
    return Cell(
        stack=stack,
        load=load,
        round=round_number,
        result=CellResult(**given | figures),
        cpu_s_per_1000={"gateway": 0.1},
        foreign_cores=0.25,
        memory_mb={"gateway": 50.0},
    )


def result(cells: list[Cell]) -> BenchResult:
    machine = Machine(
        cpu="A CPU", cores=2, memory_gb=8.0, kernel="6.1", python="3.11.7", packages={"uvicorn": "0.54.0"}
    )
    return BenchResult(
        command="python -m loadtests.bench",
        commit="abc1234",
        started_at="2026-01-02T03:04:05+00:00",
        machine=machine,
        rounds=2,
        seconds=1.0,
        summaries=summarise(cells),
        goals=check_goals(cells),
        cells=cells,
    )


CELLS = [
    cell("bare-uvicorn", "closed-64", 1, 20_000),
    cell("sekisho", "closed-64", 1, 10_000),
    # The machine is four times slower in the second round: the ratio says so no longer.
    cell("bare-uvicorn", "closed-64", 2, 5_000),
    cell("sekisho", "closed-64", 2, 2_000, unanswered=3, errors={"status 503": 2}),
]


def test_a_ratio_compares_figures_of_the_same_round():
    found = find(summarise(CELLS), "sekisho", "closed-64")
    assert found.rate_ratio == pytest.approx((0.5 + 0.4) / 2)
    assert found.rate_per_s == (6_000, 2_000, 10_000)


def test_a_ratio_is_missing_where_the_yardstick_was_not_run():
    assert find(summarise(CELLS[1:2]), "sekisho", "closed-64").rate_ratio is None


def test_an_error_of_any_round_stays_in_the_sum():
    assert find(summarise(CELLS), "sekisho", "closed-64").errors == {"status 503": 2}


def test_a_goal_is_reached_not_reached_or_not_measured():
    goals = {goal.text: goal for goal in check_goals(CELLS)}
    against_bare = goals["throughput at 64, x bare uvicorn"]
    assert against_bare.measured == pytest.approx(0.45)
    assert against_bare.reached is True
    assert goals["throughput at 64, x an empty FastAPI route"].reached is None
    slower = check_goals([CELLS[0], cell("sekisho", "closed-64", 1, 7_000)])
    assert slower[0].reached is False


def test_a_goal_of_most_is_not_reached_above_its_bound():
    cells = [cell("bare-uvicorn", "closed-1", 1, 1, p50_ms=0.1), cell("sekisho", "closed-1", 1, 1, p50_ms=0.3)]
    (goal,) = [goal for goal in check_goals(cells) if goal.text.startswith("p50 at 1")]
    assert goal.measured == pytest.approx(3)
    assert goal.reached is False


def test_a_batch_is_compared_with_as_many_single_requests():
    cells = [cell("sekisho", "closed-64", 1, 1), cell("sekisho", "batch-500", 1, 1)]
    (goal,) = [goal for goal in check_goals(cells) if goal.text.startswith("CPU of 500")]
    assert goal.measured == pytest.approx(500)


def test_notes_name_who_did_not_keep_up_and_what_disturbed_the_run():
    told = "\n".join(notes(summarise(CELLS)))
    assert "sekisho, closed-64: 3 requests had no answer" in told
    assert "used 0.25 of its cores" in told


def test_a_page_keeps_everything_outside_of_its_markers():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    renewed = with_report(page, markdown_report(result(CELLS)))
    assert renewed.startswith(f"before\n{BEGIN}\n\nRun of 2026-01-02")
    assert renewed.endswith(f"{END}\nafter\n")
    assert "old" not in renewed
    assert with_report(renewed, "x") == f"before\n{BEGIN}\n\nx\n\n{END}\nafter\n"


def test_a_page_without_markers_is_refused():
    with pytest.raises(MarkersMissing):
        with_report("no place", "x")


def test_the_published_page_has_a_place_for_the_report():
    page = Path(__file__).parents[3] / "docs" / "performance.md"
    assert with_report(page.read_text(), "x").count("x\n\n" + END) == 1


def golden_result() -> BenchResult:
    """The result of the golden file, whose goals are those that there were then."""
    made = result(CELLS)
    return msgspec.structs.replace(made, goals=[goal for goal in made.goals if "aiohttp" not in goal.text])


def test_a_result_of_format_1_is_written_as_it_always_was(tmp_path):
    written = tmp_path / "results" / "run.json"
    write_result(golden_result(), written)
    assert written.read_bytes() == GOLDEN.read_bytes()


def test_a_result_of_format_1_stays_readable():
    assert read_result(GOLDEN) == golden_result()


def test_a_chart_is_xml_with_bars_in_proportion_and_texts_escaped():
    bars = [Bar("<a> & b", 50, 40, 60, "50", False), Bar("own", 100, 90, 120, "100 (2 x)", True)]
    root = ET.fromstring(bar_chart('the "title"', "a note", bars))
    rectangles = [each for each in root.iter() if each.tag.endswith("rect")]
    assert float(rectangles[1].get("width")) == pytest.approx(2 * float(rectangles[0].get("width")), abs=0.2)
    assert [each.get("class") for each in rectangles] == ["bar", "bar own"]
    assert "<a> & b" in [each.text for each in root.iter()]


def test_a_chart_without_bars_is_refused():
    with pytest.raises(ValueError, match="at least one bar"):
        bar_chart("t", "n", [])
