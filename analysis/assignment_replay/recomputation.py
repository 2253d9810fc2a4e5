"""One logged decision against the revision that it names, with the code that serves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from analysis.assignment_replay.history import History, Key
from analysis.assignment_replay.logged_assignment import Answer, LoggedAssignment
from analysis.assignment_replay.where_attributes import (
    AttributeColumn,
    LoggedAttributes,
    WhereAttributes,
    where_attributes,
)
from experiments import Assignment, Experiment, Reason, State, shadow_version
from experiments.assignment import assign_one

PROBABILITY_TOLERANCE: Final = 1e-12

UNITS_REMEMBERED: Final = 16
"""Whose draws are kept, for the revisions that share them: decisions come in the order of their units."""

_NOTHING: Final[Mapping[str, Any]] = {}


class Fault(StrEnum):
    """What is wrong with a row; the first that holds."""

    NO_EXPERIMENT = "no_experiment"
    """It names no experiment, and yet an arm, a bucket or a revision."""

    UNKNOWN_REVISION = "unknown_revision"
    """The history has no such revision."""

    MODEL = "model"
    """The experiment is on another model."""

    EPOCH = "epoch"
    """The revision belongs to another epoch."""

    FORCED = "forced"
    """Forced, but not into an arm of an experiment that runs, or drawn besides."""

    NO_UNIT = "no_unit"
    """An experiment decided although there was no unit."""

    REASON = "reason"
    """The revision decides in another way: drawn, say, where it is an override."""

    ENROL_BUCKET = "enrol_bucket"
    SPLIT_BUCKET = "split_bucket"
    ARM = "variant_assigned"
    PROBABILITY = "assignment_probability"
    SERVED = "variant_served"
    """Neither the assigned arm answered, nor did a fault make another one step in."""

    VERSION = "version"
    """The arm answered, by another version than its own."""

    SHADOW = "shadow"
    """Scored once more, though the revision samples no such unit, or by another version."""

    TWO_ARMS = "two_arms"
    """Rows that are explained one by one give a unit two arms in one epoch."""

    SHADOW_PAIR = "shadow_pair"
    """A shadow's row, explained by itself, has another assignment than the row that was answered."""


class Verdict(NamedTuple):
    """What came of it. recomputed: None where there is no revision to ask, or the caller forced the arm."""

    fault: Fault | None
    reason: str
    recomputed: Assignment | None = None
    is_targeting_known: bool = True


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision, ready to be asked. targeted, untargeted: the same, whatever its `where` says of a request."""

    experiment: Experiment
    where: WhereAttributes | None
    targeted: Experiment
    untargeted: Experiment


class Recomputation:
    """Judges logged decisions."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._draws: dict[Any, Experiment] = {}
        self._revisions: dict[Key, tuple[Revision, ...]] = {}

    def revisions(self, name: str, revision: int) -> tuple[Revision, ...]:
        """Return what a number stands for: nothing, one revision, or several where it was given twice."""
        key = name, revision
        if key not in self._revisions:
            self._revisions[key] = tuple(map(self._ready, self._history.of(name, revision)))
        return self._revisions[key]

    def judge(
        self,
        logged: LoggedAssignment,
        attributes: LoggedAttributes | None = None,
        columns: tuple[AttributeColumn, ...] = (),
    ) -> Verdict:
        """Recompute one decision.

        attributes, columns: of the request, and where they were logged; None where what `where` reads is not logged.
        """
        answer = logged.answer
        if answer.experiment is None:
            return _without_experiment(logged)
        found = () if answer.revision is None else self.revisions(answer.experiment, answer.revision)
        if not found:
            return Verdict(Fault.UNKNOWN_REVISION, "")
        first: Verdict | None = None
        for revision in found:
            verdict = _judged(revision, logged, attributes, columns)
            if verdict.fault is None:
                return verdict
            first = first or verdict
        assert first is not None
        return first

    def explains_draw(self, logged: LoggedAssignment) -> bool:
        """Whether a drawn unit's decision follows from its revision. Of a unit that was drawn, `where` was true."""
        return self.judge(logged).fault is None

    def _ready(self, experiment: Experiment) -> Revision:
        kept = self._with_kept_draws(experiment)
        if experiment.where is None:
            return Revision(kept, None, kept, kept)
        return Revision(
            kept,
            where_attributes(experiment.document["where"]),
            replace(kept, where=lambda _: True),
            replace(kept, where=lambda _: False),
        )

    def _with_kept_draws(self, experiment: Experiment) -> Experiment:
        """Make revisions that draw alike share their draws' results, so that a unit is hashed once for all of them."""
        holdout = experiment.holdout.name if experiment.holdout is not None else None
        key = experiment.hash, experiment.salts, experiment.layer, holdout
        if key not in self._draws:
            enrol = lru_cache(UNITS_REMEMBERED)(experiment.enrol)
            # GrowthBook's one draw must stay one: `assign_one` asks whether it is.
            same = experiment.split is experiment.enrol
            split = enrol if same else lru_cache(UNITS_REMEMBERED)(experiment.split)
            self._draws[key] = replace(experiment, enrol=enrol, split=split)
        kept = self._draws[key]
        return replace(experiment, enrol=kept.enrol, split=kept.split)


