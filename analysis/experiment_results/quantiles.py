"""Quantiles of values of which each unit has many: their intervals come from how units, not rows, vary."""

from dataclasses import dataclass

import numpy as np

from analysis.binning import Floats
from analysis.experiment_results.intervals import Interval


@dataclass(frozen=True, slots=True)
class Distribution:
    """values (n,), rising, and cumulated (n,): the share of all that is at most the value; the last is 1."""

    values: Floats
    cumulated: Floats

    def quantile(self, share: float) -> float:
        """Give the least value that at least such a share does not exceed."""
        # Shares are sums of floats: what ties with the wanted one must not fall behind it.
        place = int(np.searchsorted(self.cumulated, share - 1e-12))
        return float(self.values[min(place, self.values.size - 1)])


def distribution(values: Floats, weights: Floats) -> Distribution:
    """Make the distribution of weighted values, in any order. Raises ValueError where nothing has weight."""
    if not weights.sum() > 0:
        raise ValueError("no value has any weight")
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return Distribution(values[order], cumulated / cumulated[-1])


def quantile_interval(found: Distribution, share: float, share_error: float, reach: float) -> Interval:
    """Give the interval of a quantile: where the distribution is as far from the share as its error reaches.

    share_error: the standard error of the share of rows at or below the quantile, over units (Woodruff 1952, Confidence
        intervals for medians and other position measures; clustered as by Liu et al. 2019, Large-scale online
        experimentation with quantile metrics). reach: how many of them.
    """
    radius = reach * share_error
    return Interval(found.quantile(max(0.0, share - radius)), found.quantile(min(1.0, share + radius)))


def difference_interval(control: float, of_control: Interval, treatment: float, of_treatment: Interval) -> Interval:
    """Give the interval of treatment less control from the intervals of both, which need not be symmetric.

    The method of variance estimates recovery (Zou and Donner 2008), for independent estimates.
    """
    difference = treatment - control
    down = np.hypot(treatment - of_treatment.low, of_control.high - control)
    up = np.hypot(of_treatment.high - treatment, control - of_control.low)
    return Interval(float(difference - down), float(difference + up))
