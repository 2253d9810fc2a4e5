"""The sample-ratio checks of a report, stage by stage, from the table of units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from analysis.experiment_results.counted_rows import EpochArm, epochs_in_order
from analysis.experiment_results.experiment_log import moment
from analysis.experiment_results.report import RatioCheck, SampleRatio, Stage, UnitsPoint
from analysis.experiment_results.sample_ratio import (
    SRM_ALPHA,
    Split,
    anytime_p_value,
    log_bayes_factor,
    ratio_test,
)
from analysis.experiment_results.unit_table import UnitTable
from experiments.metrics import Metric, Of

NOT_SEEN: Final = "(not in the log)"
"""Stands for arms that have a share of the split and not a single row, where the document does not name them."""

_SHARE_SLACK: Final = 1e-6


@dataclass(frozen=True, slots=True)
class SplitShares:
    """The split's own shares, by epoch in the order of time, over arms in the report's order."""

    arms: tuple[str, ...]
    epochs: tuple[int, ...]
    shares: Mapping[int, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Units by epoch and arm. first: those whose first epoch it is; all: everyone there."""

    stage: Stage
    metric: str | None
    first: dict[int, np.ndarray[Any, np.dtype[np.int64]]]
    all: dict[int, np.ndarray[Any, np.dtype[np.int64]]]


def split_shares(found: Sequence[EpochArm], declared: Sequence[str]) -> SplitShares:
    """Read the shares from what rows say of themselves, so that an arm without any row is missed.

    declared: the document's arms, in the report's order; arms that only the log knows come after them.
    """
    arms = list(dict.fromkeys([*declared, *(one.arm for one in found)]))
    epochs = epochs_in_order(found)
    shares: dict[int, np.ndarray[Any, np.dtype[np.float64]]] = {}
    for epoch in epochs:
        known = {one.arm: one.probabilities[1] for one in found if one.epoch == epoch}
        missing = 1 - sum(known.values())
        if missing > _SHARE_SLACK:
            unseen = next((arm for arm in declared if arm not in known), NOT_SEEN)
            known[unseen] = missing
            if unseen not in arms:
                arms.append(unseen)
        shares[epoch] = np.array([known.get(arm, 0.0) for arm in arms])
    width = len(arms)
    return SplitShares(tuple(arms), epochs, {e: np.pad(one, (0, width - one.size)) for e, one in shares.items()})


@dataclass(frozen=True, slots=True)
class Watched:
    """Units by arm as they came, and what somebody saw of the split who looked at it all along."""

    points: tuple[UnitsPoint, ...]
    p_value: float
    noticed_at: datetime | None


def sample_ratio(units: UnitTable, split: SplitShares, watched: Watched) -> SampleRatio:
    """Check every stage, over all epochs together and, where there are several, in each.

    The stage "outcome" is checked for metrics per outcome alone: where an outcome is told only of those who did
    something, that it is told is the effect, not a fault.
    """
    checks = [check for one in _counted(units, split) for check in _checks(one, split)]
    return SampleRatio(
        failed=any(check.failed for check in checks),
        alpha=SRM_ALPHA,
        p_value_anytime=watched.p_value,
        noticed_at=watched.noticed_at,
        checks=tuple(checks),
    )


def watch_units(units: UnitTable, split: SplitShares) -> Watched:
    """Count units by arm as they came, and test the split after every slot of time, by the anytime-valid test."""
    table, slots = units.table, units.slots
    first = table.filter(table.is_first, table.weight > 0)
    slotted = first.mutate(slot=(first.first_us - slots.origin_us) // slots.width_us)
    lines = units.log.lines(slotted.group_by("slot", "epoch", "arm").agg(units=slotted.count()))
    counts = np.zeros((slots.count, len(split.epochs), len(split.arms)), dtype=np.int64)
    for line in lines:
        counts[line["slot"], split.epochs.index(line["epoch"]), split.arms.index(line["arm"])] += line["units"]
    so_far = np.cumsum(counts, axis=0)
    evidence = [
        sum(log_bayes_factor(Split(so_far[slot, i], split.shares[e])) for i, e in enumerate(split.epochs))
        for slot in range(slots.count)
    ]
    last = int(np.max(np.nonzero(counts.sum(axis=(1, 2)))[0], initial=0))
    points = [
        UnitsPoint(moment(slots.end_us(slot)), tuple(int(n) for n in so_far[slot].sum(axis=0)))
        for slot in range(last + 1)
    ]
    alarms = [slot for slot, strength in enumerate(evidence) if anytime_p_value([strength]) < SRM_ALPHA]
    noticed_at = moment(slots.end_us(alarms[0])) if alarms else None
    return Watched(tuple(points), anytime_p_value(evidence), noticed_at)


def _counted(units: UnitTable, split: SplitShares) -> list[_Counted]:
    table = units.table
    real = table.weight > 0
    wanted: list[tuple[Stage, str | None, Any]] = [("assigned", None, real), ("served", None, real & table.served)]
    wanted += [
        ("outcome", metric.name, real & (table[units.columns(metric)[1]] > 0))
        for metric in units.metrics
        if _needs_outcomes(metric)
    ]
    sums: dict[str, Any] = {}
    for index, (_, _, condition) in enumerate(wanted):
        sums[f"first_{index}"] = (condition & table.is_first).sum()
        sums[f"all_{index}"] = condition.sum()
    lines = units.log.lines(table.group_by("epoch", "arm").agg(**sums))
    found = []
    for index, (stage, name, _) in enumerate(wanted):
        one = _Counted(stage, name, *({e: np.zeros(len(split.arms), np.int64) for e in split.epochs} for _ in range(2)))
        for line in lines:
            place = split.arms.index(line["arm"])
            one.first[line["epoch"]][place] = line[f"first_{index}"] or 0
            one.all[line["epoch"]][place] = line[f"all_{index}"] or 0
        if stage != "outcome" or any(counts.any() for counts in one.all.values()):
            found.append(one)
    return found


def _needs_outcomes(metric: Metric) -> bool:
    return metric.of is Of.PER_OUTCOME and not metric.logged


def _checks(counted: _Counted, split: SplitShares) -> list[RatioCheck]:
    together = [Split(counted.first[epoch], split.shares[epoch]) for epoch in split.epochs]
    checks = [_check(counted, None, together, SRM_ALPHA)]
    if len(split.epochs) > 1:
        each = SRM_ALPHA / len(split.epochs)
        checks += [
            _check(counted, epoch, [Split(counted.all[epoch], split.shares[epoch])], each) for epoch in split.epochs
        ]
    return checks


def _check(counted: _Counted, epoch: int | None, splits: Sequence[Split], alpha: float) -> RatioCheck:
    p_value = ratio_test(splits).p_value
    expected = sum((one.shares * one.observed.sum() for one in splits), np.zeros(splits[0].shares.size))
    observed = sum((one.observed for one in splits), np.zeros(splits[0].shares.size, np.int64))
    return RatioCheck(
        stage=counted.stage,
        epoch=epoch,
        metric=counted.metric,
        units=tuple(int(n) for n in observed),
        expected=tuple(float(n) for n in expected),
        p_value=p_value,
        failed=p_value < alpha,
    )
