"""The data path: admit, assign, fetch and score, log, answer."""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Final

import msgspec

from experiments import UNASSIGNED, Assignment, Reason, State, assign
from feature_store import InvalidEntityId, entity_id_bytes
from gateway.admission import PATIENCE_BY_PRIORITY, Admission, Priority
from gateway.deadline_watch import DeadlineWatch
from gateway.errors import (
    DeadlineExceeded,
    ForcedVariantRefused,
    InvalidRequest,
    MissingUnit,
    TooManyInstances,
    UnknownEntity,
    UnknownFeature,
    UnknownVariant,
)
from gateway.metrics import GatewayMetrics
from gateway.predict_request import EntityId, PredictRequest
from gateway.prediction_log.log_writer import LogWriter, entry_bytes
from gateway.prediction_log.prediction_table import PredictionEntry
from gateway.row_sources import RowSource
from gateway.scoring_ladder import Scored, ScoringLadder
from gateway.served_models import ServedModel

CHOSEN_BY_CALLER: Final = Assignment(None, None, Reason.FORCED)

NAME_CHARACTERS_SHOWN: Final = 64
"""Of a caller's own name for something, in an error."""


# msgspec.Structs although they stay in process: a dataclass of ten fields takes 0.7 µs to make, these 0.2.
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


class Prediction(msgspec.Struct):
    """One answer, and the time that its stages took."""

    prediction_id: str
    scored: Scored
    assignment: Assignment
    variant_served: str | None
    predictions: list[Any]
    degraded: list[str]
    features_us: int
    total_us: int


