"""Measures a ledger: the stack under each load, once with its CPU time counted, once sampled; then the path alone."""

import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import msgspec
import psutil

from loadtests.bench_data import BenchData
from loadtests.bench_models import add_rank_model, make_bench_data
from loadtests.bench_rounds import WARM_SECONDS
from loadtests.cell import Cell, CellResult
from loadtests.generator_process import GeneratorProcess
from loadtests.loads import ONE, SIXTEEN, SIXTY_FOUR, Load
from loadtests.measure import cell_spec, measure
from loadtests.redis_server import RedisServer
from loadtests.sampling_profiler import (
    RATE_PER_S,
    Profile,
    cpu_between,
    profile_process,
    profile_program,
    thread_cpu,
)
from loadtests.stack_process import ProcessFailed, StackProcess
from loadtests.stacks import PRODUCT, Program, RunningStacks, Stack, make_stacks
from loadtests.stage_ledger import (
    GATEWAY_PLACES,
    OTHER,
    STEPS_PER_US,
    WORKER_PLACES,
    Entry,
    FrameStack,
    Place,
    ThreadCpu,
    apportion,
    ledger,
    tallies,
    user_weights,
)

LOADS = (ONE, SIXTY_FOUR)
GATEWAY, REDIS, PARQUET = "gateway", "redis", "log's process"
REDIS_STAGE, PARQUET_STAGE = "commands", "Parquet files"
MAIN_THREAD = "main"

AT_ONCE = {ONE: 1, SIXTY_FOUR: 16}
"""Requests of one turn of the loop in the hot program: about as many as meet in one under the load."""

HOT_PROGRAM = Path(__file__).parent.parent / "tests" / "benchmarks" / "gateway_request.py"
HOT_ROUNDS_PER_S = 3
HOT_ROUND_MAX_S = 5.0
"""Beyond this, a round of the hot program hangs."""

