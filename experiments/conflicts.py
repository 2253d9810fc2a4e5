"""What only a whole set of experiments can break."""

from collections import defaultdict
from collections.abc import Iterable

from experiments.definition import Experiment, State
from experiments.errors import ExperimentError

LIVE = frozenset({State.RUNNING, State.PAUSED})


def refuse_conflicts(experiments: Iterable[Experiment]) -> None:
    """Check names, a layer's unit kind and slots, and that a holdout means one share of one kind of unit.

    Raises ExperimentError.

    Of running and paused experiments only: a draft may still wait for its place. The error is of the experiment that
    comes later.
    """
    seen: set[str] = set()
    by_layer: defaultdict[tuple[str, str], list[Experiment]] = defaultdict(list)
    by_holdout: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.name in seen:
            raise ExperimentError("experiment", f"{experiment.name!r} is defined twice")
        seen.add(experiment.name)
        if experiment.state not in LIVE:
            continue
        for other in by_layer[experiment.model, experiment.layer]:
            _refuse_shared_layer(other, experiment)
        by_layer[experiment.model, experiment.layer].append(experiment)
        if experiment.holdout is not None:
            other = by_holdout.setdefault(experiment.holdout.name, experiment)
            _refuse_other_holdout(other, experiment)


def _refuse_shared_layer(one: Experiment, other: Experiment) -> None:
    if one.unit != other.unit:
        raise ExperimentError("layer", f"{one.name!r} and {other.name!r} share layer {one.layer!r} but differ in unit")
    if any(a < d and c < b for a, b in one.slots for c, d in other.slots):
        raise ExperimentError(
            "layer", f"{one.name!r} and {other.name!r} overlap in layer {one.layer!r}: give each its own slots"
        )


def _refuse_other_holdout(one: Experiment, other: Experiment) -> None:
    assert one.holdout is not None
    if one.holdout != other.holdout:
        raise ExperimentError(
            "holdout.bp", f"{one.name!r} holds {one.holdout.bp} bp out as {one.holdout.name!r}: a holdout has one share"
        )
    if one.unit != other.unit:
        raise ExperimentError(
            "holdout", f"{one.name!r} holds out {one.unit}s as {one.holdout.name!r}: a holdout is of one kind of unit"
        )
