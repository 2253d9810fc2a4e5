"""Two intervals for one estimate: one for a single look at the planned end, one for as many looks as anyone likes.

A fixed-horizon interval covers the truth at one time that was set before the start; looked at over and over, it is
wrong far more often than alpha says. An anytime-valid one (a confidence sequence) covers it at all times at once, and
pays for that with its width.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

ANYTIME_UNITS_MIN: Final = 100
"""Units an arm. Confidence sequences here are asymptotic: below it no normal approximation is to be trusted with
looks at every moment."""

UNITS_PLANNED_DEFAULT: Final = 10_000
"""Over all arms, where no plan says: the interval is valid all the same, and at 2,000,000 units a fifth wider than
it could have been."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Both bounds, low <= high."""

    low: float
    high: float


def around(estimate: float, radius: float) -> Interval:
    """Make a symmetric interval."""
    return Interval(estimate - radius, estimate + radius)


def fixed_factor(degrees: float, alpha: float) -> float:
    """How many standard errors a fixed-horizon interval reaches to each side: Student's quantile."""
    return float(-special.stdtrit(degrees, alpha / 2))


def fixed_p_value(z: float, degrees: float) -> float:
    """Two-sided p-value of an estimate that lies z standard errors from 0."""
    return float(2 * special.stdtr(degrees, -abs(z)))


def anytime_factor(clock: float, alpha: float) -> float:
    """How many standard errors an anytime-valid interval reaches to each side; infinite at clock 0.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021, Time-uniform central
    limit theory and asymptotic confidence sequences, theorem 2.2): with t observations of standard deviation s its
    radius is s * sqrt((t rho^2 + 1) / (t^2 rho^2) * log((t rho^2 + 1) / alpha^2)), which is s / sqrt(t), the standard
    error, times this factor of the clock t rho^2. rho is fixed before the data: see `clock`.
    """
    if clock <= 0:
        return float("inf")
    return float(np.sqrt((clock + 1) / clock * np.log((clock + 1) / alpha**2)))


def anytime_p_value(z: float, clock: float) -> float:
    """The least alpha at which the anytime-valid interval leaves out 0, for an estimate z standard errors from it.

    Valid at whatever moment one stops.
    """
    exponent = -0.5 * z * z * clock / (clock + 1)
    return float(min(1.0, np.sqrt(clock + 1) * np.exp(exponent)))


def clock(units: float, units_planned: float, alpha: float) -> float:
    """How far the experiment has come, on the scale on which the interval is narrowest at the planned size.

    units, units_planned: effective units now and as planned, n_t n_c / (n_t + n_c). The scale is that of the same
    paper, section 2.3: rho^2 = (-W(-alpha^2 / e) - 1) / t* is best at t*, W being Lambert's lower branch.
    Raises ValueError where no units are planned.
    """
    if units_planned <= 0:
        raise ValueError("no units are planned")
    return units / units_planned * tuning(alpha)


def tuning(alpha: float) -> float:
    """The clock at which `anytime_factor` is least: 8.2 for 5 %."""
    return float(-np.real(special.lambertw(-(alpha**2) / np.e, k=-1)) - 1)


def effective_units(one: float, other: float) -> float:
    """How many pairs two groups are worth: a quarter of the units of an even split, less of an uneven one."""
    return one * other / (one + other) if one + other > 0 else 0.0


def planned_effective_units(units_planned: int | None, arms: int) -> float:
    """What two arms of an even split over all arms are worth at the planned size.

    Of an even split, whatever the split is now: weights change while an experiment runs, and the scale must not.
    """
    each = (units_planned or UNITS_PLANNED_DEFAULT) / arms
    return effective_units(each, each)
