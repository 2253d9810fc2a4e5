"""The rounds of a benchmark: every stack, load by load, so that what is compared is seconds apart."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests.bench_data import BenchData
from loadtests.bench_models import add_rank_model, make_bench_data
from loadtests.cell import Cell
from loadtests.loads import (
    BATCH,
    CLOSED_LOADS,
    RANK_BATCH,
    RANK_IN_TURN,
    RANK_SINGLES,
    SCALING,
    SIXTEEN,
    SIXTY_FOUR,
    Load,
    half_capacity,
)
from loadtests.machine import core_count
from loadtests.measure import measure
from loadtests.redis_server import RedisServer
from loadtests.stacks import PRODUCT, RunningStacks, Stack, make_stacks, scaled_name, scaled_processes

_Item = TypeVar("_Item")

REFRESHES_PER_S = 1
"""Of the display, which shares the cores with what is measured."""

WARM_SECONDS = 0.5
"""Before the first measured cell of a fresh stack: imports, pools and caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What each round measures: these stacks, closed loop and then under `open_loads`, `cell_s` a cell.

    The product, where it is among them, is also ranked with, batched and scaled.
    """

    names: list[str]
    open_loads: list[Load]
    cell_s: float

    @property
    def scaled(self) -> list[str]:
        """The stacks of the scaling cells; none where there is one core only."""
        names = [scaled_name(processes) for processes in scaled_processes(core_count())]
        return names if PRODUCT in self.names and len(names) > 1 else []

    @property
    def cells(self) -> int:
        """Cells of one round."""
        of_the_product = 5 if PRODUCT in self.names else 0
        return len(self.names) * (len(CLOSED_LOADS) + len(self.open_loads)) + of_the_product + len(self.scaled)


def run_rounds(plan: RoundPlan, rounds: int, console: Console) -> list[Cell]:
    """Measure everything. Raises ProcessFailed, GeneratorFailed and RedisServerNotFound; no process outlives it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="sekisho-bench-") as directory,
        Progress(*columns, console=console, transient=True, refresh_per_second=REFRESHES_PER_S) as progress,
    ):
        task = progress.add_task("training models", total=rounds * plan.cells)
        work = Path(directory)
        data = make_bench_data(work / "data")
        add_rank_model(data)
        redis = RedisServer(work)
        cells = []
        try:
            redis.wait_until_ready()
            progress.update(task, description="loading features")
            redis.load(data, work / "load.log")
            for number in range(1, rounds + 1):
                progress.update(task, description=f"round {number}: starting")
                for cell in _round(number, plan, data, redis, work / f"round-{number}"):
                    cells.append(cell)
                    progress.console.print(cell_line(cell), highlight=False)
                    progress.update(task, advance=1, description=f"round {number} of {rounds}")
        finally:
            redis.process.stop()
    return cells


def _round(number: int, plan: RoundPlan, data: BenchData, redis: RedisServer, directory: Path) -> Iterator[Cell]:
    """One round, every stack fresh."""
    directory.mkdir()
    # Another stack begins each round, so that none always follows the same one.
    names = _shifted(plan.names, number - 1)
    started = [*names, *(name for name in plan.scaled if name not in names)]
    with RunningStacks(make_stacks(started, data, redis.url, directory), directory) as running:

        def cell(stack: Stack, load: Load, measured_s: float = plan.cell_s) -> Cell:
            loaded = [*running.processes(stack), *([] if stack.constant else [redis.process])]
            idle = [each for each in everything if each not in loaded]
            return measure(stack, load, number, measured_s, loaded, data, idle)

        everything = [redis.process, *(each for stack in running.stacks.values() for each in running.processes(stack))]
        for stack in running.stacks.values():
            cell(stack, SIXTEEN, WARM_SECONDS)
        reached_per_s = 0.0
        for load in (*CLOSED_LOADS, *plan.open_loads):
            for name in names:
                measured = cell(running.stacks[name], load)
                if (name, load) == (PRODUCT, SIXTY_FOUR):
                    reached_per_s = measured.result.rate_per_s
                yield measured
        if PRODUCT in names:
            for load in (
                half_capacity(reached_per_s),
                BATCH,
                *_shifted([RANK_BATCH, RANK_SINGLES, RANK_IN_TURN], number - 1),
            ):
                yield cell(running.stacks[PRODUCT], load)
        for name in _shifted(plan.scaled, number - 1):
            yield cell(running.stacks[name], SCALING)


def _shifted(items: list[_Item], by: int) -> list[_Item]:
    start = by % max(1, len(items))
    return items[start:] + items[:start]


def cell_line(cell: Cell) -> str:
    """One cell, for the terminal."""
    result = cell.result
    mark = "*" if cell.disturbed else " "
    errors = f"  [red]{sum(result.errors.values())} errors[/]" if result.errors else ""
    return (
        f"{cell.round}{mark} {cell.stack:<21} {cell.load:<10} {result.rate_per_s:>9,.0f}/s"
        f"  p50 {result.p50_ms:>8.2f} ms  p99 {result.p99_ms:>8.2f} ms{errors}"
    )
