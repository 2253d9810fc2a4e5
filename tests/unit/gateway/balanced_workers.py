"""Candidates for the choice of a replica."""

from dataclasses import dataclass, field

from gateway.dispatch.outlier_ejection import ReplicaHealth

NOW_S = 1_000.0


@dataclass(eq=False)
class Worker:
    outstanding_rows: int = 0
    has_idle_connection: bool = True
    weight: float = 1.0
    health: ReplicaHealth = field(default_factory=ReplicaHealth)


def worker(outstanding_rows: int = 0, latency_s: float = 0.001, sampled_s_ago: float = 0.0, **fields) -> Worker:
    made = Worker(outstanding_rows, **fields)
    made.health.peak_ewma_s, made.health.sampled_at_s = latency_s, NOW_S - sampled_s_ago
    return made
