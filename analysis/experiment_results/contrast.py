"""The difference of two arms in one metric over an experiment's epochs, with a variance that is clustered by unit.

A metric is, by unit, a numerator N and a denominator D, and its value in an arm is mean(N) / mean(D): the delta method
makes of each unit one number, (N - value * D) / mean(D), whose variance over the arm's units is that of the value
(Deng, Knoblich and Lu 2018, Applying the delta method in metric analytics). A plain mean is the case D = 1, and there
it is Welch's.

Epochs are never pooled: with weights that changed from 99/1 to 50/50, a baseline that drifts would be taken for an
effect. Each epoch is compared within itself, and the differences are averaged with weights that do not look at the
numerators (a fixed-effects combination).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.binning import Floats
from analysis.experiment_results.intervals import effective_units

VALUES: Final = 4
"""Of each unit: numerator, denominator, and the same two of its past, before its first exposure."""

UNITS_MIN: Final = 2
"""Units of either arm in an epoch, for it to take part: of one unit no variance is known."""

COVARIATE_UNITS_MIN: Final = 100
"""Units of either arm in an epoch, for its past to be used: a coefficient fitted to fewer flatters itself."""

_COVARIATES: Final = VALUES - 2
_COLLINEAR: Final = 1e-9
_ALL: Final = 1 - 1e-9
"""A past that explains everything (the score of an unchanged model, say) leaves no variance to judge by."""

_CONSTANT: Final = 1e-18
"""A sum of squared deviations that, beside the value's square, is the rounding of equal numbers."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the units of one arm in one epoch.

    mean (VALUES,), scatter (VALUES, VALUES): sums of products of the deviations from the mean. nonzero: units whose
    numerator is not 0.
    """

    units: int
    mean: Floats
    scatter: Floats
    nonzero: int


@dataclass(frozen=True, slots=True)
class Stratum:
    """One epoch's moments of both arms. epoch: its place in the experiment."""

    epoch: int
    control: Moments
    treatment: Moments

    @property
    def arms(self) -> tuple[Moments, Moments]:
        """Control first."""
        return self.control, self.treatment

    @property
    def usable(self) -> bool:
        """Whether a difference can be told at all."""
        return all(arm.units >= UNITS_MIN and arm.mean[1] > 0 for arm in self.arms)

    @property
    def weight(self) -> float:
        """How many pairs it is worth: the harmonic mean of both arms' denominators, units for a plain mean."""
        return effective_units(*(arm.units * float(arm.mean[1]) for arm in self.arms))


@dataclass(frozen=True, slots=True)
class Influence:
    """What one unit of an arm in an epoch moves the two arms' values by, as a linear function of its own values.

    weights (2, VALUES + 1): rows for control's value and the treatment's; columns for 1 and the unit's values. The sum
    over units of products of what it gives is the covariance of the two values.
    """

    epoch: int
    is_treatment: bool
    weights: Floats


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two arms' values and how surely they are known.

    covariance (2, 2): of control's value and the treatment's. degrees: Welch and Satterthwaite's, for the difference.
    variance_reduction: the share of the difference's variance that the units' past explains, 0 where it was not used.
    """

    control: float
    treatment: float
    covariance: Floats
    degrees: float
    units_control: int
    units_treatment: int
    nonzero: int
    effective_units: float
    variance_reduction: float

    @property
    def difference(self) -> float:
        """Treatment less control."""
        return self.treatment - self.control

    @property
    def standard_error(self) -> float:
        """Of the difference."""
        return float(np.sqrt(max(0.0, np.array([-1.0, 1.0]) @ self.covariance @ np.array([-1.0, 1.0]))))

    @property
    def log_ratio(self) -> float | None:
        """Logarithm of treatment over control; None where either is not above 0."""
        return float(np.log(self.treatment / self.control)) if min(self.control, self.treatment) > 0 else None

    @property
    def log_ratio_error(self) -> float:
        """Standard error of `log_ratio`, by the delta method."""
        gradient = np.array([-1.0 / self.control, 1.0 / self.treatment])
        return float(np.sqrt(max(0.0, gradient @ self.covariance @ gradient)))


Clustered = Callable[[Sequence[Influence]], Floats]
"""Adds up each unit's influences over epochs and arms, then gives the sums (2, 2) of their products over units."""


def contrast(strata: Sequence[Stratum], clustered: Clustered | None, *, covariates: bool = True) -> Contrast | None:
    """Compare two arms over the epochs; None where no epoch can tell them apart.

    clustered: is asked where there are several epochs. None takes every epoch's units for others than those of the
        rest, which they are not where a unit comes back: its variance would be counted too small.
    covariates: whether the units' past explains away what it can (CUPED: Deng, Xu, Kohavi and Walker 2013), with the
        coefficients that make the difference's variance least (Yang and Tsiatis 2001).
    """
    used = [stratum for stratum in strata if stratum.usable]
    if not used:
        return None
    weights = np.array([stratum.weight for stratum in used])
    weights = weights / weights.sum()
    coefficients = [_coefficients(stratum) if covariates else np.zeros(_COVARIATES) for stratum in used]
    values = np.zeros(2)
    influences: list[Influence] = []
    for stratum, weight, theta in zip(used, weights, coefficients, strict=True):
        values += weight * _values(stratum, theta)
        influences += _influences(stratum, float(weight), theta)
    parts = _parts(used, influences)
    covariance = np.sum(parts, axis=0)
    plain = _plain_variance(used, weights)
    reduction = 1 - _variance(covariance) / plain if plain > 0 and any(theta.any() for theta in coefficients) else 0.0
    if covariates and not 0 < reduction < _ALL:
        return contrast(strata, clustered, covariates=False)
    degrees = _degrees(used, parts)
    if len(used) > 1 and clustered is not None:
        covariance = clustered(influences)
    covariance = covariance + sum(
        weight**2 * _of_constant_arms(stratum) for stratum, weight in zip(used, weights, strict=True)
    )
    return Contrast(
        control=float(values[0]),
        treatment=float(values[1]),
        covariance=covariance,
        degrees=degrees,
        units_control=sum(stratum.control.units for stratum in used),
        units_treatment=sum(stratum.treatment.units for stratum in used),
        nonzero=sum(arm.nonzero for stratum in used for arm in stratum.arms),
        effective_units=sum(effective_units(*(arm.units for arm in stratum.arms)) for stratum in used),
        variance_reduction=float(reduction),
    )


