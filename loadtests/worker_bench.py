"""`python -m loadtests.worker_bench`: a worker beside MLServer, alternately, on one model file."""

import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from loadtests.bench import (
    INTERRUPTED,
    PAGE,
    PROJECT,
    RESULTS,
    ROUNDS_MAX,
    SECONDS_MAX,
    TABLE_WIDTH,
    forget_settings,
    show_errors,
)
from loadtests.bench_data import USERS, BenchData
from loadtests.bench_models import make_bench_data
from loadtests.bench_result import write_result
from loadtests.bench_rounds import cell_line
from loadtests.cell import Cell, CellSpec, RequestKind
from loadtests.generator_process import GeneratorFailed
from loadtests.goals import check_goals
from loadtests.loads import CLOSED_LOADS, SIXTEEN, WARMUP_S, Load
from loadtests.machine import commit_of, describe_machine
from loadtests.measure import measure_spec
from loadtests.report import goal_rows, rich_table, with_report
from loadtests.stack_process import ProcessFailed
from loadtests.stacks import RunningStacks, Stack
from loadtests.summary import summarise
from loadtests.worker_contestants import (
    CANDIDATES,
    MLSERVER,
    PATH,
    WORKER,
    WORKER_BINARY,
    Contestant,
    MlserverSettings,
    PeersMissing,
    mlserver,
    mlserver_program,
    peer_packages,
    worker,
)
from loadtests.worker_report import (
    BEGIN,
    END,
    GOALS,
    Tried,
    WorkerBenchResult,
    markdown_report,
    tried_rows,
    worker_rows,
)
from settings import CommandLine
from settings.command_line import seconds, whole_number

ROUNDS, SECONDS, TUNING_SECONDS = 5, 3.0, 1.5
QUICK_ROUNDS, QUICK_SECONDS, QUICK_TUNING_SECONDS = 1, 0.5, 0.3
WARM_SECONDS = 1.0

_EPILOG = """\
examples:
  make peers                                     once: installs MLServer beside, in .venv-peers
  python -m loadtests.worker_bench --quick       about a minute, to see that everything works
  python -m loadtests.worker_bench --save        the run whose figures are published

Exit code 1 means that an answer was wrong, a process failed or MLServer is not installed; figures alone never fail a
run.
"""


def command_line() -> CommandLine:
    """Describe the options."""
    description = "Measure a worker beside MLServer on the same LightGBM model, and check every answer."
    line = CommandLine("python -m loadtests.worker_bench", description=description, epilog=_EPILOG)
    line.option("--rounds", type=whole_number(1, ROUNDS_MAX), help=f"rounds over all servers; {ROUNDS} if not given")
    line.option("--seconds", type=seconds(0.2, SECONDS_MAX), help=f"measured for each cell; {SECONDS:g} if not given")
    line.option("--quick", action="store_true", help=f"{QUICK_ROUNDS} round of {QUICK_SECONDS:g} s a cell")
    line.option("--save", action="store_true", help="keep the result in loadtests/results, and renew the page")
    return line