class Predictor:
    """Answers predict calls."""

    def __init__(
        self,
        admission: Admission,
        ladder: ScoringLadder,
        log: LogWriter,
        metrics: GatewayMetrics,
        new_id: Callable[[], str],
        now_us: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._admission, self._ladder, self._log, self._metrics = admission, ladder, log, metrics
        self._new_id, self._now_us, self._clock = new_id, now_us, clock
        self._deadlines = DeadlineWatch(clock)

    def check_room(self, model: ServedModel, priority: Priority) -> None:
        """Refuse a request that would not be admitted, before what it brings is read. Raises Overloaded."""
        self._admission.of(model.name, model.route.deadline_ms).check(priority)

    async def predict(self, call: Call) -> Prediction:
        """Score every instance of one request. Raises a GatewayError of the request, the workers or the deadline."""
        place = self._admission.of(call.model.name, call.model.route.deadline_ms)
        place.admit(call.priority)
        waited_s: float | None = None  # what is refused says nothing of how long answers take
        try:
            check_names(call.model, call.request)
            unit = unit_of(call.model, call.request, optional=call.unit_optional)
            assignment = draw(call, unit)
            drawn = assignment.variant.version if assignment.variant else call.model.route.default_version
            expires_at = call.received_at + call.budget_ms / 1000
            if expires_at <= self._clock():
                raise DeadlineExceeded("the request was read", call.budget_ms)
            watched = self._deadlines.enter(expires_at)
            try:
                scored = await self._ladder.score(
                    call.model,
                    call.version or drawn,
                    call.source,
                    expires_at,
                    call.budget_ms * PATIENCE_BY_PRIORITY[call.priority] / 1000,
                    exactly=call.version is not None,
                )
                waited_s = self._clock() - call.received_at
            finally:
                if self._deadlines.leave(watched):
                    waited_s = self._clock() - call.received_at
                    raise DeadlineExceeded("features were read and rows scored", call.budget_ms) from None
        finally:
            place.release(waited_s)
        return self._answered(call, unit, assignment, scored)

    def _answered(self, call: Call, unit: str | None, assignment: Assignment, scored: Scored) -> Prediction:
        total_us = int((self._clock() - call.received_at) * 1e6)
        features_us = max(0, total_us - scored.queue_us - scored.infer_us)
        # The arm served only where its own version answered: a fallback is an outcome of the arm, not the arm.
        stepped_down = scored.error_code is not None
        served = None if stepped_down or assignment.variant is None else assignment.variant.name
        predictions, degraded = values_for_clients(scored)
        prediction = Prediction(
            self._new_id(), scored, assignment, served, predictions, degraded, features_us, total_us
        )
        table = scored.planned.table if scored.planned else call.model.static_table
        if table is not None:
            rows = scored.rows
            inputs = rows.inputs if rows else ()
            entry = PredictionEntry(
                self._now_us(),
                prediction.prediction_id,
                call.request_id,
                call.request,
                unit,
                assignment,
                served,
                call.source.count,
                inputs,
                rows.found if rows else [],
                scored.outputs,
                tuple(degraded),
                scored.error_code,
                features_us,
                scored.queue_us,
                scored.infer_us,
                total_us,
            )
            self._log.offer(table, entry, entry_bytes(inputs, call.body_bytes))
        self._metrics.answered(
            call.model.name,
            (scored.planned.version if scored.planned else "static", served or ""),
            call.source.count,
            degraded,
            (features_us, scored.queue_us, scored.infer_us),
        )
        return prediction


def check_names(model: ServedModel, request: PredictRequest) -> None:
    """Refuse entities and features that no version of the model knows, and too many instances, naming the field.

    While some version is not planned, nobody can say what it knows: names are then let pass.
    """
    if model.names_are_known:
        _check_names(model, request.entities, request.features, "")
    if request.instances is None:
        return
    if not request.instances:
        raise InvalidRequest("give 1 instance or more, or leave `instances` out", "instances")
    if len(request.instances) > model.route.limits.instances_max:
        raise TooManyInstances(
            f"{len(request.instances)} instances; the route takes at most {model.route.limits.instances_max}",
            "instances",
        )
    if model.names_are_known:
        for i, instance in enumerate(request.instances):
            _check_names(model, instance.entities, instance.features, f"instances[{i}].")


def unit_of(model: ServedModel, request: PredictRequest, *, optional: bool = False) -> str | None:
    """Find the randomisation unit: the request's own, else the entity that the route names.

    Raises MissingUnit, unless it is optional for this request or on this route.
    """
    if request.unit is not None:
        return _unit_text(request.unit, "unit")
    kind = model.route.unit
    if kind is None:
        return None
    shared = request.entities.get(kind)
    if request.instances is None or len(request.instances) == 1:
        unit = shared if request.instances is None else request.instances[0].entities.get(kind, shared)
        if unit is not None:
            return _unit_text(unit, f"entities.{kind}")
    units = {instance.entities.get(kind, shared) for instance in request.instances or ()}
    found = {str(unit) for unit in units if unit is not None}  # a number is the same unit as its digits
    if len(found) == 1:
        return _unit_text(found.pop(), f"entities.{kind}")
    if found:
        raise MissingUnit(
            f"the instances name several {kind}s, and a request has one unit: give `unit`, or send one request each",
            "unit",
        )
    if optional or model.route.allow_missing_unit:
        return None
    raise MissingUnit(f"give `unit`, or the entity {kind!r}: the model's versions are split by it", "unit")


def is_split(model: ServedModel) -> bool:
    """Whether some experiment on the model is running."""
    return any(experiment.state is State.RUNNING for experiment in model.experiments)


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


def attributes_of(request: PredictRequest) -> dict[str, Any]:
    """Return what `where` may read: every entity and feature that has one value throughout the request."""
    shared = {**request.entities, **request.features}
    if not request.instances:
        return shared
    first, *others = [{**shared, **instance.entities, **instance.features} for instance in request.instances]
    return {name: value for name, value in first.items() if all(o.get(name) == value for o in others)}


def values_for_clients(scored: Scored) -> tuple[list[Any], list[str]]:
    """Shape scores as clients know them: a value an instance, or an object by output name where there are several.

    A NaN or an infinity, which JSON cannot say, becomes null and is named in the second result.
    """
    degraded = list(scored.degraded)
    outputs, names = scored.outputs, scored.names
    if not scored.finite:
        cleaned = []
        for name, values in zip(names, outputs, strict=True):
            finite = [_finite(value) for value in values]
            if finite != values:
                degraded.append(f"score_not_finite:{name}")
            cleaned.append(finite)
        outputs = cleaned
    if len(outputs) == 1:
        return outputs[0], degraded
    return [dict(zip(names, row, strict=True)) for row in zip(*outputs, strict=True)], degraded


def _unit_text(unit: EntityId, where: str) -> str:
    text = unit if isinstance(unit, str) else str(unit)
    try:
        entity_id_bytes(text)  # a unit is bounded as an entity's id is, which it mostly is
    except InvalidEntityId as error:
        raise InvalidRequest(str(error), where) from error
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value


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


def _check_names(model: ServedModel, entities: Iterable[str], features: Iterable[str], where: str) -> None:
    for kind in entities:
        if kind not in model.entities:
            shown, known = kind[:NAME_CHARACTERS_SHOWN], ", ".join(sorted(model.entities)) or "none"
            raise UnknownEntity(
                f"the model does not use the entity {shown!r}; it knows: {known}", f"{where}entities.{shown}"
            )
    for name in features:
        if name not in model.request_features:
            shown, known = name[:NAME_CHARACTERS_SHOWN], ", ".join(sorted(model.request_features)) or "none"
            raise UnknownFeature(
                f"the model takes no feature {shown!r} from a request; it takes: {known}", f"{where}features.{shown}"
            )
