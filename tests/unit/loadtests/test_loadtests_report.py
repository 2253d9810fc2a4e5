from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from loadtests.bar_chart import Bar, bar_chart
from loadtests.bench_pages import markdown_report, readme_report
from loadtests.bench_result import BenchResult, read_result, write_result
from loadtests.cell import Cell, CellResult
from loadtests.goals import GoalResult, check_goals
from loadtests.machine import Machine
from loadtests.ranking_report import ranking_rows
from loadtests.report import (
    BEGIN,
    END,
    MarkersMissing,
    cost_rows,
    goal_rows,
    markdown_table,
    notes,
    spread_text,
    throughput_rows,
    with_report,
)
from loadtests.scaling_report import scaling_caveat, scaling_rows
from loadtests.stacks import scaled_name, scaled_processes
from loadtests.summary import find, summarise

GOLDEN = Path(__file__).parents[2] / "golden"


def cell(
    stack: str, load: str, round_number: int, rate_per_s: float, *, cpu_s=0.1, foreign_cores=0.25, **figures
) -> Cell:
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
        cpu_s_per_1000={"gateway": cpu_s},
        foreign_cores=foreign_cores,
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
    assert found.rate_ratio == pytest.approx(((0.5 + 0.4) / 2, 0.4, 0.5))
    assert found.rate_per_s == (6_000, 2_000, 10_000)


def test_a_ratio_is_missing_where_the_yardstick_was_not_run():
    assert find(summarise(CELLS[1:2]), "sekisho", "closed-64").rate_ratio is None


def test_an_error_of_any_round_stays_in_the_sum():
    assert find(summarise(CELLS), "sekisho", "closed-64").errors == {"status 503": 2}


def test_a_goal_is_reached_not_reached_or_not_measured():
    goals = {goal.text: goal for goal in check_goals(CELLS)}
    against_bare = goals["throughput at 64, x bare uvicorn"]
    assert (against_bare.measured, against_bare.least, against_bare.most) == pytest.approx((0.45, 0.4, 0.5))
    assert against_bare.reached is True
    assert goals["throughput at 64, x an empty FastAPI route"].reached is None
    slower = check_goals([CELLS[0], cell("sekisho", "closed-64", 1, 7_000)])
    assert slower[0].reached is False


def test_a_goal_of_most_is_not_reached_above_its_bound():
    cells = [cell("bare-uvicorn", "closed-1", 1, 1, p50_ms=0.1), cell("sekisho", "closed-1", 1, 1, p50_ms=0.3)]
    (goal,) = [goal for goal in check_goals(cells) if goal.text.startswith("p50 at 1")]
    assert goal.measured == pytest.approx(3)
    assert goal.reached is False


RANKING = [
    cell("sekisho", "rank-500", 1, 100, cpu_s=8.0, p50_ms=5.0),
    cell("sekisho", "rank-1", 1, 5_000, cpu_s=0.16),
    cell("sekisho", "rank-1-in-turn", 1, 1_000, cpu_s=0.8),
    cell("sekisho", "rank-500", 2, 100, cpu_s=4.0, p50_ms=10.0),
    cell("sekisho", "rank-1", 2, 5_000, cpu_s=0.16),
    cell("sekisho", "rank-1-in-turn", 2, 1_000, cpu_s=0.8),
]


def test_one_request_of_500_items_is_compared_with_500_requests_of_one_in_the_same_round():
    (goal,) = [goal for goal in check_goals(RANKING) if goal.text.startswith("CPU of 500")]
    assert (goal.measured, goal.least, goal.most) == pytest.approx((15, 10, 20))
    heads, (batch, singles, ratio, in_turn, ratio_in_turn) = ranking_rows(RANKING)
    assert heads[-2:] == ("all CPU ms", "wall ms")
    assert batch[-2:] == ("6.00 (4.00-8.00)", "7.50 (5.00-10.00)")
    assert singles[-2:] == ("80.00", "100.00")
    assert ratio[-2:] == ("15.00 (10.00-20.00)", "15.00 (10.00-20.00)")
    assert in_turn[-2:] == ("400.00", "500.00")
    assert ratio_in_turn[-2:] == ("75.00 (50.00-100.00)", "75.00 (50.00-100.00)")


def test_a_run_without_rankings_has_no_table_of_them():
    assert ranking_rows(CELLS)[1] == []
    assert "Ranking" not in markdown_report(result(CELLS))


