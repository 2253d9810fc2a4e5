"""Which replica gets the next batch.

Few replicas: a full scan for the least outstanding rows, which sees what two random choices might miss. Many: the
better of two random ones (Mitzenmacher's power of two choices), by peak EWMA times queue (Finagle), at a cost that does
not grow with the pool.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, Protocol, TypeVar

from gateway.dispatch.outlier_ejection import ReplicaHealth

FULL_SCAN_MAX: Final = 8
"""Replicas up to which all are looked at."""


class Candidate(Protocol):
    """A replica, as far as the choice goes."""

    @property
    def outstanding_rows(self) -> int:
        """Rows that it holds."""

    @property
    def has_idle_connection(self) -> bool:
        """Whether a batch could go out to it at once."""

    @property
    def health(self) -> ReplicaHealth:
        """Its latencies."""

    @property
    def weight(self) -> float:
        """In (0, 1]: below one in slow start."""


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], random: Random, now_s: float) -> C | None:
    """Return the candidate that gets the next batch; None where all are busy.

    One in slow start is considered with the probability of its weight, and taken all the same where no other is idle.
    """
    if len(candidates) == 1:
        return candidates[0] if candidates[0].has_idle_connection else None
    if len(candidates) > FULL_SCAN_MAX:
        chosen = _better_of_two(candidates, random, now_s)
        if chosen is not None:
            return chosen
    return _least_outstanding(candidates, random, now_s)


def _least_outstanding(candidates: Sequence[C], random: Random, now_s: float) -> C | None:
    best: C | None = None
    passed_over: C | None = None
    least = 0
    for candidate in candidates:
        rows = candidate.outstanding_rows
        # The cheap questions first; ties go to the one that was quicker of late.
        if best is not None and (
            rows > least or (rows == least and candidate.health.peak_s(now_s) >= best.health.peak_s(now_s))
        ):
            continue
        if not candidate.has_idle_connection:
            continue
        if candidate.weight < 1.0 and random.random() >= candidate.weight:
            passed_over = candidate
            continue
        best, least = candidate, rows
    return best if best is not None else passed_over


def _better_of_two(candidates: Sequence[C], random: Random, now_s: float) -> C | None:
    # The second of the others: two different ones, without a set or a shuffle.
    i = int(random.random() * len(candidates))
    j = int(random.random() * (len(candidates) - 1))
    first, second = candidates[i], candidates[j + (j >= i)]
    first_taken, second_taken = _considered(first, random), _considered(second, random)
    if first_taken and second_taken:
        cost_s = first.health.cost(first.outstanding_rows, now_s)
        return second if second.health.cost(second.outstanding_rows, now_s) < cost_s else first
    if first_taken:
        return first
    return second if second_taken else None


def _considered(candidate: Candidate, random: Random) -> bool:
    return candidate.has_idle_connection and (candidate.weight >= 1.0 or random.random() < candidate.weight)
