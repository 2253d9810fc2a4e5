"""A live quantile of the last few hundred latencies: when a batch is late enough for a hedge."""

from collections import deque
from math import ceil
from typing import Final

SAMPLES_MAX: Final = 512
SAMPLES_MIN: Final = 20
"""Below it there is no 95th percentile to speak of."""

RECOMPUTE_EVERY: Final = 32
"""Observations between two sorts: a sort of all costs 25 µs, so an observation costs less than one."""


class LatencyQuantile:
    """The quantile, by nearest rank, of the last SAMPLES_MAX observations."""

    __slots__ = ("_countdown", "_observations", "_quantile", "value_s")

    def __init__(self, quantile: float = 0.95) -> None:
        self._quantile = quantile
        self._observations: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._countdown = SAMPLES_MIN
        self.value_s: float | None = None
        """None below SAMPLES_MIN; at most RECOMPUTE_EVERY observations old."""

    def observe(self, latency_s: float) -> None:
        """Take one latency in."""
        self._observations.append(latency_s)
        self._countdown -= 1
        if not self._countdown:
            self._countdown = RECOMPUTE_EVERY
            ordered = sorted(self._observations)
            self.value_s = ordered[ceil(self._quantile * len(ordered)) - 1]
