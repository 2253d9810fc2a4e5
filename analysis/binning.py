"""Cut a baseline column into bins. The log's rows are later counted over the bins that were cut here."""

import numpy as np
from numpy.typing import NDArray

from analysis.profile import NumericBins

Floats = NDArray[np.float64]


def cut_numeric_bins(ordered: Floats, bins_max: int) -> NumericBins:
    """Cut finite values, sorted and at least one, into at most `bins_max` bins of about equally many rows.

    Equal values are never parted, and a value that would fill a bin gets one of its own, so that a column of zeros
    with a few positives still has bins where its few positives move. With no more distinct values than bins, each
    value has its own.
    """
    distinct = _distinct_up_to(ordered, bins_max)
    starts = np.searchsorted(ordered, distinct) if distinct is not None else _greedy_starts(ordered, bins_max)
    sizes = np.diff(np.append(starts, ordered.size))
    lower = ordered[starts]
    # Scaled before it is summed: the sum of values near the largest float would overflow.
    with np.errstate(over="ignore"):
        centres = np.add.reduceat(ordered / np.repeat(sizes, sizes), starts)
    # A mean of equal floats may round out of its bin, and of the largest ones out of the floats.
    highest = ordered[np.append(starts[1:], ordered.size) - 1]
    centres = np.clip(centres, lower, highest)
    return NumericBins(tuple(lower.tolist()), float(ordered[-1]), tuple(centres.tolist()))


def numeric_places(values: Floats, bins: NumericBins) -> NDArray[np.intp]:
    """Tell for each value, none of them NaN, the place of its count: 0 under range, then the bins, last over range."""
    places = np.searchsorted(np.asarray(bins.lower_edges), values, side="right")
    places[values > bins.upper] = bins.places - 1
    return places


def _distinct_up_to(ordered: Floats, limit: int) -> Floats | None:
    changes = np.flatnonzero(ordered[1:] > ordered[:-1])
    return ordered[np.append(0, changes + 1)] if changes.size < limit else None


def _greedy_starts(ordered: Floats, bins_max: int) -> NDArray[np.intp]:
    """Give the index of each bin's first value. After a large bin, the rest share what is left."""
    starts: list[int] = []
    start = 0
    while start < ordered.size:
        starts.append(start)
        bins_left = bins_max - len(starts)
        if bins_left == 0:
            break
        target = max(1, (ordered.size - start) // (bins_left + 1))
        start = _end_of_bin(ordered, start, target)
    return np.asarray(starts, dtype=np.intp)


def _end_of_bin(ordered: Floats, start: int, target: int) -> int:
    last = ordered[start + target - 1]
    first_of_last, end = np.searchsorted(ordered, [last, np.nextafter(last, np.inf)])
    fills_a_bin = end - first_of_last >= target
    return int(first_of_last if fills_a_bin and first_of_last > start else end)
