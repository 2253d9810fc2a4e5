"""Assignment: which variant one unit gets. The same code serves, explains and replays."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from experiments.buckets import BUCKETS
from experiments.definition import Experiment, State
from experiments.variants import NOBODY, Variant


class Reason(StrEnum):
    """Why a unit is, or is not, in an arm."""

    SPLIT = "split"
    OVERRIDE = "override"
    FORCED = "forced"
    WINNER = "winner"
    NO_EXPERIMENT = "no_experiment"
    NO_UNIT = "no_unit"
    NOT_RUNNING = "not_running"
    NOT_TARGETED = "not_targeted"
    HELD_OUT = "held_out"
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

    A concluded experiment's winner gives way to every experiment that runs; of several winners the one that was made so
    last counts.

    experiments: those of one model, in a fixed order. attributes: the request's entities and features, for `where`.
    """
    if not experiments:
        return UNASSIGNED
    if unit is None:
        return WITHOUT_UNIT
    decision = UNASSIGNED
    won: Assignment | None = None
    for experiment in experiments:
        decision = assign_one(experiment, unit, attributes)
        if decision.variant is None:
            continue
        if decision.reason is not Reason.WINNER:
            return decision
        if won is None or won.experiment is None or won.experiment.revision < experiment.revision:
            won = decision
    return decision if won is None else won


def assign_one(experiment: Experiment, unit: str, attributes: Mapping[str, Any]) -> Assignment:
    """Return one experiment's decision for one unit."""
    if experiment.state is not State.RUNNING:
        return _after_its_end(experiment, attributes)
    if experiment.overrides:
        override = experiment.overrides.get(unit)
        if override is not None:
            return Assignment(experiment, override, Reason.OVERRIDE)
    kept_out = _kept_out(experiment, unit, attributes)
    if kept_out is not None:
        return Assignment(experiment, None, kept_out)
    enrol_bucket = experiment.enrol(unit)
    if enrol_bucket >= experiment.enrolled_below:
        return Assignment(experiment, None, Reason.NOT_ENROLLED, enrol_bucket)
    # GrowthBook has one draw for both, and its hash is the dearest.
    split_bucket = enrol_bucket if experiment.split is experiment.enrol else experiment.split(unit)
    arm = experiment.arms[split_bucket]
    if arm == NOBODY:  # beyond GrowthBook's coverage: there one draw decides both
        return Assignment(experiment, None, Reason.NOT_ENROLLED, enrol_bucket, split_bucket)
    return Assignment(experiment, experiment.variants[arm], Reason.SPLIT, enrol_bucket, split_bucket)


def _after_its_end(experiment: Experiment, attributes: Mapping[str, Any]) -> Assignment:
    if experiment.winner is None:
        return Assignment(experiment, None, Reason.NOT_RUNNING)
    if experiment.where is not None and not experiment.where(attributes):
        return Assignment(experiment, None, Reason.NOT_TARGETED)
    return Assignment(experiment, experiment.winner, Reason.WINNER)


def _kept_out(experiment: Experiment, unit: str, attributes: Mapping[str, Any]) -> Reason | None:
    if experiment.where is not None and not experiment.where(attributes):
        return Reason.NOT_TARGETED
    if experiment.holdout_draw is not None:
        assert experiment.holdout is not None
        if experiment.holdout_draw(unit) < experiment.holdout.bp:
            return Reason.HELD_OUT
    if experiment.layer_draw is not None:
        slot = experiment.layer_draw(unit)
        if not any(first <= slot < end for first, end in experiment.slots):
            return Reason.OTHER_SLOT
    return None


def shadow_version(decision: Assignment, unit: str | None, served: str) -> str | None:
    """Return the version that is to score an enrolled unit's row once more; None where none is to.

    served: the version that answered. Where that is the shadow's own, control's takes its place, so that units of every
    arm have a pair.
    """
    experiment = decision.experiment
    if experiment is None or experiment.shadow is None or not decision.enrolled:
        return None
    assert experiment.shadow_draw is not None
    assert unit is not None  # without one nobody is enrolled
    if experiment.shadow_draw(unit) >= experiment.shadow.sample_bp:
        return None
    version = experiment.shadow.version if served != experiment.shadow.version else experiment.control.version
    return None if version == served else version
