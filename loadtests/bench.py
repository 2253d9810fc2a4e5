"""`python -m loadtests.bench`: every stack, alternately, in one run."""

import os
import shlex
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtests.bar_chart import Bar, bar_chart
from loadtests.bench_pages import markdown_report, readme_report
from loadtests.bench_result import BenchResult, write_result
from loadtests.bench_rounds import RoundPlan, run_rounds
from loadtests.generator_process import GeneratorFailed
from loadtests.goals import check_goals
from loadtests.loads import SIXTY_FOUR, open_load
from loadtests.machine import commit_of, describe_machine
from loadtests.ranking_report import ranking_rows
from loadtests.redis_server import RedisServerNotFound
from loadtests.report import cost_rows, goal_rows, latency_rows, notes, rich_table, throughput_rows, with_report
from loadtests.scaling_report import scaling_caveat, scaling_rows
from loadtests.stack_process import ProcessFailed
from loadtests.stacks import PRODUCT, STACK_NAMES, YARDSTICK
from loadtests.summary import Summary, find, summarise
from settings import CommandLine
from settings.command_line import VARIABLE_PREFIX, seconds, whole_number

ROUNDS, ROUNDS_MAX = 5, 100
SECONDS, SECONDS_MAX = 2.0, 600.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 1.0
RATES_PER_S = (1_000,)
RATE_PER_S_MAX = 100_000
PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "loadtests" / "results"
CHART = PROJECT / "docs" / "images" / "benchmark.svg"
PAGE = PROJECT / "docs" / "performance.md"
README = PROJECT / "README.md"
INTERRUPTED = 130
TABLE_WIDTH = 120

_EPILOG = """\
examples:
  python -m loadtests.bench --quick                 a minute, to see that everything works
  python -m loadtests.bench --check-goals --save    the run whose figures are published
  python -m loadtests.bench --stacks bare-uvicorn sekisho --rounds 5

Exit code 1 means that an answer was wrong or a process failed; figures alone never fail a run.
"""


def command_line() -> CommandLine:
    """Describe the options."""
    description = "Measure the gateway beside hand-written services on the same data, and check every answer."
    line = CommandLine("python -m loadtests.bench", description=description, epilog=_EPILOG)
    line.option("--rounds", type=whole_number(1, ROUNDS_MAX), help=f"rounds over all stacks; {ROUNDS} if not given")
    line.option("--seconds", type=seconds(0.2, SECONDS_MAX), help=f"measured for each cell; {SECONDS:g} if not given")
    line.option("--quick", action="store_true", help=f"{QUICK_ROUNDS} round of {QUICK_SECONDS:g} s a cell")
    line.option(
        "--stacks", nargs="+", choices=STACK_NAMES, default=list(STACK_NAMES), help="which to run", metavar="STACK"
    )
    line.option(
        "--rates",
        nargs="+",
        type=whole_number(1, RATE_PER_S_MAX),
        default=list(RATES_PER_S),
        metavar="N",
        help="open loop: requests offered a second",
    )
    line.option("--check-goals", action="store_true", help="print each goal, and whether it was reached")
    line.option("--save", action="store_true", help="keep the result in loadtests/results, and renew chart and page")
    return line


def main(arguments: list[str] | None = None) -> int:
    """Run. Returns 0; 1 where an answer was wrong or a process failed; 130 when interrupted."""
    given = command_line().parse_args(arguments)
    forget_settings()
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    cell_s = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    # Where nobody looks at a terminal, a table may be as wide as it is.
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    started_at = datetime.now(UTC)
    names = [name for name in STACK_NAMES if name in given.stacks]
    try:
        plan = RoundPlan(names=names, open_loads=[open_load(rate) for rate in given.rates], cell_s=cell_s)
        cells = run_rounds(plan, rounds, console)
    except (ProcessFailed, GeneratorFailed, RedisServerNotFound) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; every process has been ended", file=sys.stderr)
        return INTERRUPTED
    result = BenchResult(
        command=shlex.join(["python", "-m", "loadtests.bench", *(sys.argv[1:] if arguments is None else arguments)]),
        commit=commit_of(PROJECT),
        started_at=started_at.isoformat(timespec="seconds"),
        machine=describe_machine(),
        rounds=rounds,
        seconds=cell_s,
        summaries=summarise(cells),
        goals=check_goals(cells),
        cells=cells,
    )
    _show(result, console, with_goals=given.check_goals)
    for file in _save(result) if given.save else [_keep_for_now(result)]:
        console.print(f"written: {file}", soft_wrap=True)
    return 1 if show_errors(result.summaries, console) else 0


def forget_settings() -> None:
    """Take `SEKISHO_*` variables out of the environment that programs under test inherit."""
    # What happens to be set for the programs under test would change what is measured.
    for variable in [name for name in os.environ if name.startswith(VARIABLE_PREFIX)]:
        del os.environ[variable]


def _show(result: BenchResult, console: Console, *, with_goals: bool) -> None:
    tables = {
        "Closed loop": throughput_rows(result.summaries),
        "Open loop, from the intended send time; batches": latency_rows(result.summaries),
        "CPU time of a request in µs, by process; memory": cost_rows(result.summaries),
        "Ranking 500 items for one user, in ms": ranking_rows(result.cells),
        "Gateway processes, closed loop over 64 connections": scaling_rows(result.cells),
    }
    for title, rows in tables.items():
        if rows[1]:
            console.print()
            console.print(rich_table(title, rows))
    console.print()
    for note in [*scaling_caveat(result.cells, result.machine.cores), *notes(result.summaries)]:
        console.print(note)
    if with_goals:
        console.print()
        console.print(rich_table("Goals", goal_rows(result.goals)))
    console.print()


def show_errors(summaries: list[Summary], console: Console) -> bool:
    """Print what was wrong with answers, and say whether anything was."""
    failed = [each for each in summaries if each.errors]
    for each in failed:
        for problem, count in each.errors.items():
            console.print(f"[red]{each.stack}, {each.load}: {problem} ({count} times)[/]", highlight=False)
    return bool(failed)


def _keep_for_now(result: BenchResult) -> Path:
    file = Path(tempfile.mkdtemp(prefix="sekisho-bench-result-")) / "result.json"
    write_result(result, file)
    return file


def _save(result: BenchResult) -> list[Path]:
    file = RESULTS / f"{result.started_at[:10]}-{result.commit}.json"
    write_result(result, file)
    CHART.parent.mkdir(parents=True, exist_ok=True)
    CHART.write_text(_chart(result))
    PAGE.write_text(with_report(PAGE.read_text(), markdown_report(result)))
    README.write_text(with_report(README.read_text(), readme_report(result)))
    return [file, CHART, PAGE, README]


def _chart(result: BenchResult) -> str:
    found = [each for name in STACK_NAMES if (each := find(result.summaries, name, SIXTY_FOUR.name))]
    bars = [
        Bar(each.stack, *each.rate_per_s, text=_bar_text(each), highlighted=each.stack == PRODUCT) for each in found
    ]
    note = (
        f"{result.machine.cores} cores shared with Redis and the load generator; every answer checked; {result.commit}"
    )
    return bar_chart("Requests a second at 64 connections", note, bars)


def _bar_text(summary: Summary) -> str:
    rate = f"{summary.rate_per_s.median:,.0f}"
    if summary.rate_ratio is None or summary.stack == YARDSTICK:
        return rate
    return f"{rate} ({summary.rate_ratio.median:.2f} x)"


if __name__ == "__main__":
    # Being told to stop ends a run as Ctrl-C does: every process is ended, and the files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