SCALING = [
    cell("sekisho", "scaling-64", 1, 5_000),
    cell("sekisho-2-processes", "scaling-64", 1, 9_000, cpu_s=0.11),
    cell("sekisho-4-processes", "scaling-64", 1, 12_500),
    cell("sekisho", "scaling-64", 2, 4_000),
    cell("sekisho-2-processes", "scaling-64", 2, 7_600),
]


def test_a_further_process_adds_a_share_of_the_first_one_of_its_round():
    (goal,) = [goal for goal in check_goals(SCALING) if "second gateway process" in goal.text]
    assert (goal.measured, goal.least, goal.most) == pytest.approx((0.85, 0.8, 0.9))
    assert goal.reached is True
    _, rows = scaling_rows(SCALING)
    assert [(row[0], row[-1]) for row in rows] == [("1", "-"), ("2", "0.850 (0.800-0.900)"), ("4", "0.500")]


def test_scaling_is_told_with_what_else_the_cores_did():
    (told,) = scaling_caveat(SCALING, 2)
    assert "Everything shares 2 cores. With one gateway process it took 0.45 of them" in told
    assert told in markdown_report(result(SCALING))
    assert scaling_caveat(CELLS, 2) == []


@pytest.mark.parametrize(("cores", "processes"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (8, [1, 2, 4, 8])])
def test_scaling_goes_by_doubling_up_to_the_cores(cores, processes):
    assert scaled_processes(cores) == processes
    assert [scaled_name(each) for each in processes][:2] == ["sekisho", "sekisho-2-processes"][: len(processes)]


def test_ratios_and_goals_are_shown_with_least_and_most():
    assert spread_text(find(summarise(CELLS), "sekisho", "closed-64").rate_ratio) == "0.450 (0.400-0.500)"
    report = markdown_report(result(CELLS))
    assert "| sekisho * | 64 | 6,000 | 2,000-10,000 | 0.450 (0.400-0.500) |" in report
    assert "| throughput at 64, x bare uvicorn | reached | at least 0.4 | 0.450 | 0.400-0.500 |" in report


def test_a_goal_of_a_result_without_least_and_most_is_shown_with_its_median_alone():
    assert goal_rows([GoalResult("a goal", 2, True, 3.0)])[1] == [("a goal", "reached", "at least 2", "3.00", "-")]


def test_figures_beside_busy_programs_are_marked_and_counted():
    quiet = [cell("bare-uvicorn", "closed-64", number, 1, foreign_cores=0.05) for number in (1, 2)]
    busy_once = [cell("sekisho", "closed-64", number, 1, foreign_cores=0.02 * number**2) for number in (1, 2)]
    summaries = summarise(quiet + busy_once)
    for rows in (throughput_rows(summaries), cost_rows(summaries)):
        assert [row[0] for row in rows[1]] == ["bare-uvicorn", "sekisho *"]
    assert "* marks 1 of 2 stacks and loads" in notes(summaries)[1]


def test_the_readme_shows_the_ratio_with_least_and_most():
    cells = CELLS + [cell(stack, f"closed-{n}", 1, 1) for stack in ("bare-uvicorn", "sekisho") for n in (1, 16)]
    assert "| **sekisho** | 6,000 | 0.450 (0.400-0.500) |" in readme_report(result(cells))


def test_every_row_of_every_table_has_a_cell_for_each_heading():
    for heads, body in (throughput_rows(summarise(CELLS)), ranking_rows(RANKING), scaling_rows(SCALING)):
        assert {len(row) for row in body} == {len(heads)}
        assert len(markdown_table((heads, body)).splitlines()) == 2 + len(body)


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
    """The result of the golden file, which has the first two goals only: others may come and go."""
    made = result(CELLS)
    return msgspec.structs.replace(made, goals=made.goals[:2])


def test_a_result_of_format_2_is_written_as_it_always_was(tmp_path):
    written = tmp_path / "results" / "run.json"
    write_result(golden_result(), written)
    assert written.read_bytes() == (GOLDEN / "bench_result_v2.json").read_bytes()


def test_a_result_of_format_2_stays_readable():
    assert read_result(GOLDEN / "bench_result_v2.json") == golden_result()


def test_a_result_of_format_1_stays_readable_and_is_summed_up_anew():
    read = read_result(GOLDEN / "bench_result_v1.json")
    assert (read.format, read.cells) == (1, CELLS)
    assert read.summaries == summarise(CELLS)
    assert read.goals[0] == GoalResult("throughput at 64, x bare uvicorn", 0.4, True, 0.45)


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
