import shutil
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.bench_result import write_result
from loadtests.cell import CellResult
from loadtests.gateway_counters import CountersUnavailable, GatewayCounters, parse_counters, read_counters
from loadtests.machine import Machine
from loadtests.report import with_report
from loadtests.soak import command_line
from loadtests.soak_report import BEGIN, END, markdown_report, minute_rows, process_rows, soak_chart
from loadtests.soak_result import (
    GENERATOR,
    LogCount,
    SoakMinute,
    SoakResult,
    SoakSample,
    memory_slope_mb_per_minute,
    served_by,
)
from loadtests.soak_run import LOG_ROW_BYTES, DiskTooSmall, check_space, count_log
from loadtests.stack_process import ProcessUsage
from loadtests.stacks import free_port

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"

EXPOSITION = """\
# TYPE sekisho_log_rows_offered_total counter
sekisho_log_rows_offered_total 1000.0
# TYPE sekisho_log_rows_written_total counter
sekisho_log_rows_written_total 990.0
# TYPE sekisho_log_rows_dropped_total counter
sekisho_log_rows_dropped_total{reason="disk"} 3.0
sekisho_log_rows_dropped_total{reason="rows_full"} 2.0
# TYPE sekisho_log_rows_pending gauge
sekisho_log_rows_pending 5.0
# TYPE sekisho_shed_total counter
sekisho_shed_total{priority="default"} 7.0
"""


def counters(**given) -> GatewayCounters:
    complete = {"rows_offered": 100, "rows_written": 100, "rows_dropped": 0, "rows_pending": 0, "shed": 0, "errors": 0}
    return GatewayCounters(**complete | given)


def log(answers=100, rows_in_files=100, **given) -> LogCount:
    return LogCount(answers=answers, gateway=counters(**given), rows_in_files=rows_in_files, bytes_in_files=13_000)


def sample(at_s: float, gateway_mb: float) -> SoakSample:
    held = {"sekisho-gateway": gateway_mb, "redis": 30.0, GENERATOR: 50.0 + at_s}
    return SoakSample(
        at_s=at_s,
        rate_per_s=1_000.0,
        p50_ms=1.0,
        p99_ms=4.0,
        p999_ms=9.0,
        errors=0,
        waiting=0,
        processes={name: ProcessUsage(memory_mb=memory_mb, threads=3, fds=20) for name, memory_mb in held.items()},
        gateway=counters(),
    )


def soaked(**given) -> SoakResult:
    answered = CellResult(
        answers=100,
        seconds=600.0,
        rate_per_s=1_000.0,
        p50_ms=1.0,
        p99_ms=4.0,
        p999_ms=9.0,
        max_ms=12.0,
        answers_total=100,
        unanswered=0,
        errors={},
        units_by_version={},
        generator_cpu_s=0.5,
        generator_cpu_share=0.5,
        generator_lag_p99_ms=0.0,
    )
    minute = SoakMinute(minute=1, answers=100, rate_per_s=1_000.0, p50_ms=1.0, p99_ms=4.0, p999_ms=9.0, max_ms=12.0)
    usual = {
        "command": "python -m loadtests.soak",
        "commit": "abc1234",
        "started_at": "2026-01-02T03:04:05+00:00",
        "machine": Machine(cpu="A CPU", cores=2, memory_gb=8.0, kernel="6.1", python="3.11.7", packages={}),
        "minutes": 10.0,
        "share": 0.7,
        "capacity_per_s": 1_429.0,
        "offered_per_s": 1_000.0,
        "result": answered,
        "log": log(),
        "by_minute": [minute],
        # It grows by 60 MB at first, and by 0.5 MB a minute in the second half.
        "samples": [sample(0, 100), sample(60, 160), sample(120, 161), sample(180, 161.5), sample(240, 162)],
    }
    return SoakResult(**usual | given)


def test_counters_are_summed_over_their_labels_and_what_never_happened_is_0():
    assert parse_counters(EXPOSITION) == counters(
        rows_offered=1_000, rows_written=990, rows_dropped=5, rows_pending=5, shed=7
    )


def test_a_gateway_without_the_log_s_counters_or_without_an_answer_is_an_error():
    with pytest.raises(CountersUnavailable, match="sekisho_log_rows_written_total"):
        parse_counters(EXPOSITION.replace("written", "scribbled"))
    with pytest.raises(CountersUnavailable, match="refused"):
        read_counters(free_port())


def test_a_log_that_has_a_row_for_each_answer_is_complete():
    assert log().problems() == []