def main(arguments: list[str] | None = None) -> int:
    """Run. Returns 0; 1 where an answer was wrong, a process failed or MLServer is missing; 130 when interrupted."""
    given = command_line().parse_args(arguments)
    forget_settings()
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    cell_s = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
    tuning_s = QUICK_TUNING_SECONDS if given.quick else TUNING_SECONDS
    # Where nobody looks at a terminal, a table may be as wide as it is.
    console, started_at = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH), datetime.now(UTC)
    try:
        peers = peer_packages()
        tried, chosen, cells = run(rounds, cell_s, tuning_s, console)
    except (PeersMissing, ProcessFailed, GeneratorFailed, subprocess.SubprocessError) as error:
        print(f"worker_bench: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("worker_bench: interrupted; every process has been ended", file=sys.stderr)
        return INTERRUPTED
    flags = sys.argv[1:] if arguments is None else arguments
    result = WorkerBenchResult(
        command=shlex.join(["python", "-m", "loadtests.worker_bench", *flags]),
        commit=commit_of(PROJECT),
        started_at=started_at.isoformat(timespec="seconds"),
        machine=describe_machine(),
        rounds=rounds,
        seconds=cell_s,
        summaries=summarise(cells, MLSERVER),
        goals=check_goals(cells, GOALS),
        cells=cells,
        tried=tried,
        chosen=chosen,
        peer_packages=peers,
    )
    _show(result, console)
    if given.save:
        console.print(f"written: {_save(result)} and {PAGE}", soft_wrap=True)
    return 1 if show_errors(result.summaries, console) else 0


def run(
    rounds: int, cell_s: float, tuning_s: float, console: Console
) -> tuple[list[Tried], dict[str, str], list[Cell]]:
    """Tune MLServer, then measure everything. Returns what was tried, what was taken by load, and the cells.

    Raises PeersMissing, ProcessFailed and GeneratorFailed; no process outlives it.
    """
    mlserver_program()
    with tempfile.TemporaryDirectory(prefix="sekisho-worker-bench-") as directory:
        work = Path(directory)
        console.print("training the model")
        data = make_bench_data(work / "data")
        expected = work / "expected.npy"
        np.save(expected, np.load(data.expected_file)[1:])
        measuring = _Measuring(expected, console)
        tried = [each for settings in CANDIDATES for each in _try(settings, tuning_s, data, work, measuring)]
        chosen = {load.name: best(tried, load.name) for load in CLOSED_LOADS}
        return tried, chosen, _rounds(rounds, cell_s, chosen, data, work, measuring)


def best(tried: list[Tried], load: str) -> str:
    """The settings under which MLServer answered most requests a second. Raises ValueError where none was tried."""
    return max((each for each in tried if each.load == load), key=lambda each: each.rate_per_s).settings


class _Measuring:
    """Runs single cells and tells of them."""

    def __init__(self, expected: Path, console: Console) -> None:
        self._expected, self._console = expected, console

    def warm(self, contestant: Contestant, running: RunningStacks, load: Load) -> None:
        """Load a fresh server for a while: imports, pools and caches."""
        self._cell(contestant, running, load, 0, WARM_SECONDS)

    def cell(self, contestant: Contestant, running: RunningStacks, load: Load, number: int, measured_s: float) -> Cell:
        """Measure one cell, and print it."""
        cell = self._cell(contestant, running, load, number, measured_s)
        self._console.print(cell_line(cell), highlight=False)
        return cell

    def _cell(self, contestant: Contestant, running: RunningStacks, load: Load, number: int, measured_s: float) -> Cell:
        spec = CellSpec(
            port=contestant.stack.port,
            path=PATH,
            connections=load.connections,
            rate_per_s=None,
            instances=1,
            users=USERS,
            warmup_s=WARMUP_S,
            seconds=measured_s,
            seed=number,
            expected_file=str(self._expected),
            treatment_share=0.0,
            kind=contestant.kind,
        )
        return measure_spec(contestant.name, load.name, number, spec, running.processes(contestant.stack))


def _try(
    settings: MlserverSettings, tuning_s: float, data: BenchData, directory: Path, measuring: _Measuring
) -> Iterator[Tried]:
    # One server at a time: they are many, and an idle one is not quite idle.
    stack = mlserver(f"try-{CANDIDATES.index(settings)}", settings, data, directory)
    contestant = Contestant(str(settings), stack, "infer-json")
    with RunningStacks([stack], directory) as running:
        measuring.warm(contestant, running, SIXTEEN)
        for load in CLOSED_LOADS:
            found = measuring.cell(contestant, running, load, 0, tuning_s).result
            if not found.errors:
                yield Tried(settings=str(settings), load=load.name, rate_per_s=found.rate_per_s, p50_ms=found.p50_ms)


def _rounds(
    rounds: int, cell_s: float, chosen: dict[str, str], data: BenchData, directory: Path, measuring: _Measuring
) -> list[Cell]:
    by_text = {str(settings): settings for settings in CANDIDATES}
    cells: list[Cell] = []
    for number in range(1, rounds + 1):
        folder = directory / f"round-{number}"
        folder.mkdir()
        # One server for each of the settings that are the best of some load.
        peers = {
            text: mlserver(f"{MLSERVER}-{i}", by_text[text], data, folder)
            for i, text in enumerate(dict.fromkeys(chosen.values()))
        }
        own = worker(data)
        with RunningStacks([*peers.values(), own], folder) as running:
            for load in CLOSED_LOADS:
                contestants = _contestants(peers[chosen[load.name]], own)
                for contestant in contestants:
                    measuring.warm(contestant, running, load)
                # Another one begins each round, so that none always follows the same one.
                shift = (number - 1) % len(contestants)
                in_turn = contestants[shift:] + contestants[:shift]
                cells += [measuring.cell(contestant, running, load, number, cell_s) for contestant in in_turn]
    return sorted(cells, key=lambda cell: (cell.round, _LOADS.index(cell.load), _NAMES.index(cell.stack)))


_LOADS = [load.name for load in CLOSED_LOADS]
_NAMES = [MLSERVER, WORKER, WORKER_BINARY]


def _contestants(peer: Stack, own: Stack) -> list[Contestant]:
    kinds: dict[str, RequestKind] = {MLSERVER: "infer-json", WORKER: "infer-json", WORKER_BINARY: "infer-binary"}
    return [Contestant(name, peer if name == MLSERVER else own, kind) for name, kind in kinds.items()]


def _show(result: WorkerBenchResult, console: Console) -> None:
    console.print()
    console.print(rich_table("Settings of MLServer (* taken)", tried_rows(result.tried, result.chosen)))
    console.print()
    console.print(rich_table("One row a request, closed loop", worker_rows(result.summaries)))
    console.print()
    console.print(rich_table("Goals", goal_rows(result.goals)))
    console.print()


def _save(result: WorkerBenchResult) -> Path:
    file = RESULTS / f"{result.started_at[:10]}-{result.commit}-worker.json"
    write_result(result, file)
    PAGE.write_text(with_report(PAGE.read_text(), markdown_report(result), BEGIN, END))
    return file


if __name__ == "__main__":
    # Being told to stop ends a run as Ctrl-C does: every process is ended, and the files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
