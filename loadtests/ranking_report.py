"""Ranking: one request of many items beside as many requests of one item."""

from collections.abc import Callable

from loadtests.cell import Cell, cells_by_round
from loadtests.loads import RANK_BATCH, RANK_IN_TURN, RANK_SINGLES
from loadtests.percentiles import Spread, spread
from loadtests.rank_data import RANK_ITEMS
from loadtests.report import ROLES, Rows, spread_text
from loadtests.stacks import PRODUCT

ABOUT = (
    f"Ranking {RANK_ITEMS} items for one user: the same pairs of user and item, in the same order, on the same model, "
    "in one request at a time, and in a request each. CPU time of all processes and wall time, both in ms for all "
    f"{RANK_ITEMS}; minimum and maximum over the rounds in brackets:"
)


def ranking_rows(cells: list[Cell]) -> Rows:
    """CPU and wall time of both ways, and their ratios within a round. No rows where they were not measured."""
    heads = (f"{RANK_ITEMS} items in", *ROLES[1:], "all CPU ms", "wall ms")
    names = [(PRODUCT, load.name) for load in (RANK_BATCH, RANK_SINGLES, RANK_IN_TURN)]
    rounds = [[by_name[name] for name in names] for by_name in cells_by_round(cells) if set(names) <= set(by_name)]
    if not rounds:
        return heads, []
    batches, singles, in_turn = (list(each) for each in zip(*rounds, strict=True))
    return heads, [
        ("one request", *_costs(batches, 1, lambda cell: cell.result.p50_ms)),
        (f"{RANK_ITEMS} requests, 64 connections", *_costs(singles, RANK_ITEMS, _singles_wall_ms)),
        ("... x one request", *_ratios(batches, singles)),
        (f"{RANK_ITEMS} requests, one after another", *_costs(in_turn, RANK_ITEMS, _singles_wall_ms)),
        ("... x one request", *_ratios(batches, in_turn)),
    ]


def _ratios(batches: list[Cell], others: list[Cell]) -> tuple[str, ...]:
    pairs = list(zip(batches, others, strict=True))
    cpu = spread([_cpu_ms(other, RANK_ITEMS) / max(_cpu_ms(batch, 1), 1e-9) for batch, other in pairs])
    wall = spread([_singles_wall_ms(other) / max(batch.result.p50_ms, 1e-9) for batch, other in pairs])
    return (*["-"] * len(ROLES[1:]), spread_text(cpu), spread_text(wall))


def _costs(cells: list[Cell], requests: int, wall_ms: Callable[[Cell], float]) -> tuple[str, ...]:
    # Seconds of 1,000 requests are milliseconds of one.
    by_role = [spread([cell.cpu_s_per_1000.get(role, 0.0) * requests for cell in cells]) for role in ROLES[1:]]
    totals: list[Spread] = [
        spread([_cpu_ms(cell, requests) for cell in cells]),
        spread([wall_ms(cell) for cell in cells]),
    ]
    return (*(f"{each.median:.2f}" for each in by_role), *map(spread_text, totals))


def _cpu_ms(cell: Cell, requests: int) -> float:
    return sum(cell.cpu_s_per_1000.values()) * requests


def _singles_wall_ms(cell: Cell) -> float:
    return RANK_ITEMS / max(cell.result.rate_per_s, 1e-9) * 1e3
