"""One cell of the benchmark: one load on one stack. What the generator is told, and what it reports."""

from typing import Literal

import msgspec

RequestKind = Literal["predict", "infer-json", "infer-binary"]
"""A prediction for users, or the inference of a user's row: as JSON, or as raw bytes in both directions."""


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
    """A .npy of offline values (versions, users), versions "1", "2", ... by row; None checks statuses only."""

    treatment_share: float
    """The share of units that version "2" should answer."""

    kind: RequestKind = "predict"


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


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A measured cell, with what it cost the servers."""

    stack: str
    load: str
    round: int
    result: CellResult
    cpu_s_per_1000: dict[str, float]
    """CPU seconds of 1,000 requests, by role of process."""

    foreign_cores: float
    """Cores that programs other than the stack, its Redis and the generator kept busy: what disturbed the figure."""

    memory_mb: dict[str, float]
    """Resident memory after the cell, by role of process."""
