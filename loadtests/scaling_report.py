"""Scaling: the same load on one gateway process and on more."""

from loadtests.cell import Cell, cells_by_round
from loadtests.goals import added_share
from loadtests.loads import SCALING
from loadtests.percentiles import spread
from loadtests.report import Rows, spread_text
from loadtests.stacks import PRODUCT, scaled_name


def scaling_rows(cells: list[Cell]) -> Rows:
    """Requests a second by gateway processes, and what each further process adds, as a share of the first."""
    heads = ("gateway processes", "req/s", "min-max", "CPU µs a request", "MB", "a further one adds")
    rows: list[tuple[str, ...]] = []
    for processes, pairs in _by_processes(cells).items():
        rate = spread([cell.result.rate_per_s for cell, _ in pairs])
        cpu_us = spread([sum(cell.cpu_s_per_1000.values()) * 1e3 for cell, _ in pairs])
        memory = spread([sum(cell.memory_mb.values()) for cell, _ in pairs])
        added = spread([added_share(cell, one, processes) for cell, one in pairs]) if processes > 1 else None
        figures = (f"{rate.median:,.0f}", f"{rate.least:,.0f}-{rate.most:,.0f}", spread_text(cpu_us))
        rows.append((str(processes), *figures, f"{memory.median:,.0f}", spread_text(added)))
    return heads, rows


def scaling_caveat(cells: list[Cell], cores: int) -> list[str]:
    """Say what took the cores while one process was measured; nothing where none was."""
    alone = [one for _, one in _by_processes(cells).get(1, [])]
    if not alone:
        return []
    stack = spread([sum(cell.cpu_s_per_1000.values()) / 1e3 * cell.result.rate_per_s for cell in alone]).median
    gateway = spread([cell.cpu_s_per_1000.get("gateway", 0.0) / 1e3 * cell.result.rate_per_s for cell in alone]).median
    generator = spread([cell.result.generator_cpu_share for cell in alone]).median
    told = (
        f"Everything shares {cores} cores. With one gateway process it took {gateway:.2f} of them, workers and Redis "
        f"{stack - gateway:.2f}, and the load generator {generator:.2f}: what is left bounds what another process can "
        "add here, and each request that it adds needs workers, Redis and load generator too. CPU time of a request "
        "says what sharing itself costs."
    )
    return [told]


def _by_processes(cells: list[Cell]) -> dict[int, list[tuple[Cell, Cell]]]:
    found: dict[int, list[tuple[Cell, Cell]]] = {}
    for by_name in cells_by_round(cells):
        one = by_name.get((PRODUCT, SCALING.name))
        scaled = {name: cell for (name, load), cell in by_name.items() if load == SCALING.name}
        processes = 1
        while one is not None and scaled_name(processes) in scaled:
            found.setdefault(processes, []).append((scaled[scaled_name(processes)], one))
            processes *= 2
    return found
