"""Which variant answers one call: drawn by its unit, forced by its caller, or none."""

from typing import Final

import msgspec

from experiments import UNASSIGNED, Assignment, Reason, State, assign
from gateway.admission import Priority
from gateway.errors import ForcedVariantRefused, UnknownVariant
from gateway.predict_request import PredictRequest
from gateway.request_names import attributes_of
from gateway.row_sources import RowSource
from gateway.served_models import ServedModel

CHOSEN_BY_CALLER: Final = Assignment(None, None, Reason.FORCED)


# A msgspec.Struct although it stays in process: a dataclass of ten fields takes 0.7 µs to make, this 0.2.
class Call(msgspec.Struct):
    """One request with what its headers say. Times are of the monotonic clock, in seconds."""

    model: ServedModel
    request: PredictRequest
    """What it says of unit, entities and features; of tensors, no more than the unit."""

    source: RowSource
    request_id: str
    priority: Priority
    forced_variant: str | None
    received_at: float
    budget_ms: float
    body_bytes: int
    """Of JSON that was decoded into `request`."""

    version: str | None = None
    """The version that the caller names, instead of a draw."""

    unit_optional: bool = False
    """Whether it may name no unit, though the route names one: nothing is drawn."""


def draw(call: Call, unit: str | None) -> Assignment:
    """Draw the variant, or take what the caller forces. Raises ForcedVariantRefused or UnknownVariant."""
    model, request = call.model, call.request
    if call.version is not None:
        return _named_version(model)
    if call.forced_variant is not None:
        return _forced(model, call.forced_variant)
    if not model.experiments:
        return UNASSIGNED
    return assign(model.experiments, unit, attributes_of(request) if model.is_targeted else {})


def is_split(model: ServedModel) -> bool:
    """Whether some experiment on the model is running."""
    return any(experiment.state is State.RUNNING for experiment in model.experiments)


def _named_version(model: ServedModel) -> Assignment:
    # Beside a running experiment it is a forced variant by another name.
    if is_split(model) and not model.route.allow_forced_variant:
        raise ForcedVariantRefused(
            "the model is split by an experiment, and its route does not let callers choose a version", "version"
        )
    return CHOSEN_BY_CALLER


def _forced(model: ServedModel, name: str) -> Assignment:
    if not model.route.allow_forced_variant:
        raise ForcedVariantRefused("the model's route does not let callers choose a variant", "x-sekisho-variant")
    running = [experiment for experiment in model.experiments if experiment.state is State.RUNNING]
    for experiment in running:
        variant = experiment.variant_named(name)
        if variant is not None:
            return Assignment(experiment, variant, Reason.FORCED)
    known = ", ".join(variant.name for experiment in running for variant in experiment.variants) or "none"
    raise UnknownVariant(f"{name!r} is no variant of a running experiment; there are: {known}", "x-sekisho-variant")
