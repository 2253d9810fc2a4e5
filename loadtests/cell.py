"""One cell of the benchmark: one load on one stack. What the generator is told, and what it reports."""

from collections.abc import Iterable
from typing import Literal

import msgspec

FOREIGN_CORES_MAX = 0.05
"""Cores that other programs may keep busy; a figure that was measured beside more is marked."""

RequestKind = Literal["predict", "rank", "infer-json", "infer-binary"]
"""Predictions for users, predictions of items for one user, or the inference of a user's row: as JSON, or raw bytes."""


class CellSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `rate_per_s` None is closed loop: each connection sends its next request when it has its answer."""

    port: int
    path: str
    connections: int
    rate_per_s: float | None
    instances: int
    users: int
    warmup_s: float
    seconds: float
    seed: int
    expected_file: str | None
    """A .npy of offline values; None checks statuses only.

    (versions, users), versions "1", "2", ... by row; of `rank`, (users, items) of its one version.
    """

    treatment_share: float
    """The share of units that version "2" should answer."""

    kind: RequestKind = "predict"
    report_every_s: float | None = None
    """Tell a `CellInterval` a line this often, before the result; None: only the result."""


class CellInterval(msgspec.Struct, frozen=True, kw_only=True):
    """What a running cell tells of the time since it told last.

    `buckets`: counts of `LatencyHistogram`, of the answers that arrived in it.
    """

    at_s: float
    """Since the end of the warm-up."""

    seconds: float
    buckets: dict[int, int]
    max_ns: int
    errors: int
    """Since the start."""

    waiting: int
    """Requests that are due and not sent, because every connection is busy."""


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured after the warm-up. Latencies in ms; open loop counts them from the intended send time.

    `seconds`: how long answers came; an open loop that the server does not keep up with goes on after its schedule.
    `unanswered` requests count with the time until the generator gave up, which is less than they would have taken.
    """

    answers: int
    seconds: float
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    answers_total: int
    """With the warm-up: what the servers' CPU time was spent on."""

    unanswered: int
    errors: dict[str, int]
    units_by_version: dict[str, int]
    generator_cpu_s: float
    """Over its whole life."""

    generator_cpu_share: float
    """Of one core, while measuring."""

    generator_lag_p99_ms: float
    """Open loop: how late the generator itself handed requests over. 0 in closed loop."""


class GeneratorLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the generator's output: an interval, or at last the result."""

    interval: CellInterval | None = None
    result: CellResult | None = None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A measured cell, with what it cost the servers."""

    stack: str
    load: str
    round: int
    result: CellResult
    cpu_s_per_1000: dict[str, float]
    """CPU seconds of 1,000 requests, by role of process."""

    foreign_cores: float
    """Cores that programs other than those of the run kept busy: what disturbed the figure."""

    memory_mb: dict[str, float]
    """Resident memory after the cell, by role of process."""

    @property
    def disturbed(self) -> bool:
        """Whether other programs kept more than FOREIGN_CORES_MAX busy meanwhile."""
        return self.foreign_cores > FOREIGN_CORES_MAX


def cells_by_round(cells: Iterable[Cell]) -> list[dict[tuple[str, str], Cell]]:
    """The cells of each round, by stack and load."""
    rounds: dict[int, dict[tuple[str, str], Cell]] = {}
    for cell in cells:
        rounds.setdefault(cell.round, {})[cell.stack, cell.load] = cell
    return list(rounds.values())
