"""Percentiles of measured latencies, and the middle of a few rounds."""

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """One figure over several rounds."""

    median: float
    least: float
    most: float


def percentile(ascending: Sequence[float], share: float) -> float:
    """Nearest-rank percentile: the least value that at least `share` (0 < share <= 1) of the sample do not exceed.

    It is always a value that was measured; interpolation would invent a latency between two.
    Raises ValueError where the sample is empty or the share is out of range.
    """
    if not ascending or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(ascending)} values")
    # The rounding undoes binary fractions: 0.07 * 100 is a hair above 7, whose ceiling would be 8.
    return ascending[ceil(round(share * len(ascending), 9)) - 1]


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no rounds")
    return Spread(median(values), min(values), max(values))