@pytest.mark.parametrize(
    ("incomplete", "problem"),
    [
        (log(answers=101, rows_in_files=101), "101 answers, but 100 rows offered"),
        (log(rows_written=99), "100 rows offered, but 99 written"),
        (log(rows_written=97, rows_dropped=3, rows_in_files=97), "dropped 3 rows"),
        (log(rows_in_files=99), "100 answers, but 99 rows in the log's files"),
        (log(rows_in_files=101), "100 answers, but 101 rows in the log's files"),
    ],
)
def test_a_log_that_lacks_a_row_anywhere_is_a_problem_that_says_where(incomplete, problem):
    assert any(problem in each for each in incomplete.problems())
    assert soaked(log=incomplete).problems == incomplete.problems()
    assert "**Failed:**" in markdown_report(soaked(log=incomplete))


@pytest.mark.parametrize("figures", [{"errors": {"status 503": 2}}, {"unanswered": 2}])
def test_a_wrong_or_missing_answer_fails_a_soak(figures):
    assert soaked().problems == []
    (problem,) = soaked(result=msgspec.structs.replace(soaked().result, **figures)).problems
    assert "2" in problem


def test_memory_is_judged_by_its_slope_over_the_second_half_without_the_load_generator():
    result = soaked()
    assert served_by(result.samples) == ["sekisho-gateway", "redis"]
    assert memory_slope_mb_per_minute(result.samples, ["sekisho-gateway"]) == pytest.approx(0.5)
    (goal,) = result.goals()
    assert goal.measured == pytest.approx(0.5)
    assert goal.reached is True
    growing = soaked(samples=[sample(at_s, 100 + at_s / 30) for at_s in range(0, 600, 60)])
    assert growing.goals()[0].reached is False
    assert growing.problems == []


def test_one_sample_has_no_slope():
    assert memory_slope_mb_per_minute([sample(0, 100)], ["redis"]) is None


def test_the_report_tells_of_every_process_and_every_minute():
    assert process_rows(soaked())[1][0] == (
        "sekisho-gateway",
        "100.0",
        "162.0",
        "162.0",
        "+0.50",
        "3 to 3",
        "20 to 20",
    )
    assert minute_rows(soaked())[1] == [("1", "1,000", "1.00", "4.00", "9.00", "12.00")]
    report = markdown_report(soaked())
    assert "100 answers, each checked: 0 wrong or refused" in report
    assert "100 rows in its files once the gateway had stopped, of 130 bytes each" in report


def test_the_chart_has_memory_and_latency_over_time():
    root = ET.fromstring(soak_chart(soaked()))
    assert sum(each.tag.endswith("polyline") for each in root.iter()) == 4


def test_a_soak_is_written_whole(tmp_path):
    write_result(soaked(), tmp_path / "soak.json")
    assert msgspec.json.decode((tmp_path / "soak.json").read_bytes(), type=SoakResult) == soaked()


def test_rows_of_finished_files_are_counted_wherever_they_lie(tmp_path):
    for number, rows in enumerate((3, 4)):
        folder = tmp_path / "predictions" / "model=bench" / f"date=2026-01-0{number + 1}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"row": list(range(rows))}), folder / "a.parquet")
    rows, size_bytes = count_log(tmp_path)
    assert rows == 7
    assert size_bytes == sum(file.stat().st_size for file in tmp_path.rglob("*.parquet"))


def test_a_log_that_may_not_fit_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _directory: usage(1_000 * LOG_ROW_BYTES))
    check_space(tmp_path, 1_000)
    with pytest.raises(DiskTooSmall, match="fewer --minutes"):
        check_space(tmp_path, 1_001)


def test_the_published_page_has_a_place_for_the_soak_and_every_option():
    page = PAGE.read_text()
    assert with_report(page, "x", BEGIN, END).count(f"x\n\n{END}") == 1
    section = page.partition("## A soak")[2].partition("\n## ")[0]
    for option in (each for each in command_line()._actions if each.dest != "help"):
        assert f"`{option.option_strings[0]}" in section
        assert f"`SEKISHO_{option.dest.upper()}`" in section


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--share", "1.5"], ["--share", "x"], ["--unknown"]])
def test_wrong_usage_of_the_soak_is_exit_code_2_and_a_sentence(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line().parse_args(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_memory_of_a_short_soak_is_not_judged():
    (goal,) = soaked(minutes=1.0).goals()
    assert goal.measured is None
    assert goal.reached is None
