"""How far apart two histograms over the same bins are. Each statistic reads the same counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Counts = NDArray[np.float64]

EMPTY_BIN_ROWS = 0.5
"""What an empty bin counts as, so that its logarithm is finite: half of the least that it could hold."""


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """Pearson's statistic of homogeneity, its degrees of freedom, and the chance of one as large without a change."""

    statistic: float
    degrees: int
    p_value: float


def population_stability_index(reference: Counts, current: Counts) -> float:
    """Symmetrised Kullback-Leibler divergence of two binned samples, in nats; 0 means equal.

    reference, current (bins,): rows over the same frozen bins, which come from the reference alone. An empty bin
    counts as
        half a row; one that is empty in both counts for nothing.
    Raises ValueError where the bins differ in number or a sample is empty.
    """
    reference, current = _occupied(reference, current)
    p = _shares(np.where(reference == 0, EMPTY_BIN_ROWS, reference))
    q = _shares(np.where(current == 0, EMPTY_BIN_ROWS, current))
    return float(np.sum((p - q) * np.log(p / q)))


def jensen_shannon_distance(reference: Counts, current: Counts) -> float:
    """Square root of the Jensen-Shannon divergence in base 2: a metric, 0 for equal, 1 for disjoint.

    Endres and Schindelin 2003, A new metric for probability distributions.
    Raises ValueError as `population_stability_index` does.
    """
    reference, current = _occupied(reference, current)
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    divergence = (_entropy_to(p, middle) + _entropy_to(q, middle)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def kolmogorov_smirnov(reference: Counts, current: Counts) -> float:
    """Largest difference of the two cumulative distributions at the bins' edges; at most that of the unbinned samples.

    reference, current (bins,): rows over bins in rising order. Raises ValueError as `population_stability_index` does.
    """
    _check(reference, current)
    return float(np.max(np.abs(np.cumsum(_shares(reference) - _shares(current)))))


def wasserstein(reference: Counts, current: Counts, centres: Counts) -> float:
    """Earth mover's distance with every row at its bin's centre, in the feature's own unit.

    centres (bins,): rising. Rows out of range lie at the ends of the range, so that the distance is a lower bound for
    them.
    Raises ValueError as `population_stability_index` does.
    """
    _check(reference, current)
    if centres.shape != reference.shape:
        raise ValueError(f"{centres.size} centres for {reference.size} bins")
    difference = np.cumsum(_shares(reference) - _shares(current))[:-1]
    return float(np.sum(np.abs(difference) * np.diff(centres)))


def chi_square(reference: Counts, current: Counts) -> ChiSquare:
    """Test that both samples come from one distribution (Pearson 1900), without continuity correction.

    Raises ValueError as `population_stability_index` does.
    """
    reference, current = _occupied(reference, current)
    if reference.size == 1:
        return ChiSquare(0.0, 0, 1.0)
    table = np.stack([reference, current])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(np.sum(np.square(table - expected) / expected))
    degrees = reference.size - 1
    return ChiSquare(statistic, degrees, float(special.chdtrc(degrees, statistic)))


def _occupied(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    _check(reference, current)
    occupied = (reference + current) > 0
    return reference[occupied], current[occupied]


def _check(reference: Counts, current: Counts) -> None:
    if reference.shape != current.shape or reference.ndim != 1:
        raise ValueError(f"the samples have {reference.shape} and {current.shape} bins: they must agree")
    if reference.sum() <= 0 or current.sum() <= 0:
        raise ValueError("a sample is empty")


def _shares(counts: Counts) -> Counts:
    shares: Counts = counts / counts.sum()
    return shares


def _entropy_to(p: Counts, middle: Counts) -> float:
    some = p > 0
    return float(np.sum(p[some] * np.log2(p[some] / middle[some])))
