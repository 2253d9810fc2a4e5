"""What a request names: entities, features, instances and the unit, checked against what the model knows."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from feature_store import InvalidEntityId, entity_id_bytes
from gateway.errors import InvalidRequest, MissingUnit, TooManyInstances, UnknownEntity, UnknownFeature
from gateway.predict_request import EntityId, PredictRequest
from gateway.served_models import ServedModel

NAME_CHARACTERS_SHOWN: Final = 64
"""Of a caller's own name for something, in an error."""


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


def attributes_of(request: PredictRequest) -> dict[str, Any]:
    """Return what `where` may read: every entity and feature that has one value throughout the request.

    An entity's id is a text, as everywhere: 7 is "7". A null is no value.
    """
    shared = {**_ids(request.entities), **request.features}
    if not request.instances:
        return {name: value for name, value in shared.items() if value is not None}
    first, *others = [{**shared, **_ids(instance.entities), **instance.features} for instance in request.instances]
    return {
        name: value
        for name, value in first.items()
        if value is not None and all(other.get(name) == value for other in others)
    }


def _ids(entities: Mapping[str, EntityId]) -> dict[str, str]:
    return {kind: entity if isinstance(entity, str) else str(entity) for kind, entity in entities.items()}


def _unit_text(unit: EntityId, where: str) -> str:
    text = unit if isinstance(unit, str) else str(unit)
    try:
        entity_id_bytes(text)  # a unit is bounded as an entity's id is, which it mostly is
    except InvalidEntityId as error:
        raise InvalidRequest(str(error), where) from error
    return text


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
