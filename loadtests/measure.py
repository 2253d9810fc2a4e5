"""Measures one cell: runs the generator against a stack, and reads what that cost each of its processes."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from loadtests.bench_data import TREATMENT_BP, USERS, BenchData
from loadtests.cell import Cell, CellResult, CellSpec
from loadtests.loads import WARMUP_S, Load
from loadtests.stack_process import StackProcess
from loadtests.stacks import PATH, Stack

GENERATOR_EXTRA_S = 30.0
"""What the generator may take beyond its cell, for starting, draining and summing up."""


class GeneratorFailed(RuntimeError):
    """The load generator ended without a result."""

    def __init__(self, stack: str, load: str, problem: str) -> None:
        super().__init__(f"{stack}, {load}: the load generator failed: {problem}")
        self.stack, self.load, self.problem = stack, load, problem


def measure(
    stack: Stack, load: Load, round_number: int, seconds: float, processes: list[StackProcess], data: BenchData
) -> Cell:
    """Put one load on one stack. Raises GeneratorFailed, and ProcessFailed where a process of the stack ended."""
    spec = CellSpec(
        port=stack.port,
        path=PATH,
        connections=load.connections,
        rate_per_s=load.rate_per_s,
        instances=load.instances,
        users=USERS,
        warmup_s=WARMUP_S,
        seconds=seconds,
        seed=round_number,
        expected_file=None if stack.constant else str(data.expected_file),
        treatment_share=TREATMENT_BP / 10_000,
    )
    return measure_spec(stack.name, load.name, round_number, spec, processes)


def measure_spec(stack: str, load: str, round_number: int, spec: CellSpec, processes: list[StackProcess]) -> Cell:
    """Send what a specification says, and read what that cost `processes`. Raises as `measure`."""
    before, busy_before_s, began_s = _by_role(processes, StackProcess.cpu_s), _machine_busy_s(), time.monotonic()
    result = _generate(stack, load, spec)
    used = {role: after - before[role] for role, after in _by_role(processes, StackProcess.cpu_s).items()}
    foreign_s = _machine_busy_s() - busy_before_s - sum(used.values()) - result.generator_cpu_s
    return Cell(
        stack=stack,
        load=load,
        round=round_number,
        result=result,
        cpu_s_per_1000={role: cpu_s / max(1, result.answers_total) * 1000 for role, cpu_s in used.items()},
        foreign_cores=max(0.0, foreign_s / (time.monotonic() - began_s)),
        memory_mb=_by_role(processes, StackProcess.memory_mb),
    )


def _generate(stack: str, load: str, spec: CellSpec) -> CellResult:
    # It ends by itself, so that nothing needs to end it should this process die.
    try:
        done = subprocess.run(
            [sys.executable, "-m", "loadtests.load_generator"],
            input=msgspec.json.encode(spec),
            capture_output=True,
            timeout=spec.warmup_s + spec.seconds + GENERATOR_EXTRA_S,
            cwd=Path(__file__).parent.parent,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GeneratorFailed(stack, load, f"no end after {error.timeout:.0f} s") from error
    if done.returncode != 0:
        raise GeneratorFailed(stack, load, done.stderr.decode(errors="replace").strip()[-2_000:])
    return msgspec.json.decode(done.stdout, type=CellResult)


def _machine_busy_s() -> float:
    # Stolen time is another machine's work on the same cores.
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + getattr(times, "steal", 0.0)


def _by_role(processes: list[StackProcess], figure: Callable[[StackProcess], float]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        sums[process.role] += figure(process)
    return dict(sums)
