"""The guardrail of latency: its quantiles by arm, with the same mix of epochs in both arms."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.binning import Floats
from analysis.experiment_results.contrast import Contrast, contrast
from analysis.experiment_results.experiment_log import double
from analysis.experiment_results.intervals import (
    ANYTIME_UNITS_MIN,
    Interval,
    anytime_factor,
    clock,
    effective_units,
    fixed_factor,
)
from analysis.experiment_results.judgement import EFFECT_UNITS_MIN, Rules
from analysis.experiment_results.quantiles import Distribution, difference_interval, distribution, quantile_interval
from analysis.experiment_results.report import Bounds, Effect, LatencyResult, Verdict
from analysis.experiment_results.unit_moments import MetricUnits, values_units
from analysis.experiment_results.unit_table import UnitTable

Places = NDArray[np.int64]

LATENCY_QUANTILES: Final = (0.5, 0.95, 0.99)

ROWS_BEYOND_MIN: Final = 10.0
"""Rows above a quantile, in either arm, for it to be told: of fewer, it is the largest few that chance sent."""


@dataclass(frozen=True, slots=True)
class _Histogram:
    """Rows by epoch, arm (its place in `arms`) and latency: parallel arrays."""

    epoch: Places
    arm: Places
    latency_ms: Floats
    weight: Floats
    arms: tuple[str, ...]

    def of(self, epoch: int, arm: str) -> Places:
        """Give the places of one arm's rows in one epoch."""
        if arm not in self.arms:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero((self.epoch == epoch) & (self.arm == self.arms.index(arm)))


def latency_results(
    units: UnitTable, control: str, treatments: Sequence[str], rules: Rules
) -> tuple[LatencyResult, ...]:
    """Compare the latency of each treatment with control's."""
    histogram = _histogram(units)
    return tuple(
        result
        for number, treatment in enumerate(treatments)
        for result in _compare(units, histogram, control, treatment, rules, number)
    )


def _histogram(units: UnitTable) -> _Histogram:
    rows = units.rows
    table: pa.Table = units.log.fetch(rows.group_by("epoch", "arm", "latency_ms").agg(weight=rows.weight.sum()))
    arm = table.column("arm").combine_chunks().dictionary_encode()
    return _Histogram(
        epoch=table.column("epoch").to_numpy(),
        arm=arm.indices.to_numpy().astype(np.int64),
        latency_ms=table.column("latency_ms").to_numpy(),
        weight=table.column("weight").to_numpy(),
        arms=tuple(arm.dictionary.to_pylist()),
    )


def _compare(
    units: UnitTable, histogram: _Histogram, control: str, treatment: str, rules: Rules, number: int
) -> list[LatencyResult]:
    mixed = _mixed(histogram, control, treatment)
    if mixed is None:
        return []
    distributions, least_rows = mixed
    told = [share for share in LATENCY_QUANTILES if least_rows * (1 - share) >= ROWS_BEYOND_MIN]
    if not told:
        return []
    bounds = [{arm: distributions[arm].quantile(share) for arm in (control, treatment)} for share in told]
    table = units.log.keep(f"latency_{number}", _below(units.rows, bounds, control, treatment))
    results = []
    for index, share in enumerate(told):
        below = values_units(units, table, (f"n{index}", "d", "zero", "zero"))
        found = _shares(below, control, treatment)
        if found is None or min(found.units_control, found.units_treatment) < EFFECT_UNITS_MIN:
            continue
        results.append(_result(treatment, share, found, distributions[control], distributions[treatment], rules))
    return results


def _shares(below: MetricUnits, control: str, treatment: str) -> Contrast | None:
    clustered = partial(below.clustered, control, treatment)
    return contrast(below.strata(control, treatment), clustered, covariates=False)


def _mixed(histogram: _Histogram, control: str, treatment: str) -> tuple[dict[str, Distribution], float] | None:
    """Mix the epochs' distributions, equally in both arms, by the weights that `contrast` gives the epochs."""
    places = {
        epoch: tuple(histogram.of(int(epoch), arm) for arm in (control, treatment))
        for epoch in np.unique(histogram.epoch)
    }
    rows = {
        epoch: tuple(float(histogram.weight[one].sum()) for one in both)
        for epoch, both in places.items()
        if min(one.size for one in both)
    }
    if not rows:
        return None
    mixed: dict[str, Distribution] = {}
    for index, arm in enumerate((control, treatment)):
        values = [histogram.latency_ms[places[epoch][index]] for epoch in rows]
        weights = [
            histogram.weight[places[epoch][index]] * effective_units(*both) / both[index]
            for epoch, both in rows.items()
        ]
        mixed[arm] = distribution(np.concatenate(values), np.concatenate(weights))
    return mixed, min(sum(both[index] for both in rows.values()) for index in (0, 1))


def _below(rows: ibis.Table, bounds: Sequence[dict[str, float]], control: str, treatment: str) -> ibis.Table:
    """Count each unit's rows, and those at or below its own arm's quantiles."""
    both = rows.filter(rows.arm.isin([control, treatment]))
    counts = {
        f"n{index}": both.weight.sum(
            where=both.latency_ms <= (both.arm == control).ifelse(bound[control], bound[treatment])
        ).fill_null(0.0)
        for index, bound in enumerate(bounds)
    }
    counted = both.group_by("unit", "epoch", "arm").agg(d=both.weight.sum(), **counts)
    counted = counted.rename(code="unit")
    return counted.mutate(zero=double(0))


def _result(
    treatment: str, share: float, found: Contrast, of_control: Distribution, of_treatment: Distribution, rules: Rules
) -> LatencyResult:
    values = of_control.quantile(share), of_treatment.quantile(share)
    errors = [float(np.sqrt(max(0.0, found.covariance[i, i]))) for i in (0, 1)]

    def both(reach: float) -> tuple[Interval, Interval]:
        one = quantile_interval(of_control, share, errors[0], reach)
        return one, quantile_interval(of_treatment, share, errors[1], reach)

    fixed = both(fixed_factor(found.degrees, rules.alpha))
    anytime: Interval | None = None
    if min(found.units_control, found.units_treatment) >= ANYTIME_UNITS_MIN:
        reach = anytime_factor(clock(found.effective_units, rules.pairs_planned, rules.alpha), rules.alpha)
        control_bounds, treatment_bounds = both(reach)
        anytime = difference_interval(values[0], control_bounds, values[1], treatment_bounds)
    difference = difference_interval(values[0], fixed[0], values[1], fixed[1])
    return LatencyResult(
        treatment=treatment,
        quantile=share,
        control_ms=values[0],
        control_fixed=Bounds(fixed[0].low, fixed[0].high),
        treatment_ms=values[1],
        treatment_fixed=Bounds(fixed[1].low, fixed[1].high),
        difference_ms=Effect(
            estimate=values[1] - values[0],
            fixed=Bounds(difference.low, difference.high),
            anytime=None if anytime is None else Bounds(anytime.low, anytime.high),
        ),
        verdict=_verdict(anytime),
    )


def _verdict(anytime: Interval | None) -> Verdict:
    if anytime is None:
        return "too_few_units"
    if anytime.low > 0:
        return "worse"
    return "better" if anytime.high < 0 else "no_effect_found"
