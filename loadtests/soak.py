"""`python -m loadtests.soak`: the gateway under a steady load, until something grows, is lost or is wrong."""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.bench import INTERRUPTED, PAGE, PROJECT, RESULTS, TABLE_WIDTH, forget_settings
from loadtests.bench_result import write_result
from loadtests.bench_rounds import REFRESHES_PER_S
from loadtests.gateway_counters import CountersUnavailable
from loadtests.generator_process import GeneratorFailed
from loadtests.machine import commit_of, describe_machine
from loadtests.redis_server import RedisServerNotFound
from loadtests.report import goal_rows, rich_table, with_report
from loadtests.soak_report import BEGIN, END, markdown_report, minute_rows, process_rows, sentences, soak_chart
from loadtests.soak_result import SoakResult, SoakSample, memory_mb, served_by
from loadtests.soak_run import DiskTooSmall, SoakRun, run_soak
from loadtests.stack_process import ProcessFailed
from settings import CommandLine

MINUTES, MINUTES_MIN, MINUTES_MAX = 10.0, 0.05, 1_440.0
SHARE, SHARE_MIN, SHARE_MAX = 0.7, 0.01, 1.0
CHART = PROJECT / "docs" / "images" / "soak.svg"

_EPILOG = """\
examples:
  python -m loadtests.soak --minutes 1     to see that everything works
  python -m loadtests.soak --save          the run whose figures are published

Exit code 1 means that an answer was wrong or missing, a row of the prediction log is missing, or a process failed.
"""


def command_line() -> CommandLine:
    """Describe the options."""
    description = "Offer the gateway a steady share of its capacity, and watch memory, latency and the prediction log."
    line = CommandLine("python -m loadtests.soak", description=description, epilog=_EPILOG)
    line.option("--minutes", type=_number(MINUTES_MIN, MINUTES_MAX), default=MINUTES, help="how long")
    line.option("--share", type=_number(SHARE_MIN, SHARE_MAX), default=SHARE, help="of the capacity found before")
    line.option("--save", action="store_true", help="keep the result in loadtests/results, and renew chart and page")
    return line


def main(arguments: list[str] | None = None) -> int:
    """Run. Returns 0; 1 where an answer, a row or a process failed; 130 when interrupted."""
    given = command_line().parse_args(arguments)
    forget_settings()
    # Where nobody looks at a terminal, a table may be as wide as it is.
    console, started_at = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH), datetime.now(UTC)
    try:
        run = _run(given.minutes * 60, given.share, console)
    except (ProcessFailed, GeneratorFailed, RedisServerNotFound, CountersUnavailable, DiskTooSmall) as error:
        print(f"soak: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: interrupted; every process has been ended", file=sys.stderr)
        return INTERRUPTED
    result = SoakResult(
        command=shlex.join(["python", "-m", "loadtests.soak", *(sys.argv[1:] if arguments is None else arguments)]),
        commit=commit_of(PROJECT),
        started_at=started_at.isoformat(timespec="seconds"),
        machine=describe_machine(),
        minutes=given.minutes,
        share=given.share,
        capacity_per_s=run.capacity_per_s,
        offered_per_s=run.offered_per_s,
        result=run.result,
        log=run.log,
        by_minute=run.by_minute,
        samples=run.samples,
    )
    _show(result, console)
    for file in _save(result) if given.save else [_keep_for_now(result)]:
        console.print(f"written: {file}", soft_wrap=True)
    return 1 if result.problems else 0


def _run(seconds: float, share: float, console: Console) -> SoakRun:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=REFRESHES_PER_S) as progress:
        task = progress.add_task("training models, then measuring capacity", total=None)

        def began(capacity_per_s: float, offered_per_s: float) -> None:
            console.print(f"capacity {capacity_per_s:,.0f}/s; offering {offered_per_s:,.0f}/s", highlight=False)
            progress.reset(task, total=seconds, description="loading")

        def sampled(sample: SoakSample) -> None:
            progress.update(task, completed=sample.at_s, description=sample_line(sample))
            if not console.is_terminal:
                console.print(f"{sample.at_s:6.0f} s  {sample_line(sample)}", highlight=False)

        return run_soak(seconds, share, began, sampled)


def sample_line(sample: SoakSample) -> str:
    """One sample, for the terminal."""
    held_mb = memory_mb(sample, served_by([sample]))
    errors = f"  {sample.errors:,} errors" if sample.errors else ""
    return f"{sample.rate_per_s:,.0f}/s  p99 {sample.p99_ms:.2f} ms  {held_mb:,.0f} MB{errors}"


def _show(result: SoakResult, console: Console) -> None:
    for title, rows in (
        ("Memory, threads and open files", process_rows(result)),
        ("By minute, from the intended send time", minute_rows(result)),
        ("Goals", goal_rows(result.goals())),
    ):
        console.print()
        console.print(rich_table(title, rows))
    console.print()
    for sentence in sentences(result):
        console.print(sentence, highlight=False)
    for problem in result.problems:
        console.print(f"[red]{problem}[/]", highlight=False)
    console.print()


def _keep_for_now(result: SoakResult) -> Path:
    file = Path(tempfile.mkdtemp(prefix="sekisho-soak-result-")) / "result.json"
    write_result(result, file)
    return file


def _save(result: SoakResult) -> list[Path]:
    file = RESULTS / f"{result.started_at[:10]}-{result.commit}-soak.json"
    write_result(result, file)
    CHART.write_text(soak_chart(result))
    PAGE.write_text(with_report(PAGE.read_text(), markdown_report(result), BEGIN, END))
    return [file, CHART, PAGE]


def _number(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number from {least:g} to {most:g}")
        return number

    return read


if __name__ == "__main__":
    # Being told to stop ends a run as Ctrl-C does: every process is ended, and the files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
