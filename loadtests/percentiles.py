"""The middle of a few rounds, and their extremes."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """One figure over several rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no rounds")
    return Spread(median(values), min(values), max(values))
