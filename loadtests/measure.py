"""Measures one cell: runs the generator against a stack, and reads what that cost each of its processes."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import psutil

from loadtests.bench_data import TREATMENT_BP, USERS, BenchData
from loadtests.cell import Cell, CellSpec
from loadtests.generator_process import GeneratorProcess
from loadtests.loads import WARMUP_S, Load
from loadtests.stack_process import StackProcess
from loadtests.stacks import PATH, RANK_PATH, Stack


def measure(
    stack: Stack,
    load: Load,
    round_number: int,
    seconds: float,
    processes: list[StackProcess],
    data: BenchData,
    idle: Sequence[StackProcess] = (),
) -> Cell:
    """Put one load on one stack. idle: what else runs of ours.

    Raises GeneratorFailed, and ProcessFailed where a process ended.
    """
    spec = cell_spec(stack, load, round_number, seconds, data)
    return measure_spec(stack.name, load.name, round_number, spec, processes, idle)


def cell_spec(stack: Stack, load: Load, seed: int, seconds: float, data: BenchData) -> CellSpec:
    """What the generator is told of a load on a stack."""
    ranking = load.kind == "rank"
    expected = data.rank_expected_file if ranking else data.expected_file
    return CellSpec(
        port=stack.port,
        path=RANK_PATH if ranking else PATH,
        connections=load.connections,
        rate_per_s=load.rate_per_s,
        instances=load.instances,
        users=USERS,
        warmup_s=WARMUP_S,
        seconds=seconds,
        seed=seed,
        expected_file=None if stack.constant else str(expected),
        treatment_share=TREATMENT_BP / 10_000,
        kind=load.kind,
    )


def measure_spec(
    stack: str,
    load: str,
    round_number: int,
    spec: CellSpec,
    processes: list[StackProcess],
    idle: Sequence[StackProcess] = (),
) -> Cell:
    """Send what a specification says, and read what that cost `processes`. Raises as `measure`."""
    before, began_s = _by_role(processes, StackProcess.cpu_s), time.monotonic()
    others_before_s = _machine_busy_s() - _bystanders_s(idle)
    result = GeneratorProcess(stack, load, spec).result()
    used = {role: after - before[role] for role, after in _by_role(processes, StackProcess.cpu_s).items()}
    others_s = _machine_busy_s() - _bystanders_s(idle) - others_before_s
    foreign_s = others_s - sum(used.values()) - result.generator_cpu_s
    return Cell(
        stack=stack,
        load=load,
        round=round_number,
        result=result,
        cpu_s_per_1000={role: cpu_s / max(1, result.answers_total) * 1000 for role, cpu_s in used.items()},
        foreign_cores=max(0.0, foreign_s / (time.monotonic() - began_s)),
        memory_mb=_by_role(processes, StackProcess.memory_mb),
    )


def _machine_busy_s() -> float:
    # Stolen time is another machine's work on the same cores.
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + getattr(times, "steal", 0.0)


def _bystanders_s(idle: Sequence[StackProcess]) -> float:
    # What waits idle, and this program itself, take a few hundredths of a core: no other program's, and always there.
    return sum(process.cpu_s() for process in idle) + time.process_time()


def _by_role(processes: list[StackProcess], figure: Callable[[StackProcess], float]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        sums[process.role] += figure(process)
    return dict(sums)
