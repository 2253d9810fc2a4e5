"""The loads that each stack is put under."""

from dataclasses import dataclass

from loadtests.cell import RequestKind
from loadtests.rank_data import RANK_ITEMS

OPEN_LOOP_CONNECTIONS = 64
BATCH_INSTANCES = 500
WARMUP_S = 0.5
"""Before each cell is measured: connections settle, and caches hold this stack's data again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`rate_per_s` None is closed loop over `connections`; else open loop, queueing when all of them are busy."""

    name: str
    connections: int
    rate_per_s: float | None = None
    instances: int = 1
    kind: RequestKind = "predict"


ONE = Load(name="closed-1", connections=1)
SIXTEEN = Load(name="closed-16", connections=16)
SIXTY_FOUR = Load(name="closed-64", connections=64)
CLOSED_LOADS = (ONE, SIXTEEN, SIXTY_FOUR)

BATCH = Load(name=f"batch-{BATCH_INSTANCES}", connections=1, instances=BATCH_INSTANCES)
"""One request of as many different users at a time: nothing in it is read once for several."""

RANK_BATCH = Load(name=f"rank-{RANK_ITEMS}", connections=1, instances=RANK_ITEMS, kind="rank")
"""One request at a time, of one user and many items: how ranking is done."""

RANK_SINGLES = Load(name="rank-1", connections=64, kind="rank")
"""The same pairs of user and item in the same order, a request each."""

RANK_IN_TURN = Load(name="rank-1-in-turn", connections=1, kind="rank")
"""The same again, one after another: how a caller ranks who has but one item a request."""

SCALING = Load(name="scaling-64", connections=64)
"""Closed loop, on one and on more processes of the gateway, one right after the other."""

HALF_CAPACITY = "open-half"


def open_load(rate_per_s: float) -> Load:
    """Open loop at a fixed offered rate."""
    return Load(name=f"open-{rate_per_s:g}", connections=OPEN_LOOP_CONNECTIONS, rate_per_s=rate_per_s)


def half_capacity(closed_rate_per_s: float) -> Load:
    """Open loop at half of what the stack reached in closed loop."""
    return Load(name=HALF_CAPACITY, connections=OPEN_LOOP_CONNECTIONS, rate_per_s=max(1.0, closed_rate_per_s / 2))
