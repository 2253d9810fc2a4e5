"""Assignment: which variant one unit gets. The same code serves, explains and replays."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from experiments.buckets import BUCKETS, bucket
from experiments.definition import Experiment, State, Variant

_WHOLE_LAYER = ((0, BUCKETS),)


class Reason(StrEnum):
    """Why a unit is, or is not, in an arm."""

    SPLIT = "split"
    OVERRIDE = "override"
    FORCED = "forced"
    NO_EXPERIMENT = "no_experiment"
    NO_UNIT = "no_unit"
    NOT_RUNNING = "not_running"
    NOT_TARGETED = "not_targeted"
    OTHER_SLOT = "other_slot"
    NOT_ENROLLED = "not_enrolled"


class Assignment(NamedTuple):
    """One unit's decision. `variant` None: not in the experiment, so the default version serves.

    `probability` is that of this arm among the enrolled, for weighting and for the sample-ratio check.
    """

    experiment: Experiment | None
    variant: Variant | None
    reason: Reason
    enrol_bucket: int | None = None
    split_bucket: int | None = None

    @property
    def enrolled(self) -> bool:
        """Whether the unit counts in the results: drawn by the split, neither overridden nor forced."""
        return self.reason is Reason.SPLIT

    @property
    def probability(self) -> float | None:
        """The arm's share of the split; None outside of it."""
        return self.variant.bp / BUCKETS if self.variant is not None and self.reason is Reason.SPLIT else None


UNASSIGNED = Assignment(None, None, Reason.NO_EXPERIMENT)
WITHOUT_UNIT = Assignment(None, None, Reason.NO_UNIT)


def assign(experiments: Sequence[Experiment], unit: str | None, attributes: Mapping[str, Any]) -> Assignment:
    """Return the first experiment's decision that puts the unit into an arm, or the last one that did not.

    experiments: those of one model, in a fixed order. attributes: the request's entities and features, for `where`.
    """
    if not experiments:
        return UNASSIGNED
    if unit is None:
        return WITHOUT_UNIT
    decision = UNASSIGNED
    for experiment in experiments:
        decision = assign_one(experiment, unit, attributes)
        if decision.variant is not None:
            return decision
    return decision


def assign_one(experiment: Experiment, unit: str, attributes: Mapping[str, Any]) -> Assignment:
    """Return one experiment's decision for one unit."""
    if experiment.state is not State.RUNNING:
        return Assignment(experiment, None, Reason.NOT_RUNNING)
    if experiment.overrides:
        override = experiment.overrides.get(unit)
        if override is not None:
            return Assignment(experiment, override, Reason.OVERRIDE)
    if experiment.where is not None and not experiment.where(attributes):
        return Assignment(experiment, None, Reason.NOT_TARGETED)
    identity = unit.encode()
    if experiment.slots != _WHOLE_LAYER:
        slot = bucket(experiment.layer_prefix, identity)
        if not any(first <= slot < end for first, end in experiment.slots):
            return Assignment(experiment, None, Reason.OTHER_SLOT)
    enrol_bucket = bucket(experiment.enrol_prefix, identity)
    if enrol_bucket >= experiment.enrol_bp:
        return Assignment(experiment, None, Reason.NOT_ENROLLED, enrol_bucket)
    split_bucket = bucket(experiment.split_prefix, identity)
    return Assignment(experiment, experiment.variant_at(split_bucket), Reason.SPLIT, enrol_bucket, split_bucket)
