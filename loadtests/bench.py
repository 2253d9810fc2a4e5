"""`python -m loadtests.bench`: every stack, alternately, in one run."""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests.bar_chart import Bar, bar_chart
from loadtests.bench_data import BenchData
from loadtests.bench_models import make_bench_data
from loadtests.bench_result import BenchResult, write_result
from loadtests.cell import Cell
from loadtests.goals import check_goals
from loadtests.loads import BATCH, CLOSED_LOADS, SIXTEEN, SIXTY_FOUR, Load, half_capacity, open_load
from loadtests.machine import commit_of, describe_machine
from loadtests.measure import GeneratorFailed, measure
from loadtests.redis_server import RedisServer, RedisServerNotFound
from loadtests.report import (
    cost_rows,
    goal_rows,
    latency_rows,
    markdown_report,
    notes,
    readme_report,
    rich_table,
    throughput_rows,
    with_report,
)
from loadtests.stack_process import ProcessFailed
from loadtests.stacks import PRODUCT, STACK_NAMES, YARDSTICK, RunningStacks, Stack, make_stacks
from loadtests.summary import Summary, find, summarise
from settings import CommandLine
from settings.command_line import VARIABLE_PREFIX, seconds, whole_number

ROUNDS, ROUNDS_MAX = 3, 100
SECONDS, SECONDS_MAX = 3.0, 600.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 1.0
RATES_PER_S = (1_000,)
RATE_PER_S_MAX = 100_000
WARM_SECONDS = 1.0
"""Before the first measured cell of a fresh stack: imports, pools and caches."""

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "loadtests" / "results"
CHART = PROJECT / "docs" / "images" / "benchmark.svg"
PAGE = PROJECT / "docs" / "performance.md"
README = PROJECT / "README.md"
INTERRUPTED = 130

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
    console = Console()
    started_at = datetime.now(UTC)
    names = [name for name in STACK_NAMES if name in given.stacks]
    try:
        cells = run_rounds(names, [open_load(rate) for rate in given.rates], rounds, cell_s, console)
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


def run_rounds(names: list[str], open_loads: list[Load], rounds: int, cell_s: float, console: Console) -> list[Cell]:
    """Measure everything. Raises ProcessFailed, GeneratorFailed and RedisServerNotFound; no process outlives it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    cells_a_round = len(names) * (len(CLOSED_LOADS) + len(open_loads)) + (2 if PRODUCT in names else 0)
    with (
        tempfile.TemporaryDirectory(prefix="sekisho-bench-") as directory,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("training models", total=rounds * cells_a_round)
        work = Path(directory)
        data = make_bench_data(work / "data")
        redis = RedisServer(work)
        cells = []
        try:
            redis.wait_until_ready()
            progress.update(task, description="loading features")
            redis.load(data, work / "load.log")
            for number in range(1, rounds + 1):
                progress.update(task, description=f"round {number}: starting")
                for cell in _round(number, names, open_loads, cell_s, data, redis, work / f"round-{number}"):
                    cells.append(cell)
                    progress.console.print(cell_line(cell), highlight=False)
                    progress.update(task, advance=1, description=f"round {number} of {rounds}")
        finally:
            redis.process.stop()
    return cells


def _round(
    number: int,
    names: list[str],
    open_loads: list[Load],
    cell_s: float,
    data: BenchData,
    redis: RedisServer,
    directory: Path,
) -> Iterator[Cell]:
    """One round: every stack fresh; load by load over all stacks, so that what is compared is seconds apart."""
    directory.mkdir()
    # Another stack begins each round, so that none always follows the same one.
    shift = (number - 1) % len(names)
    stacks = make_stacks(names[shift:] + names[:shift], data, redis.url, directory)
    with RunningStacks(stacks, directory) as running:

        def cell(stack: Stack, load: Load, measured_s: float = cell_s) -> Cell:
            uses_redis = [] if stack.constant else [redis.process]
            return measure(stack, load, number, measured_s, [*running.processes(stack), *uses_redis], data)

        for stack in stacks:
            cell(stack, SIXTEEN, WARM_SECONDS)
        reached_per_s = 0.0
        for load in (*CLOSED_LOADS, *open_loads):
            for stack in stacks:
                measured = cell(stack, load)
                if (stack.name, load) == (PRODUCT, SIXTY_FOUR):
                    reached_per_s = measured.result.rate_per_s
                yield measured
        for stack in stacks:
            if stack.name == PRODUCT:
                yield cell(stack, half_capacity(reached_per_s))
                yield cell(stack, BATCH)


def forget_settings() -> None:
    """Take `SEKISHO_*` variables out of the environment that programs under test inherit."""
    # What happens to be set for the programs under test would change what is measured.
    for variable in [name for name in os.environ if name.startswith(VARIABLE_PREFIX)]:
        del os.environ[variable]


def cell_line(cell: Cell) -> str:
    """One cell, for the terminal."""
    result = cell.result
    errors = f"  [red]{sum(result.errors.values())} errors[/]" if result.errors else ""
    return (
        f"{cell.round}  {cell.stack:<21} {cell.load:<10} {result.rate_per_s:>9,.0f}/s  p50 {result.p50_ms:>8.2f} ms  "
        f"p99 {result.p99_ms:>8.2f} ms{errors}"
    )


def _show(result: BenchResult, console: Console, *, with_goals: bool) -> None:
    console.print()
    console.print(rich_table("Closed loop", throughput_rows(result.summaries)))
    console.print()
    console.print(rich_table("Open loop, from the intended send time; batches", latency_rows(result.summaries)))
    console.print()
    console.print(rich_table("CPU time of a request in µs, by process; memory", cost_rows(result.summaries)))
    console.print()
    for note in notes(result.summaries):
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
    return rate if summary.rate_ratio is None or summary.stack == YARDSTICK else f"{rate} ({summary.rate_ratio:.2f} x)"


if __name__ == "__main__":
    # Being told to stop ends a run as Ctrl-C does: every process is ended, and the files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
