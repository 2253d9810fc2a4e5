"""The table that all results are computed from: a line for each unit and epoch, with the unit's arm and its values.

One pass over the counted rows, one over the outcomes, and one over each for what lies before the first exposure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis
import ibis.expr.datatypes as dt

from analysis.experiment_results.counted_rows import answered
from analysis.experiment_results.experiment_log import SECOND_US, ExperimentLog, double
from analysis.experiment_results.outcome_values import outcome_values
from analysis.experiment_results.time_slots import TimeSlots
from experiments.metrics import ERROR_RATE, FALLBACK_RATE, LATENCY_MS, SCORE, Metric, Of

DAY_US: Final = 86_400 * SECOND_US

FAR_US: Final = 2**62
"""Later than any time in a log."""

_COLUMN_BY_LOGGED: Final = {
    SCORE: "score",
    LATENCY_MS: "latency_ms",
    ERROR_RATE: "error",
    FALLBACK_RATE: "fallback",
}

_PAST_COLUMNS: Final = ("weight", *_COLUMN_BY_LOGGED.values())

# ibis orders the whole group for its own argmin; DuckDB's keeps one value.
_arg_min: Any = ibis.udf.agg.builtin(
    lambda value, _by: value, name="arg_min", signature=((dt.string, dt.int64), dt.string)
)


@dataclass(frozen=True, slots=True)
class UnitTable:
    """Of each unit and epoch: unit, code, epoch, arm, first_us, weight, is_first, rows, served, in_two_arms, and by
    metric the columns `n{i}`, `d{i}` (numerator, denominator) and `x{i}`, `k{i}` (those of its past).

    code: the unit's number, from 0. arm: as first assigned in the epoch. is_first: whether the epoch is the unit's
    first. weight: units that it stands for; 0 where it is in the log only because errors and shadow pairs are never
    sampled away.
    values: what `outcome_values` gave.
    """

    log: ExperimentLog
    table: ibis.Table
    metrics: tuple[Metric, ...]
    rows: ibis.Table
    values: ibis.Table
    slots: TimeSlots

    def columns(self, metric: Metric) -> tuple[str, str, str, str]:
        """Name the columns of a metric: numerator, denominator, and those of the past."""
        index = self.metrics.index(metric)
        return f"n{index}", f"d{index}", f"x{index}", f"k{index}"


def keep_units(
    log: ExperimentLog,
    rows: ibis.Table,
    *,
    metrics: Sequence[Metric],
    window_s: float,
    covariate_days: float,
    epoch_starts_us: Sequence[int],
    slots: TimeSlots,
    exposures: ibis.Table | None = None,
) -> UnitTable:
    """Make the table.

    rows: the counted ones. window_s: how long an outcome counts. covariate_days: how far a unit's past reaches; 0 for
        none.
    epoch_starts_us: when each epoch began; an outcome by unit counts in the epoch in which it happened.
    exposures: the experiment's rows of any time, where `rows` begin later: a past that ends at the first of those.
    """
    window_us = int(window_s * SECOND_US)
    met = log.keep("unit_epochs", _unit_epochs(rows))
    people = log.keep("people", _people(met, exposures))
    unit_epochs = _coded(met, people, several=len(epoch_starts_us) > 1)
    names = sorted({name for metric in metrics for name in metric.outcomes})
    values = log.keep(
        "outcome_values",
        outcome_values(
            log,
            names,
            by=("unit", "epoch"),
            rows=rows.mutate(until_us=rows.at_us + window_us),
            units=_time_in_epochs(met, window_us, epoch_starts_us),
            origin_us=slots.origin_us,
            width_us=slots.width_us,
        ),
    )
    past = _past(log, people, names, window_us, int(covariate_days * DAY_US)) if covariate_days else None
    joined = _with_values(unit_epochs, values, past, names)
    sampled = bool(log.lines(met.agg(most=met.weight.max()))[0]["most"] > 1)
    units = log.keep("units", _with_metrics(joined, metrics, names, sampled=sampled))
    return UnitTable(log, units, tuple(metrics), rows, values, slots)


def logged_sums(rows: ibis.Table) -> dict[str, Any]:
    """Give the weighted sums over rows that the logged metrics are made of: `sum_{column}`, and `weights_…`."""
    sums = {f"sum_{column}": (rows.weight * rows[column]).sum() for column in _COLUMN_BY_LOGGED.values()}
    scored = rows.weight.sum(where=rows.score.notnull()).fill_null(0.0)
    return sums | {"weights_rows": rows.weight.sum(), "weights_scored": scored}


def logged_columns(metric: Metric) -> tuple[str, str]:
    """Name the two sums of `logged_sums` that make a logged metric."""
    column = _COLUMN_BY_LOGGED[metric.numerator]
    return f"sum_{column}", "weights_scored" if metric.numerator == SCORE else "weights_rows"


def _unit_epochs(rows: ibis.Table) -> ibis.Table:
    return rows.group_by("unit", "epoch").agg(
        arm=_arg_min(rows.arm, rows.at_us),
        in_two_arms=rows.arm.min() != rows.arm.max(),
        first_us=rows.at_us.min(),
        rows=rows.count(),
        served=rows.served.any(),
        weight=rows.weight.max(),
        **logged_sums(rows),
    )


def _people(unit_epochs: ibis.Table, exposures: ibis.Table | None) -> ibis.Table:
    """Number the units, and say when each was first exposed."""
    everyone = unit_epochs.group_by("unit").agg(exposed_us=unit_epochs.first_us.min())
    if exposures is not None:
        ever = exposures.group_by("unit").agg(exposed_us=exposures.at_us.min())
        everyone = ever.semi_join(everyone, "unit")
    return everyone.mutate(code=ibis.row_number())


def _coded(unit_epochs: ibis.Table, people: ibis.Table, *, several: bool) -> ibis.Table:
    joined = unit_epochs.join(people.select("unit", "code"), "unit")
    if not several:
        return joined.mutate(is_first=ibis.literal(True))
    in_time = ibis.window(group_by=joined.code, order_by=[joined.first_us, joined.epoch])
    return joined.mutate(is_first=ibis.row_number().over(in_time) == 0)


def _time_in_epochs(unit_epochs: ibis.Table, window_us: int, epoch_starts_us: Sequence[int]) -> ibis.Table:
    """Give each unit's time in each epoch: from its first exposure, while outcomes count, or to the next epoch."""
    later = sorted(epoch_starts_us)[1:]
    until = unit_epochs.first_us + window_us
    if later:
        branches = [(unit_epochs.first_us < start_us, start_us) for start_us in later]
        until = ibis.least(until, ibis.cases(*branches, else_=FAR_US))
    return unit_epochs.select("unit", "epoch", "weight", since_us=unit_epochs.first_us, until_us=until)


