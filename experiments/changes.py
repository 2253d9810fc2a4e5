"""A change of an experiment: whether it is allowed, whom it moves, and how to move as few as arithmetic allows."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from experiments.buckets import BUCKETS
from experiments.definition import Experiment, Hash, State
from experiments.errors import ExperimentError
from experiments.fields import Ranges
from experiments.variants import NOBODY, Variant

AFTER: Final[Mapping[State, frozenset[State]]] = {
    State.DRAFT: frozenset(State),
    State.RUNNING: frozenset({State.RUNNING, State.PAUSED, State.CONCLUDED}),
    State.PAUSED: frozenset({State.RUNNING, State.PAUSED, State.CONCLUDED}),
    State.CONCLUDED: frozenset({State.CONCLUDED, State.DRAFT, State.RUNNING}),
}
"""The states that may follow each."""

_NOTHING: Final = bytes([NOBODY]) * BUCKETS


def refuse_change(before: Experiment, after: Experiment) -> None:
    """Refuse what would make an experiment's rows mean two things. Raises ExperimentError."""
    if after.state not in AFTER[before.state]:
        may = ", ".join(sorted(AFTER[before.state]))
        raise ExperimentError("state", f"{before.state} cannot become {after.state}; it can become: {may}")
    if before.state is State.DRAFT:
        return
    if after.model != before.model:
        raise ExperimentError("model", f"it is an experiment on {before.model!r}: give another one another name")
    if after.unit != before.unit:
        raise ExperimentError("unit", f"its units are {before.unit!r}: give another one another name")
    same_draw = (before.hash, before.salts) == (after.hash, after.salts)
    starts_again = before.state is State.CONCLUDED and after.state is not State.CONCLUDED
    if not starts_again and not same_draw:
        key = "hash" if before.hash is not after.hash else "salt"
        raise ExperimentError(
            key, "is immutable while an experiment runs: conclude it, and start again under a new one"
        )
    if starts_again and same_draw:
        raise ExperimentError(
            "salt", "an experiment that starts again needs a new salt: its units would carry over what they have seen"
        )


def share_moved(before: Experiment | None, after: Experiment | None) -> Fraction:
    """Return the share of all units whose arm changes, none of them being targeted or overridden.

    Exactly, from the ranges: of units that are spread evenly over all buckets. Into the experiment and out of it are
    moves too. Two draws under different salts or hashes are independent, and so are layers and holdouts of different
    names.
    """
    one, other = _arms(before), _arms(after)
    if before is None or after is None:
        experiment = before or after
        return Fraction(0) if experiment is None else _inside(experiment) * _drawn(experiment, one if before else other)
    both = _both_in_slots(before, after) * _both_not_held_out(before, after)
    only_before, only_after = _inside(before) - both, _inside(after) - both
    return (
        both * _differ(before, one, after, other)
        + only_before * _drawn(before, one)
        + only_after * _drawn(after, other)
    )


def least_moving_ranges(before: Sequence[Variant], wanted: Sequence[tuple[str, int]]) -> list[Ranges]:
    """Share the split's buckets out anew so that as few as possible change hands.

    An arm that shrinks gives up its last buckets, and arms that grow, or are new, take those in turn. What moves is
    then the sum of what arms lose, which no way of sharing out can undercut.

    wanted: name and share of each arm, in basis points that add up to 10,000.
    """
    held = {variant.name: variant.ranges for variant in before}
    kept = {name: _first(held.get(name, ()), bp) for name, bp in wanted}
    taken = bytearray(BUCKETS)
    for ranges in kept.values():
        for first, end in ranges:
            taken[first:end] = b"\1" * (end - first)
    free = iter([bucket for bucket in range(BUCKETS) if not taken[bucket]])
    found = []
    for name, bp in wanted:
        own = [bucket for first, end in kept[name] for bucket in range(first, end)]
        own += [next(free) for _ in range(bp - len(own))]
        found.append(_ranges_of(sorted(own)))
    return found


def _arms(experiment: Experiment | None) -> list[str | None]:
    """Name the arm of each split bucket."""
    if experiment is None:
        return [None] * BUCKETS
    winner = experiment.winner
    if winner is not None:
        return [winner.name] * BUCKETS
    table = experiment.arms if experiment.state is State.RUNNING else _NOTHING
    names: list[str | None] = [variant.name for variant in experiment.variants]
    return [None if arm == NOBODY else names[arm] for arm in table]