_HOT_COST = re.compile(r"([\d.]+) µs with a request id")
_HOT_LOOP, _HOT_SETUP = "(uvloop/", "gateway (gateway_request.py"
"""In every stack of the hot program but those of its start; in those of its start within the loop."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
TOLD_EVERY_S = 0.25
"""The load generator tells that it runs this often; the profilers start when it has told so once."""

MARGIN_S = 3
"""How much longer the load is than its sampling: the profilers take a while to start."""


_Spent = dict[str, dict[int, ThreadCpu]]
"""By process and thread id."""


class WrongAnswers(RuntimeError):
    """The gateway answered wrongly: what that cost is no cost of a request."""

    def __init__(self, load: str, errors: Mapping[str, int]) -> None:
        super().__init__(f"{load}: " + "; ".join(f"{problem} ({count} times)" for problem, count in errors.items()))
        self.load, self.errors = load, errors


class HotCostMissing(RuntimeError):
    """The program of the data path alone did not say what a request costs."""

    def __init__(self, said: str) -> None:
        super().__init__(f"{HOT_PROGRAM.name} printed no cost of a request with an id: {said.strip()[-500:]!r}")
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLoad:
    """One load: what was measured, the ledger of each process, and what the path alone costs by stage."""

    cell: Cell
    entries: dict[str, list[Entry]]
    hot: dict[str, int]
    samples: dict[str, int]
    """By process."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """One process. places: of its Python frames; None: it is not sampled, and all that it does is `unsampled`."""

    name: str
    pid: int
    places: tuple[Place, ...] | None
    unsampled: str = OTHER


def measure_ledger(profiler: str, seconds: int, began: Callable[[str], None]) -> list[MeasuredLoad]:
    """Measure every load of LOADS for `seconds`. began: is told what is being done. No process outlives it.

    Raises ProcessFailed, GeneratorFailed, RedisServerNotFound, WrongAnswers, ProfilerFailed, ProfileLineWrong and
    HotCostMissing.
    """
    with tempfile.TemporaryDirectory(prefix="sekisho-ledger-") as directory:
        work = Path(directory)
        began("training models, loading features")
        data = make_bench_data(work / "data")
        add_rank_model(data)  # the workers of the stack serve it too
        redis = RedisServer(work)
        try:
            redis.wait_until_ready()
            redis.load(data, work / "load.log")
            [stack] = make_stacks([PRODUCT], data, redis.url, work)
            with RunningStacks([stack], work) as running:
                live = _Live(stack, [*running.processes(stack), redis.process], data, profiler, work)
                live.warm()
                found = [live.measure(load, seconds, began) for load in LOADS]
        finally:
            redis.process.stop()
        measured = []
        for load, (cell, entries, samples) in zip(LOADS, found, strict=True):
            began(f"{load.name}: the data path alone")
            hot = hot_costs(profiler, AT_ONCE[load], seconds, work)
            measured.append(MeasuredLoad(cell=cell, entries=entries, hot=hot, samples=samples))
    return measured


class _Live:
    """The stack that runs."""

    def __init__(
        self, stack: Stack, processes: list[StackProcess], data: BenchData, profiler: str, directory: Path
    ) -> None:
        self._stack, self._processes, self._data = stack, processes, data
        self._profiler, self._directory = profiler, directory
        self._watched = _watched(stack)

    def warm(self) -> None:
        """Fill pools and caches."""
        measure(self._stack, SIXTEEN, 0, WARM_SECONDS, self._processes, self._data)

    def measure(
        self, load: Load, seconds: int, began: Callable[[str], None]
    ) -> tuple[Cell, dict[str, list[Entry]], dict[str, int]]:
        """Count CPU time, then sample: a profiler would add to what is counted."""
        began(f"{load.name}: counting CPU time")
        before = self._cpu()
        cell = measure(self._stack, load, 1, seconds, self._processes, self._data)
        spent = _spent(before, self._cpu())
        check_answers(load, cell.result)
        began(f"{load.name}: sampling")
        seen, busy = self._sample(load, seconds)
        entries, samples = {}, {}
        for each in self._watched:
            stacks = seen.get(each.name, [])
            # py-spy knows threads by the names that the program gave them, the kernel by its own.
            names = {stack.thread_id: stack.thread for stack in stacks if stack.thread} | {each.pid: MAIN_THREAD}
            threads = {id_: cpu._replace(name=names.get(id_, cpu.name)) for id_, cpu in spent[each.name].items()}
            # A thread that only sleeps is sometimes seen awake, because the profiler has stopped it.
            counted = {id_: tally for id_, tally in tallies(stacks, each.places or ()).items() if id_ in threads}
            weights = {
                id_: user_weights(tally, busy[each.name].get(id_, 0.0) * RATE_PER_S * seconds)
                for id_, tally in counted.items()
            }
            entries[each.name] = ledger(threads, weights, cell.result.answers_total, TICKS_PER_S, each.unsampled)
            if each.places is not None:
                samples[each.name] = sum(tally.stages.total() for tally in counted.values())
        return cell, entries, samples

    def _sample(self, load: Load, seconds: int) -> tuple[dict[str, list[FrameStack]], dict[str, dict[int, float]]]:
        """The stacks of each sampled process, and the share of the time that each thread ran code of its own."""
        spec = cell_spec(self._stack, load, 2, seconds + MARGIN_S, self._data)
        spec = msgspec.structs.replace(spec, report_every_s=TOLD_EVERY_S)
        profiles: dict[str, Profile] = {}
        readings: list[tuple[float, _Spent]] = []
        try:
            with closing(GeneratorProcess(PRODUCT, load.name, spec).told()) as telling:
                for told in telling:
                    if isinstance(told, CellResult):
                        check_answers(load, told)
                    elif told.at_s < spec.seconds:  # afterwards it is idle
                        readings.append((time.monotonic(), self._cpu()))
                        profiles = profiles or self._profiles(seconds)
            stacks = {name: profile.finish()[0] for name, profile in profiles.items()}
        finally:
            for profile in profiles.values():
                profile.stop()
        (began_s, before), (ended_s, after) = readings[0], readings[-1]
        ticks = (ended_s - began_s) * TICKS_PER_S
        spent = _spent(before, after)
        return stacks, {
            name: {id_: cpu.user_ticks / ticks for id_, cpu in threads.items()} for name, threads in spent.items()
        }

    def _profiles(self, seconds: int) -> dict[str, Profile]:
        return {
            each.name: profile_process(
                self._profiler, each.name, each.pid, seconds, self._directory / f"{each.name}.raw"
            )
            for each in self._watched
            if each.places is not None
        }

    def _cpu(self) -> _Spent:
        return {each.name: thread_cpu(each.pid) for each in self._watched}


def _spent(before: _Spent, after: _Spent) -> _Spent:
    return {name: cpu_between(before[name], threads) for name, threads in after.items()}


def check_answers(load: Load, result: CellResult) -> None:
    """Raise WrongAnswers where one was."""
    if result.errors:
        raise WrongAnswers(load.name, result.errors)


def hot_costs(profiler: str, at_once: int, seconds: int, directory: Path) -> dict[str, int]:
    """Run the data path alone for about so long. Returns its cost of a request by stage, in 1 / STEPS_PER_US µs.

    Raises ProfilerFailed, ProfileLineWrong and HotCostMissing.
    """
    rounds = ceil(seconds * HOT_ROUNDS_PER_S / 2)  # of each of its two forms of a request
    command = (sys.executable, str(HOT_PROGRAM), "--at-once", str(at_once), "--rounds", str(rounds), "--instances", "0")
    profile = profile_program(profiler, command, 2 * rounds * HOT_ROUND_MAX_S, directory / f"hot-{at_once}.raw")
    stacks, said = profile.finish()
    return hot_stages(stacks, said)


def hot_stages(stacks: list[FrameStack], said: str) -> dict[str, int]:
    """Divide the cost that the data path alone printed by its samples. Raises HotCostMissing."""
    cost = _HOT_COST.search(said)
    counted: Counter[str] = Counter()
    for tally in tallies(filter(_is_served, stacks), GATEWAY_PLACES).values():
        counted += tally.stages
    if cost is None or not counted:
        raise HotCostMissing(said)
    return apportion(round(float(cost[1]) * STEPS_PER_US), counted)


def _is_served(stack: FrameStack) -> bool:
    frames = ";".join(stack.frames)
    return _HOT_LOOP in frames and _HOT_SETUP not in frames


def _watched(stack: Stack) -> list[_Watched]:
    """The processes of a stack. Raises ProcessFailed where one is not there."""
    gateway_pid = _pid_of(GATEWAY, lambda child: child.cmdline() == list(stack.front.command))
    redis_pid = _pid_of(REDIS, lambda child: child.name() == "redis-server")
    return [
        _Watched(GATEWAY, gateway_pid, GATEWAY_PLACES),
        *(_Watched(PARQUET, child.pid, None, PARQUET_STAGE) for child in psutil.Process(gateway_pid).children()),
        *(_Watched(f"worker {i}", _pid_of_worker(each), WORKER_PLACES) for i, each in enumerate(stack.backends, 1)),
        _Watched(REDIS, redis_pid, None, REDIS_STAGE),
    ]


def _pid_of_worker(worker: Program) -> int:
    return _pid_of(worker.name, lambda child: child.cmdline() == list(worker.command))


def _pid_of(name: str, matches: Callable[[psutil.Process], bool]) -> int:
    # Of the children of this program, which started them: nobody else's.
    for child in psutil.Process().children():
        if matches(child):
            return child.pid
    raise ProcessFailed(name, "is not there", "")
