"""How many units an experiment needs, and what a number of units can find."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

import numpy as np
from scipy import special

from analysis.experiment_results.intervals import anytime_factor, effective_units, tuning

UNITS_MAX: Final = 10**15
"""A plan beyond it is no plan; the answer is then None."""


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Units over all arms: for one look at the end, and for as many looks as one likes with the same power there."""

    units: int
    units_anytime: int


def sample_size(
    mean: float, deviation: float, *, mde_rel: float, alpha: float, power: float, shares: Sequence[float]
) -> SampleSize | None:
    """Give the units that find a relative effect with the wanted power, in every treatment.

    mean, deviation: of the metric over units; of a ratio, the deviation of its linearised units. shares: of the arms,
        control first, of all units. With several treatments alpha is divided by their number (Bonferroni).
    Normal approximation, two-sided, both arms of equal deviation: n_t n_c / (n_t + n_c) = ((z_a + z_b) s / d)^2.
    None where nothing of that size could be found, because the mean is 0 or the number is past UNITS_MAX.
    Raises ValueError where shares are not positive, or there are fewer than two.
    """
    if len(shares) < 2 or min(shares) <= 0:
        raise ValueError("give each of at least two arms a share above 0")
    alpha_each = alpha / (len(shares) - 1)
    difference = abs(mean) * mde_rel
    least_pairs = min(effective_units(shares[0], share) for share in shares[1:])
    sizes = []
    for reach in (_upper(alpha_each / 2), anytime_factor(tuning(alpha_each), alpha_each)):
        pairs = ((reach + _upper(1 - power)) * deviation / difference) ** 2 if difference > 0 else inf
        sizes.append(pairs / least_pairs)
    if not max(sizes) <= UNITS_MAX:
        return None
    return SampleSize(*(max(2 * len(shares), ceil(size)) for size in sizes))


def detectable(standard_error: float, *, reach: float, power: float) -> float:
    """Give the effect that is found with the wanted power, in the standard error's own unit.

    reach: how many standard errors the interval reaches to each side.
    """
    return (reach + _upper(1 - power)) * standard_error


def days_until(units: int, new_units: Sequence[float]) -> float | None:
    """Say after how many days so many different units will have turned up.

    new_units: how many were seen for the first time on each day of the recent past, from its beginning. The past is
        played again; after its end, units are taken to come at the rate of its second half, when most of those that
        come often had come. None where none come any more.
    """
    seen = np.cumsum(np.asarray(new_units, dtype=np.float64))
    if seen.size == 0:
        return None
    if units <= seen[-1]:
        day = int(np.searchsorted(seen, units))
        before = float(seen[day - 1]) if day else 0.0
        return day + (units - before) / float(seen[day] - before)
    late = np.asarray(new_units[len(new_units) // 2 :], dtype=np.float64)
    rate = float(late.mean())
    return len(new_units) + (units - float(seen[-1])) / rate if rate > 0 else None


def _upper(tail: float) -> float:
    return float(-special.ndtri(tail))
