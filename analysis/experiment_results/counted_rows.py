"""Which rows of a log count in an experiment's results, which do not and why, and what they tell of the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis

from analysis.experiment_results.experiment_log import ExperimentLog, double

LEFT_OUT: Final = ("shadow", "forced", "no_unit", "not_enrolled", "overridden")
"""Why a row of the experiment does not count; the first that holds. `overridden` also where a winner was given."""


@dataclass(frozen=True, slots=True)
class Span:
    """`start_us <= at_us < end_us`, each open where None."""

    start_us: int | None = None
    end_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochArm:
    """One arm's rows in one epoch, as they were assigned.

    probabilities: the least and the greatest that its rows state; equal, unless something is wrong.
    """

    epoch: int
    arm: str
    rows: int
    rows_not_served: int
    probabilities: tuple[float, float]
    first_us: int
    last_us: int


def in_span(rows: ibis.Table, span: Span) -> ibis.Table:
    """Keep the rows of a span of time."""
    conditions = []
    if span.start_us is not None:
        conditions.append(rows.at_us >= span.start_us)
    if span.end_us is not None:
        conditions.append(rows.at_us < span.end_us)
    return rows.filter(*conditions) if conditions else rows


def counted(rows: ibis.Table, experiment: str) -> ibis.Table:
    """Keep the rows that the experiment's split drew and that were answered: those that count."""
    return rows.filter(rows.experiment == experiment, _why_left_out(rows) == "")


def answered(rows: ibis.Table) -> ibis.Table:
    """Keep every unit's answered rows, of no experiment in particular, as one arm: a unit's past, or a baseline."""
    kept = rows.filter(~rows.shadow, ~rows.forced, rows.unit.notnull())
    return kept.mutate(epoch=ibis.literal(0, "int64"), arm=ibis.literal("all"), probability=double(1))


def rows_left_out(log: ExperimentLog, rows: ibis.Table, experiment: str) -> dict[str, int]:
    """Count the experiment's rows that do not count, by reason."""
    mine = rows.filter(rows.experiment == experiment)
    by_reason = mine.mutate(reason=_why_left_out(mine)).group_by("reason").agg(rows=lambda table: table.count())
    found = {line["reason"]: int(line["rows"]) for line in log.lines(by_reason)}
    return {reason: found.get(reason, 0) for reason in LEFT_OUT}


def epoch_arms(log: ExperimentLog, rows: ibis.Table) -> tuple[EpochArm, ...]:
    """Say what counted rows tell of the split, by epoch in the order of their first rows, and by arm."""
    expression = rows.group_by("epoch", "arm").agg(
        rows=rows.count(),
        rows_not_served=rows.count(where=~rows.served),
        least=rows.probability.min(),
        most=rows.probability.max(),
        first_us=rows.at_us.min(),
        last_us=rows.at_us.max(),
    )
    found = [_epoch_arm(line) for line in log.lines(expression)]
    begun: dict[int, int] = {}
    for one in found:
        begun[one.epoch] = min(one.first_us, begun.get(one.epoch, one.first_us))
    return tuple(sorted(found, key=lambda one: (begun[one.epoch], one.epoch, one.arm)))


def versions_by_arm(log: ExperimentLog, rows: ibis.Table) -> dict[str, tuple[str, ...]]:
    """Give the versions that served each arm as it was assigned, most rows first."""
    own = rows.filter(rows.served)
    lines = log.lines(own.group_by("arm", "version").agg(rows=own.count()))
    found: dict[str, tuple[str, ...]] = {}
    for line in sorted(lines, key=lambda line: (-int(line["rows"]), str(line["version"]))):
        found[line["arm"]] = (*found.get(line["arm"], ()), line["version"])
    return found


def epochs_in_order(found: Sequence[EpochArm]) -> tuple[int, ...]:
    """List the epochs once each, in the order given."""
    return tuple(dict.fromkeys(one.epoch for one in found))


def _why_left_out(rows: ibis.Table) -> Any:
    return ibis.cases(
        (rows.shadow, "shadow"),
        (rows.forced, "forced"),
        (rows.unit.isnull(), "no_unit"),
        (rows.arm.isnull(), "not_enrolled"),
        (rows.probability.isnull(), "overridden"),
        else_="",
    )


def _epoch_arm(line: dict[str, Any]) -> EpochArm:
    return EpochArm(
        epoch=int(line["epoch"]),
        arm=str(line["arm"]),
        rows=int(line["rows"]),
        rows_not_served=int(line["rows_not_served"]),
        probabilities=(float(line["least"]), float(line["most"])),
        first_us=int(line["first_us"]),
        last_us=int(line["last_us"]),
    )
