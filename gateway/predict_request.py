"""The predict request and answer, as they stand on the wire."""

from typing import Annotated, Any

import msgspec

EntityId = str | Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""An entity's id. A number is the same id as its decimal text."""


class Instance(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What one scored row adds to, or replaces in, the shared part."""

    entities: dict[str, EntityId] = {}
    features: dict[str, Any] = {}


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`entities` and `features` are shared by all instances; without `instances` they are the one instance."""

    instances: list[Instance] | None = None
    entities: dict[str, EntityId] = {}
    features: dict[str, Any] = {}
    unit: EntityId | None = None


class PredictAnswer(msgspec.Struct, gc=False):
    """`predictions[i]` answers instance i; `degraded` names every fallback that was taken."""

    predictions: list[Any]
    model: str
    version: str
    variant: str | None
    experiment: str | None
    prediction_id: str
    degraded: list[str]