def _inside(experiment: Experiment) -> Fraction:
    """Return the share of units in its slots and not held out."""
    if experiment.winner is not None:
        return Fraction(1)
    return _in_slots(experiment) * (1 - _held_out(experiment))


def _enrolled(experiment: Experiment) -> Fraction:
    return Fraction(1) if experiment.winner is not None else Fraction(experiment.enrolled_below, BUCKETS)


def _drawn(experiment: Experiment, arms: list[str | None]) -> Fraction:
    """Return the share, of the units inside, that gets an arm."""
    return _enrolled(experiment) * Fraction(BUCKETS - arms.count(None), BUCKETS)


def _differ(one: Experiment, arms: list[str | None], other: Experiment, other_arms: list[str | None]) -> Fraction:
    """Return the share, of the units inside both, whose arm differs."""
    enrolled, other_enrolled = _enrolled(one), _enrolled(other)
    same_enrolment, same_split = (
        one.winner is not None
        or other.winner is not None
        or (one.hash, one.salts[draw]) == (other.hash, other.salts[draw])
        for draw in (0, 1)
    )
    both = min(enrolled, other_enrolled) if same_enrolment else enrolled * other_enrolled
    if same_split:
        differ = Fraction(sum(a != b for a, b in zip(arms, other_arms, strict=True)), BUCKETS)
    else:
        names = set(arms) | set(other_arms)
        differ = 1 - sum((Fraction(arms.count(n) * other_arms.count(n), BUCKETS**2) for n in names), Fraction(0))
    return (
        both * differ
        + (enrolled - both) * Fraction(BUCKETS - arms.count(None), BUCKETS)
        + (other_enrolled - both) * Fraction(BUCKETS - other_arms.count(None), BUCKETS)
    )


def _in_slots(experiment: Experiment) -> Fraction:
    return Fraction(sum(end - first for first, end in experiment.slots), BUCKETS)


def _both_in_slots(one: Experiment, other: Experiment) -> Fraction:
    if one.winner is not None or other.winner is not None:
        return (Fraction(1) if one.winner else _in_slots(one)) * (Fraction(1) if other.winner else _in_slots(other))
    if one.layer != other.layer:
        return _in_slots(one) * _in_slots(other)
    shared = sum(max(0, min(b, d) - max(a, c)) for a, b in one.slots for c, d in other.slots)
    return Fraction(shared, BUCKETS)


def _held_out(experiment: Experiment) -> Fraction:
    return Fraction(experiment.holdout.bp if experiment.holdout is not None else 0, BUCKETS)


def _both_not_held_out(one: Experiment, other: Experiment) -> Fraction:
    held = Fraction(0) if one.winner is not None else _held_out(one)
    other_held = Fraction(0) if other.winner is not None else _held_out(other)
    if one.holdout is not None and other.holdout is not None and one.holdout.name == other.holdout.name:
        return 1 - max(held, other_held)
    return (1 - held) * (1 - other_held)


def _first(ranges: Ranges, count: int) -> Ranges:
    """Return the first `count` buckets of some ranges."""
    found = []
    for first, end in sorted(ranges):
        if count <= 0:
            break
        found.append((first, min(end, first + count)))
        count -= end - first
    return tuple(found)


def _ranges_of(buckets: Sequence[int]) -> Ranges:
    """Join buckets, in order, to ranges."""
    found: list[tuple[int, int]] = []
    for bucket in buckets:
        if found and found[-1][1] == bucket:
            found[-1] = (found[-1][0], bucket + 1)
        else:
            found.append((bucket, bucket + 1))
    return tuple(found)


def refills_ranges(experiment: Experiment) -> bool:
    """Whether ranges may be worked out for it: GrowthBook's follow from its own rule."""
    return experiment.hash is not Hash.GROWTHBOOK_V2


def with_ranges(document: Mapping[str, Any], ranges: Sequence[Ranges]) -> dict[str, Any]:
    """Return a document whose variants have these ranges."""
    variants = [
        {**variant, "ranges": [list(pair) for pair in own]}
        for variant, own in zip(document["variants"], ranges, strict=True)
    ]
    return {**document, "variants": variants}