def _past(
    log: ExperimentLog, people: ibis.Table, names: Sequence[str], window_us: int, reach_us: int
) -> tuple[ibis.Table, ibis.Table]:
    """Give the sums over each unit's rows, and its outcomes, of the time before its first exposure; by its code."""
    everything = answered(log.rows).drop("epoch")
    joined = everything.join(people, "unit")
    early = joined.filter(joined.at_us < joined.exposed_us, joined.at_us >= joined.exposed_us - reach_us)
    before = log.keep("past", early.select("prediction_id", "row", "at_us", "code", "exposed_us", *_PAST_COLUMNS))
    rows = log.keep("past_rows", before.group_by("code").agg(**logged_sums(before)))
    values = outcome_values(
        log,
        names,
        by=("code",),
        # What was told of a past row after the first exposure may already be the experiment's doing.
        rows=before.mutate(until_us=ibis.least(before.at_us + window_us, before.exposed_us - 1)),
        units=people.select(
            "unit",
            "code",
            weight=double(1),
            since_us=people.exposed_us - reach_us,
            until_us=people.exposed_us,
        ),
        origin_us=0,
        width_us=FAR_US,
    )
    return rows, log.keep("past_values", values)


def _wide(values: ibis.Table, by: Sequence[str], names: Sequence[str], prefix: str) -> ibis.Table:
    sums: dict[str, Any] = {}
    for index, name in enumerate(names):
        sums[f"{prefix}_total_{index}"] = values.total.sum(where=values.metric == name)
        sums[f"{prefix}_number_{index}"] = values.number.sum(where=values.metric == name)
    return values.group_by(*by).agg(**sums)


def _with_values(
    unit_epochs: ibis.Table,
    values: ibis.Table,
    past: tuple[ibis.Table, ibis.Table] | None,
    names: Sequence[str],
) -> ibis.Table:
    joined = unit_epochs
    if names:
        joined = _left(joined, _wide(values, ("unit", "epoch"), names, "now"), ("unit", "epoch"))
    if past is None:
        return joined
    rows, outcomes = past
    known = rows.rename({f"past_{column}": column for column in rows.columns if column != "code"})
    joined = _left(joined, known, ("code",))
    return _left(joined, _wide(outcomes, ("code",), names, "past"), ("code",)) if names else joined


def _left(one: ibis.Table, other: ibis.Table, on: Sequence[str]) -> ibis.Table:
    joined = one.left_join(other, list(on), rname="{name}_again")
    return joined.drop(*(f"{name}_again" for name in on))


def _with_metrics(joined: ibis.Table, metrics: Sequence[Metric], names: Sequence[str], *, sampled: bool) -> ibis.Table:
    weight = (joined.weight > 1).ifelse(joined.weight, double(0)) if sampled else joined.weight
    columns: dict[str, Any] = {}
    for index, metric in enumerate(metrics):
        columns[f"n{index}"], columns[f"d{index}"] = _two(joined, metric, names, "now", weight)
        known = (
            joined.past_weights_rows.notnull().ifelse(double(1), double(0))
            if "past_weights_rows" in joined.columns
            else None
        )
        columns[f"x{index}"], columns[f"k{index}"] = (
            (double(0), double(0)) if known is None else _two(joined, metric, names, "past", known)
        )
    kept = ("unit", "code", "epoch", "arm", "first_us", "is_first", "rows", "served", "in_two_arms")
    return joined.select(*kept, weight=weight, **columns)


def _two(joined: ibis.Table, metric: Metric, names: Sequence[str], time: str, per_unit: Any) -> tuple[Any, Any]:
    if metric.logged:
        sums, weights = logged_columns(metric)
        prefix = "" if time == "now" else "past_"
        return joined[prefix + sums].fill_null(0.0), joined[prefix + weights].fill_null(0.0)
    index = names.index(metric.numerator)
    numerator = joined[f"{time}_total_{index}"].fill_null(0.0)
    if metric.of is Of.PER_UNIT:
        return numerator, per_unit
    if metric.denominator is not None:
        return numerator, joined[f"{time}_total_{names.index(metric.denominator)}"].fill_null(0.0)
    return numerator, joined[f"{time}_number_{index}"].fill_null(0.0)