def _judged(
    revision: Revision,
    logged: LoggedAssignment,
    attributes: LoggedAttributes | None,
    columns: tuple[AttributeColumn, ...],
) -> Verdict:
    experiment, answer = revision.experiment, logged.answer
    if answer.forced:
        verdict = Verdict(_fault_of_forced(experiment, logged), Reason.FORCED)
    elif logged.unit is None:
        verdict = Verdict(Fault.NO_UNIT, "")
    else:
        verdict = _drawn(revision, logged, logged.unit, attributes, columns)
    if answer.model != experiment.model:
        return verdict._replace(fault=Fault.MODEL)
    return verdict if answer.epoch == experiment.epoch else verdict._replace(fault=Fault.EPOCH)


def _drawn(
    revision: Revision,
    logged: LoggedAssignment,
    unit: str,
    attributes: LoggedAttributes | None,
    columns: tuple[AttributeColumn, ...],
) -> Verdict:
    if revision.where is not None and attributes is None:
        return _either(revision, logged, unit)
    decision = assign_one(revision.experiment, unit, _NOTHING if attributes is None else attributes.values)
    fault = _fault(logged, decision, unit)
    if (
        fault is not None
        and revision.where is not None
        and attributes is not None
        and revision.where.may_differ(columns, attributes)
    ):
        return _either(revision, logged, unit)
    return Verdict(fault, decision.reason, decision)


def _either(revision: Revision, logged: LoggedAssignment, unit: str) -> Verdict:
    """Judge by what can be known without `where`: the decision is one of two."""
    decisions = [assign_one(e, unit, _NOTHING) for e in (revision.targeted, revision.untargeted)]
    is_known = decisions[0][1:] == decisions[1][1:]
    for decision in decisions:
        if _fault(logged, decision, unit) is None:
            return Verdict(None, decision.reason, decision, is_known)
    # What was told of an arm or a bucket is told of a unit that was targeted.
    decision = decisions[0]
    return Verdict(_fault(logged, decision, unit), decision.reason, decision, is_known)


def _fault(logged: LoggedAssignment, decision: Assignment, unit: str) -> Fault | None:
    answer, variant = logged.answer, decision.variant
    if (
        logged.enrol_bucket == decision.enrol_bucket
        and logged.split_bucket == decision.split_bucket
        and answer.arm == (variant and variant.name)
        and _are_equal(answer.probability, decision.probability)
    ):
        return _fault_of_answer(answer, decision, unit)
    differing = [
        fault
        for fault, one, other in (
            (Fault.ENROL_BUCKET, logged.enrol_bucket, decision.enrol_bucket),
            (Fault.SPLIT_BUCKET, logged.split_bucket, decision.split_bucket),
            (Fault.ARM, answer.arm, variant and variant.name),
        )
        if one != other
    ]
    if not _are_equal(answer.probability, decision.probability):
        differing.append(Fault.PROBABILITY)
    if len(differing) > 1 and _kind(logged) != _KIND_BY_REASON[decision.reason]:
        return Fault.REASON
    return differing[0]


def _are_equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= PROBABILITY_TOLERANCE


def _fault_of_answer(answer: Answer, decision: Assignment, unit: str) -> Fault | None:
    if answer.shadow:
        return _fault_of_shadow(answer, decision, unit)
    variant = decision.variant
    if variant is None:
        return None if answer.served is None else Fault.SERVED  # by the default version, which no experiment names
    if answer.stepped_down:
        return None if answer.served is None else Fault.SERVED  # by the route's fallback, likewise
    if answer.served != variant.name:
        return Fault.SERVED
    return None if answer.version == variant.version else Fault.VERSION


def _fault_of_shadow(answer: Answer, decision: Assignment, unit: str) -> Fault | None:
    experiment = decision.experiment
    if experiment is None or experiment.shadow is None or answer.served is not None:
        return Fault.SHADOW
    # Which version had answered is told by another row: the shadow's own, or any other.
    possible = {shadow_version(decision, unit, served) for served in (experiment.shadow.version, "")}
    return None if answer.version in possible else Fault.SHADOW


def _fault_of_forced(experiment: Experiment, logged: LoggedAssignment) -> Fault | None:
    answer = logged.answer
    variant = experiment.variant_named(answer.arm) if answer.arm is not None else None
    drawn = (logged.enrol_bucket, logged.split_bucket, answer.probability) != (None, None, None)
    if variant is None or drawn or experiment.state is not State.RUNNING:
        return Fault.FORCED
    return _fault_of_answer(answer, Assignment(experiment, variant, Reason.FORCED), logged.unit or "")


def _without_experiment(logged: LoggedAssignment) -> Verdict:
    answer = logged.answer
    said = (answer.revision, answer.epoch, answer.arm, answer.served, answer.probability, *logged[2:])
    reason = Reason.FORCED if answer.forced else Reason.NO_EXPERIMENT
    is_explained = not answer.shadow and said == (None,) * len(said)
    return Verdict(None if is_explained else Fault.NO_EXPERIMENT, reason)


def _kind(logged: LoggedAssignment) -> str:
    """Tell, as far as a row does, by what it was decided."""
    if logged.answer.probability is not None:
        return "drawn"
    if logged.answer.arm is not None:
        return "given"
    return "outside" if logged.enrol_bucket is None else "not enrolled"


_KIND_BY_REASON: Final = {
    Reason.SPLIT: "drawn",
    Reason.OVERRIDE: "given",
    Reason.WINNER: "given",
    Reason.NOT_ENROLLED: "not enrolled",
    Reason.NOT_RUNNING: "outside",
    Reason.NOT_TARGETED: "outside",
    Reason.HELD_OUT: "outside",
    Reason.OTHER_SLOT: "outside",
}
