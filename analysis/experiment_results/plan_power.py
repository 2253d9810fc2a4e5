"""How many units an experiment takes, and how long: before it starts, from the log or from figures given by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from analysis.errors import AnalysisError, NoRows
from analysis.experiment_results.contrast import Moments
from analysis.experiment_results.counted_rows import Span, answered, in_span
from analysis.experiment_results.experiment_log import microseconds, open_experiment_log
from analysis.experiment_results.power import days_until, sample_size
from analysis.experiment_results.time_slots import TimeSlots
from analysis.experiment_results.unit_moments import metric_units
from analysis.experiment_results.unit_table import DAY_US, keep_units
from experiments.metrics import Metric

SCHEMA_VERSION: Final = 1

MDE_MULTIPLES: Final = (0.5, 1.0, 2.0, 4.0)
"""Effects that a plan is worked out for, in multiples of the one asked for: what half the effect would cost."""

BASELINE_DAYS: Final = 14
UNITS_MIN: Final = 50
"""Fewer say too little of how a metric varies to plan by."""


class TooLittleToPlan(AnalysisError):
    """The recent past does not say how a metric varies."""

    def __init__(self, metric: str, problem: str) -> None:
        super().__init__(f"metric {metric!r}: {problem}; give --mean and --sd, or another --days, --metric or --model")
        self.metric, self.problem = metric, problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A metric over units: its mean, and its standard deviation (of a ratio, that of its linearised units).

    new_units: how many units turned up for the first time on each day of the past that was read; none by hand.
    """

    mean: float
    deviation: float
    units: int = 0
    new_units: tuple[int, ...] = ()


class PlannedSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a relative effect takes: units in all, for one look at the end and for any number of looks; and days.

    None where no number of units would do, or none come. by_arm: for one look, in the order of the arms.
    """

    mde_rel: float
    units: int | None
    units_anytime: int | None
    by_arm: tuple[int, ...]
    days: float | None
    days_anytime: float | None


class PowerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, for the wanted effect and some multiples of it. sizes: the wanted one is that of `mde_rel`."""

    schema_version: int = SCHEMA_VERSION
    metric: str
    mean: float
    deviation: float
    baseline_units: int
    alpha: float
    power: float
    mde_rel: float
    arms: tuple[str, ...]
    shares: tuple[float, ...]
    units_per_day: float | None
    sizes: tuple[PlannedSize, ...]

    @property
    def wanted(self) -> PlannedSize:
        """What the wanted effect takes."""
        return next(size for size in self.sizes if size.mde_rel == self.mde_rel)


def read_baseline(
    log_dir: Path,
    model: str,
    metric: Metric,
    *,
    days: int = BASELINE_DAYS,
    end: datetime | None = None,
    window_s: float,
    outcomes_dir: Path | None = None,
    threads: int | None = None,
) -> Baseline:
    """Read how a metric varied over the units of the last `days` days of a model's log, whatever answered them.

    end: the time that ends them; the log's last row if None. Raises NoRows, UnreadableFile, and TooLittleToPlan where
    under UNITS_MIN units have the metric.
    """
    with open_experiment_log(log_dir, model, end=end, outcomes_dir=outcomes_dir, threads=threads) as log:
        everyone = answered(log.rows)
        last_us = log.lines(everyone.agg(last=everyone.at_us.max()))[0]["last"]
        if last_us is None:
            raise NoRows(log.root, f"model {model!r} that name a unit")
        end_us = int(last_us) + 1 if end is None else microseconds(end)
        span = Span(end_us - days * DAY_US, end_us)
        rows = log.view("baseline_rows", in_span(everyone, span))
        units = keep_units(
            log,
            rows,
            metrics=[metric],
            window_s=window_s,
            covariate_days=0,
            epoch_starts_us=[end_us - days * DAY_US],
            slots=TimeSlots(end_us - days * DAY_US, DAY_US, days),
        )
        first = units.table.mutate(day=(units.table.first_us - (end_us - days * DAY_US)) // DAY_US)
        by_day = {line["day"]: line["units"] for line in log.lines(first.group_by("day").agg(units=first.count()))}
        found = metric_units(units, metric).moments
    (moments,) = found.values() if found else (None,)
    if moments is None or moments.units < UNITS_MIN:
        raise TooLittleToPlan(metric.name, f"{0 if moments is None else moments.units} units in {days} days of the log")
    if moments.mean[1] <= 0 or not moments.nonzero:
        raise TooLittleToPlan(metric.name, f"none of {moments.units:,} units in {days} days of the log has it")
    mean, deviation = _mean_and_deviation(moments)
    return Baseline(
        mean=mean,
        deviation=deviation,
        units=moments.units,
        new_units=tuple(int(by_day.get(day, 0)) for day in range(days)),
    )


def power_plan(
    metric: str,
    baseline: Baseline,
    *,
    mde_rel: float,
    alpha: float,
    power: float,
    arms: Mapping[str, float],
    enrolled_share: float = 1.0,
    units_per_day: float | None = None,
) -> PowerPlan:
    """Plan the size of an experiment.

    arms: the share of each, control first. enrolled_share: of the units that come, those that take part.
    units_per_day: new ones; None takes the baseline's own days, played again.
    """
    coming = baseline.new_units if units_per_day is None else (units_per_day,) * 2
    enrolled = [units * enrolled_share for units in coming]
    shares = tuple(arms.values())
    sizes = tuple(
        _size(baseline, mde_rel * multiple, alpha=alpha, power=power, shares=shares, enrolled=enrolled)
        for multiple in MDE_MULTIPLES
    )
    return PowerPlan(
        metric=metric,
        mean=baseline.mean,
        deviation=baseline.deviation,
        baseline_units=baseline.units,
        alpha=alpha,
        power=power,
        mde_rel=mde_rel,
        arms=tuple(arms),
        shares=shares,
        units_per_day=float(np.mean(enrolled)) if enrolled else None,
        sizes=sizes,
    )


def encode_plan(plan: PowerPlan) -> bytes:
    """Encode as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n"


def _size(
    baseline: Baseline, mde_rel: float, *, alpha: float, power: float, shares: Sequence[float], enrolled: list[float]
) -> PlannedSize:
    size = sample_size(baseline.mean, baseline.deviation, mde_rel=mde_rel, alpha=alpha, power=power, shares=shares)
    if size is None:
        return PlannedSize(mde_rel=mde_rel, units=None, units_anytime=None, by_arm=(), days=None, days_anytime=None)
    return PlannedSize(
        mde_rel=mde_rel,
        units=size.units,
        units_anytime=size.units_anytime,
        by_arm=tuple(ceil(size.units * share) for share in shares),
        days=days_until(size.units, enrolled),
        days_anytime=days_until(size.units_anytime, enrolled),
    )


def _mean_and_deviation(moments: Moments) -> tuple[float, float]:
    numerator, denominator = float(moments.mean[0]), float(moments.mean[1])
    gradient = np.array([1.0, -numerator / denominator, 0.0, 0.0]) / denominator
    return numerator / denominator, float(np.sqrt(gradient @ moments.scatter @ gradient / (moments.units - 1)))
