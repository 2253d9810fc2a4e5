"""What only several rows can show: a unit in two arms, and a shadow that differs from what was answered.

Only rows that are explained one by one are looked at: the others are told already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Final

import ibis

from analysis.assignment_replay.logged_assignment import FACTS, LoggedAssignment, logged_assignment
from analysis.assignment_replay.recomputation import Recomputation
from analysis.assignment_replay.replay_log import ReplayLog
from analysis.assignment_replay.scans import Scan

_UNIT: Final = ("experiment", "epoch", "unit")
_CARRIED: Final = ("experiment", "revision", "epoch", "unit", "arm", "enrol_bucket", "split_bucket", "probability")
"""Of the answered row, by its shadow."""


@dataclass(frozen=True, slots=True)
class TwoArms:
    """A unit that was drawn into two arms in one epoch: a decision for one, and one for the other."""

    one: LoggedAssignment
    other: LoggedAssignment


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """A shadow's row, and what the row that was answered says."""

    prediction_id: str
    row: int
    at_us: int
    shadow: LoggedAssignment
    answered: LoggedAssignment


def units_in_two_arms(log: ReplayLog, recomputation: Recomputation) -> tuple[Scan, Iterator[TwoArms]]:
    """Find them. Returns the drawn rows besides, in which a decision's rows can be looked up."""
    rows = log.rows
    drawn = Scan(rows.filter(rows.probability.notnull(), ~rows.forced, *(rows[name].notnull() for name in _UNIT)))
    by_unit = drawn.table.group_by(*_UNIT).agg(one=drawn.table.arm.min(), other=drawn.table.arm.max())
    split = by_unit.filter(by_unit.one != by_unit.other).select(*_UNIT)
    return drawn, _explained_pairs(log, recomputation, drawn, split)


def _explained_pairs(log: ReplayLog, recomputation: Recomputation, drawn: Scan, units: ibis.Table) -> Iterator[TwoArms]:
    grouped = drawn.table.semi_join(units, list(_UNIT)).group_by(*FACTS).agg(rows=lambda table: table.count())
    in_order = grouped.order_by(*_UNIT, *(fact for fact in FACTS if fact not in _UNIT))
    decisions = (logged_assignment(line[: len(FACTS)]) for line in chain.from_iterable(log.tuples(in_order)))
    for _, own in groupby(decisions, key=lambda one: (one.answer.experiment, one.answer.epoch, one.unit)):
        by_arm = {one.answer.arm: one for one in own if recomputation.explains_draw(one)}
        if len(by_arm) > 1:
            yield TwoArms(*list(by_arm.values())[:2])


def shadows_that_differ(log: ReplayLog, recomputation: Recomputation) -> Iterator[ShadowPair]:
    """Find shadows whose assignment is not that of the answered row; a shadow whose answered row was lost has none."""
    rows = log.rows
    answered = rows.filter(~rows.shadow).rename({f"of_{name}": name for name in rows.columns})
    shadows = rows.filter(rows.shadow)
    same = [shadows.prediction_id == answered.of_prediction_id, shadows.row == answered.of_row]
    pairs = shadows.join(answered, same)
    differ = pairs.filter(ibis.or_(*(~pairs[name].identical_to(pairs[f"of_{name}"]) for name in _CARRIED)))
    chosen = differ.select("prediction_id", "row", "at_us", *FACTS, *(f"of_{fact}" for fact in FACTS))
    for line in chain.from_iterable(log.tuples(chosen.order_by("at_us", "prediction_id", "row"))):
        pair = _pair(line)
        if recomputation.explains_draw(pair.shadow) and recomputation.explains_draw(pair.answered):
            yield pair


def _pair(line: tuple[Any, ...]) -> ShadowPair:
    prediction_id, row, at_us, *facts = line
    both = tuple(facts)
    return ShadowPair(
        prediction_id, row, at_us, logged_assignment(both[: len(FACTS)]), logged_assignment(both[len(FACTS) :])
    )