def _linear(mean: Floats) -> Floats:
    """The gradient (VALUES,) of mean(N) / mean(D), at the means."""
    numerator, denominator = float(mean[0]), float(mean[1])
    return np.array([1.0, -numerator / denominator, 0.0, 0.0]) / denominator


def _coefficients(stratum: Stratum) -> Floats:
    """Of the past's two values: those that make the variance of the difference least."""
    if min(arm.units for arm in stratum.arms) < COVARIATE_UNITS_MIN:
        return np.zeros(_COVARIATES)
    among = np.zeros((_COVARIATES, _COVARIATES))
    towards = np.zeros(_COVARIATES)
    rounding = np.zeros(_COVARIATES)
    for arm in stratum.arms:
        rounding += _CONSTANT * np.square(arm.mean[2:]) / arm.units
        among += arm.scatter[2:, 2:] / arm.units**2
        towards += (arm.scatter[2:] @ _linear(arm.mean)) / arm.units**2
    some = np.diag(among) > rounding
    if not some.any():
        return np.zeros(_COVARIATES)
    scale = np.where(some, np.sqrt(np.diag(among)), 1.0)
    # Correlations, so that "nearly collinear" means the same for money and for counts.
    solved = np.linalg.pinv(among / np.outer(scale, scale), rcond=_COLLINEAR, hermitian=True) @ (towards / scale)
    found: Floats = np.where(some, solved / scale, 0.0)
    return found


def _values(stratum: Stratum, theta: Floats) -> Floats:
    units = np.array([arm.units for arm in stratum.arms], dtype=np.float64)
    past = np.array([arm.mean[2:] for arm in stratum.arms])
    shared = units @ past / units.sum()
    plain = np.array([arm.mean[0] / arm.mean[1] for arm in stratum.arms])
    adjusted: Floats = plain - (past - shared) @ theta
    return adjusted


def _influences(stratum: Stratum, weight: float, theta: Floats) -> list[Influence]:
    total = stratum.control.units + stratum.treatment.units
    used = _COVARIATES if theta.any() else 0
    along = np.concatenate([np.zeros(2), theta])
    found: list[Influence] = []
    for index, arm in enumerate(stratum.arms):
        # The shared mean of the past moves both values, by what every unit adds to it.
        rows = np.tile(along / total, (2, 1))
        rows[index] += (_linear(arm.mean) - along) / arm.units
        # For the means that the deviations are taken from, and the coefficients: what makes a sample variance unbiased.
        rows *= weight * np.sqrt(arm.units / max(1, arm.units - 1 - used))
        constant = -rows @ arm.mean
        found.append(Influence(stratum.epoch, index == 1, np.column_stack([constant, rows])))
    return found


def _parts(strata: Sequence[Stratum], influences: Sequence[Influence]) -> list[Floats]:
    """The covariance (2, 2) that each arm of each epoch adds, epochs and arms in order."""
    arms = [arm for stratum in strata for arm in stratum.arms]
    slopes = [influence.weights[:, 1:] for influence in influences]
    return [slope @ arm.scatter @ slope.T for arm, slope in zip(arms, slopes, strict=True)]


def _of_constant_arms(stratum: Stratum) -> Floats:
    """Give the variance (2, 2) of an arm all of whose units are equal, as if they varied like both arms' together.

    None of 5,000 units with an error is no proof that there can be none: it must not count as known without doubt, and
    an arm with many beside one with none must not go unnoticed.
    """
    found = np.zeros((2, 2))
    total = stratum.control.units + stratum.treatment.units
    apart = stratum.treatment.mean - stratum.control.mean
    between = stratum.control.units * stratum.treatment.units / total * np.outer(apart, apart)
    together = stratum.control.scatter + stratum.treatment.scatter + between
    control, treatment = stratum.arms
    mean = (control.units * control.mean + treatment.units * treatment.mean) / total
    for index, arm in enumerate(stratum.arms):
        gradient = _linear(arm.mean)
        if gradient @ arm.scatter @ gradient <= _CONSTANT * float(arm.mean[0] / arm.mean[1]) ** 2:
            gradient = _linear(mean)
            found[index, index] = gradient @ together @ gradient / (total - 1) / arm.units
    return found


def _degrees(strata: Sequence[Stratum], parts: Sequence[Floats]) -> float:
    variances = np.array([_variance(part) for part in parts])
    degrees = np.array([arm.units - 1 for stratum in strata for arm in stratum.arms], dtype=np.float64)
    below = float(np.sum(np.square(variances) / degrees))
    return float(np.square(variances.sum())) / below if below > 0 else float(degrees.sum())


def _plain_variance(strata: Sequence[Stratum], weights: Floats) -> float:
    influences = [
        influence
        for stratum, weight in zip(strata, weights, strict=True)
        for influence in _influences(stratum, float(weight), np.zeros(_COVARIATES))
    ]
    return _variance(np.sum(_parts(strata, influences), axis=0))


def _variance(covariance: Floats) -> float:
    return float(covariance[0, 0] - 2 * covariance[0, 1] + covariance[1, 1])
