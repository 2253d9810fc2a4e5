"""What chance alone does to the statistics: a change is told only where chance would not have made it."""

from collections.abc import Sequence

import numpy as np

# Not scipy.stats, which says the same in longer words and takes a second to import.
from scipy import special

NOISE_CONFIDENCE = 0.95
"""The point of the no-drift PSI's distribution that a PSI must pass."""

SHARE_CONFIDENCE = 0.999
"""Stricter than for PSI: several shares are looked at for every column, and not corrected for their number."""


def psi_noise_floor(reference_rows: float, current_rows: float, bins: int) -> float:
    """The PSI that chance exceeds in one comparison of twenty, where nothing has changed.

    Without drift, PSI / (1/n + 1/m) is distributed as chi-square with bins - 1 degrees of freedom (Yurdakul 2018,
    Statistical Properties of Population Stability Index). Raises ValueError where a sample is empty.
    """
    if reference_rows <= 0 or current_rows <= 0:
        raise ValueError("a sample is empty")
    if bins < 2:
        return 0.0
    return float(special.chdtri(bins - 1, 1 - NOISE_CONFIDENCE)) * (1 / reference_rows + 1 / current_rows)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for having looked at all of them (Benjamini, Hochberg 1995): the false discovery rate at each.

    Gives them in the order they came in.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size == 0:
        return []
    order = np.argsort(p)
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(value) for value in adjusted]


def share_increase_noise(reference_share: float, reference_rows: float, share: float, rows: float) -> float:
    """The increase of a share that chance alone stays under with SHARE_CONFIDENCE (pooled two-sample z).

    Raises ValueError where a sample is empty.
    """
    if reference_rows <= 0 or rows <= 0:
        raise ValueError("a sample is empty")
    pooled = (reference_share * reference_rows + share * rows) / (reference_rows + rows)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / reference_rows + 1 / rows))
    return float(special.ndtri(SHARE_CONFIDENCE) * deviation)


def out_of_range_p_value(reference_rows: float, rows: float, outside: float) -> float:
    """The chance of at least `outside` of `rows` values beyond the extremes of the reference's own values.

    Their number is beta-binomial with 2 and n - 1, whatever the continuous distribution (Wilks 1941); ties make it
    smaller. Rows are rounded to whole ones. Raises ValueError where a sample is empty.
    """
    if reference_rows <= 0 or rows <= 0:
        raise ValueError("a sample is empty")
    n, m, k = round(reference_rows), round(rows), round(outside)
    if n < 2 or k < 1:
        return 1.0
    # Of all orders of n + m values, (k + 1) C(n + m - 2 - k, n - 2) have k of the m outside; this is their sum from k
    # on.
    every = _log_choose(n + m, n)
    first = (k + 1) * np.exp(_log_choose(n + m - 1 - k, n - 1) - every)
    return float(min(1.0, first + np.exp(_log_choose(n + m - 1 - k, n) - every)))


def out_of_range_noise(reference_rows: float, rows: float) -> float:
    """The share of rows that chance alone puts outside the range of the reference's own values.

    What lies outside the extremes of n values is distributed as Beta(2, n - 1), whatever the distribution (Wilks 1941,
    tolerance limits); the window's own sampling adds to it. Raises ValueError where a sample is empty.
    """
    if reference_rows <= 0 or rows <= 0:
        raise ValueError("a sample is empty")
    if reference_rows <= 1:
        return 1.0
    outside = float(special.betaincinv(2, reference_rows - 1, SHARE_CONFIDENCE))
    sampling = float(special.ndtri(SHARE_CONFIDENCE)) * np.sqrt(outside * (1 - outside) / rows)
    return float(min(1.0, outside + sampling))


def _log_choose(n: int, k: int) -> float:
    return float(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))
