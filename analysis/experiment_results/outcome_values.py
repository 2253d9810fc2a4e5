"""Outcomes joined to what they are of: a row, by prediction, or a unit's time in an epoch, by unit.

Of several outcomes of one metric with the same key the one with the latest `at` counts, and of equals the one received
last (the contract of the outcome log), among those that lie within the time allowed. So an outcome by unit is a state
("spent so far"), not an event: the last one told within the window is the unit's value.
"""

from collections.abc import Sequence

import ibis

from analysis.experiment_results.experiment_log import ExperimentLog


def outcome_values(
    log: ExperimentLog,
    names: Sequence[str],
    *,
    by: Sequence[str],
    rows: ibis.Table,
    units: ibis.Table,
    origin_us: int,
    width_us: int,
) -> ibis.Table:
    """Give each outcome that counts, added up by `by`, metric and slot of time.

    by: columns of both tables that name whose the outcome is. rows: prediction_id, row, at_us, weight, and until_us, up
        to which an outcome of the row counts. units: unit, weight, and `since_us <= at_us < until_us` for one by unit.
    Gives `by`, metric, slot, total (values times weights) and number (weights). slot: when it happened, but not before
    its row, in widths since the origin.
    """
    told = log.told.filter(log.told.metric.isin(list(names)))
    both = ibis.union(_by_prediction(rows, told, by), _by_unit(units, told, by))
    slotted = both.mutate(slot=((both.at_us - origin_us) // width_us).cast("int32"))
    return slotted.group_by(*by, "metric", "slot").agg(
        total=(slotted.value * slotted.weight).sum(), number=slotted.weight.sum()
    )


def _by_prediction(rows: ibis.Table, told: ibis.Table, by: Sequence[str]) -> ibis.Table:
    keyed = told.filter(told.prediction_id.notnull())
    keyed = keyed.select(
        "prediction_id", "metric", "value", "received_us", row=keyed.row.fill_null(0), told_us=keyed.at_us
    )
    joined = rows.select("prediction_id", "row", "at_us", "weight", "until_us", *by).join(
        keyed, ["prediction_id", "row"]
    )
    joined = joined.filter(joined.told_us <= joined.until_us)
    last = _last(joined, ["prediction_id", "row", "metric"])
    return last.select(*by, "metric", "value", "weight", at_us=ibis.greatest(last.told_us, last.at_us))


def _by_unit(units: ibis.Table, told: ibis.Table, by: Sequence[str]) -> ibis.Table:
    keyed = told.filter(told.prediction_id.isnull(), told.unit.notnull())
    keyed = keyed.select("unit", "metric", "value", "received_us", told_us=keyed.at_us)
    joined = units.join(keyed, "unit")
    joined = joined.filter(joined.told_us >= joined.since_us, joined.told_us < joined.until_us)
    last = _last(joined, [*by, "metric"])
    return last.select(*by, "metric", "value", "weight", at_us=last.told_us)


def _last(joined: ibis.Table, key: Sequence[str]) -> ibis.Table:
    # The value decides at the end, so that two outcomes equal in both times give one answer in every run.
    order = [joined.told_us.desc(), joined.received_us.desc(), joined.value.desc()]
    ranked = joined.mutate(
        rank=ibis.row_number().over(ibis.window(group_by=[joined[name] for name in key], order_by=order))
    )
    return ranked.filter(ranked["rank"] == 0)
