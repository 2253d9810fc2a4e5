"""The goals of the data path: what was measured against what was hoped for. Never an assertion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from loadtests.cell import Cell, cells_by_round
from loadtests.loads import HALF_CAPACITY, ONE, RANK_BATCH, RANK_SINGLES, SCALING, SIXTY_FOUR, open_load
from loadtests.percentiles import spread
from loadtests.stacks import (
    EMPTY_FASTAPI,
    FASTAPI_AIOHTTP,
    FASTAPI_HTTPX,
    FASTAPI_MONOLITH,
    PRODUCT,
    YARDSTICK,
    scaled_name,
)

OPEN_LOOP = open_load(1_000).name
P999_MS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure: `figure` takes the cells of one round by (stack, load), and raises KeyError where one is missing."""

    text: str
    figure: Callable[[dict[tuple[str, str], Cell]], float]
    bound: float
    at_least: bool


class GoalResult(msgspec.Struct, frozen=True):
    """`measured`: the median over the rounds; None where the cells that it needs were not run.

    `least` and `most` over the rounds; None as well in results of format 1, which did not keep them.
    """

    text: str
    bound: float
    at_least: bool
    measured: float | None
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def check_goals(cells: list[Cell], goals: Sequence[Goal] | None = None) -> list[GoalResult]:
    """Compare each goal, within each round; those of the gateway where none are given."""
    rounds = cells_by_round(cells)
    return [_result(goal, rounds) for goal in (GOALS if goals is None else goals)]


def _result(goal: Goal, rounds: list[dict[tuple[str, str], Cell]]) -> GoalResult:
    figures = []
    for cells in rounds:
        try:
            figures.append(goal.figure(cells))
        except KeyError:
            continue
    return GoalResult(goal.text, goal.bound, goal.at_least, *(spread(figures) if figures else (None, None, None)))


def _throughput_against(stack: str) -> Callable[[dict[tuple[str, str], Cell]], float]:
    def figure(cells: dict[tuple[str, str], Cell]) -> float:
        other = cells[stack, SIXTY_FOUR.name].result.rate_per_s
        return cells[PRODUCT, SIXTY_FOUR.name].result.rate_per_s / max(other, 1e-9)

    return figure


def _p50_at_one(cells: dict[tuple[str, str], Cell]) -> float:
    return cells[PRODUCT, ONE.name].result.p50_ms / cells[YARDSTICK, ONE.name].result.p50_ms


def _open_loop_p99(cells: dict[tuple[str, str], Cell]) -> float:
    return cells[PRODUCT, OPEN_LOOP].result.p99_ms / cells[YARDSTICK, OPEN_LOOP].result.p99_ms


def _open_loop_p999_ms(cells: dict[tuple[str, str], Cell]) -> float:
    return cells[PRODUCT, OPEN_LOOP].result.p999_ms


def _tail_at_half(cells: dict[tuple[str, str], Cell]) -> float:
    result = cells[PRODUCT, HALF_CAPACITY].result
    return result.p99_ms / result.p50_ms


def _ranking_saving(cells: dict[tuple[str, str], Cell]) -> float:
    batch = sum(cells[PRODUCT, RANK_BATCH.name].cpu_s_per_1000.values())
    singles = sum(cells[PRODUCT, RANK_SINGLES.name].cpu_s_per_1000.values()) * RANK_BATCH.instances
    return singles / max(batch, 1e-9)


def _second_process(cells: dict[tuple[str, str], Cell]) -> float:
    return added_share(cells[scaled_name(2), SCALING.name], cells[PRODUCT, SCALING.name], 2)


def added_share(cell: Cell, one: Cell, processes: int) -> float:
    """What each gateway process after the first added, as a share of what the first reached in the same round."""
    return (cell.result.rate_per_s / max(one.result.rate_per_s, 1e-9) - 1) / (processes - 1)


GOALS = (
    Goal("throughput at 64, x bare uvicorn", _throughput_against(YARDSTICK), 0.4, True),
    Goal("throughput at 64, x an empty FastAPI route", _throughput_against(EMPTY_FASTAPI), 2, True),
    Goal("throughput at 64, x FastAPI with httpx", _throughput_against(FASTAPI_HTTPX), 20, True),
    Goal("throughput at 64, x FastAPI with aiohttp", _throughput_against(FASTAPI_AIOHTTP), 8, True),
    Goal("throughput at 64, x one FastAPI process", _throughput_against(FASTAPI_MONOLITH), 4, True),
    Goal("p50 at 1 connection, x bare uvicorn", _p50_at_one, 2.5, False),
    Goal("p99 at 1,000/s offered, x bare uvicorn", _open_loop_p99, 3, False),
    Goal("p99.9 at 1,000/s offered, ms", _open_loop_p999_ms, P999_MS_MAX, False),
    Goal("p99 at half of capacity, x its own p50", _tail_at_half, 5, False),
    Goal(f"CPU of {RANK_BATCH.instances} requests, x one of {RANK_BATCH.instances} items", _ranking_saving, 50, True),
    Goal("requests/s that a second gateway process adds, x one", _second_process, 0.8, True),
)
