"""Rows for a model: every key of a request read at once, each stored row projected once, the pieces joined."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec

from feature_store import (
    FeatureStatus,
    FeatureStoreUnavailable,
    InvalidEntityId,
    ProjectedRow,
    WrongFeatureValue,
    entity_id_bytes,
)
from gateway.errors import (
    FeaturesMissing,
    InvalidRequest,
    MissingEntity,
    TooManyInstances,
    WrongFeatureType,
)
from gateway.feature_ladder import FeatureLadder
from gateway.feature_plan import FeaturePlan, ViewPlan
from gateway.predict_request import EntityId, Instance, PredictRequest

ROWS_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of one request's rows as a model takes them: what many instances share is there once an instance. A worker takes
twice as much in one body, by default."""


class Snapshot:
    """What one request has read of the store.

    rows: by key, as they were read; None: there was none, or it could not be read. degraded: what to say of them.
    """

    __slots__ = ("degraded", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.degraded: tuple[str, ...] = ()


class ModelRows(msgspec.Struct):
    """The input bytes of all instances of one request, and what was found for each."""

    count: int
    inputs: tuple[bytes, ...]
    """By input: `count` rows of raw elements."""

    found: list[tuple[ProjectedRow, ...]]
    """By instance, by view of the plan. Empty for rows that were sent as tensors."""

    degraded: tuple[str, ...]
    row_shapes: tuple[tuple[int, ...], ...] | None = None
    """By input, where a row's shape is not the declared one: it has dimensions that the caller chooses."""


class FeatureAssembler:
    """Reads and joins feature rows. now_us: UTC microseconds, which ages are told by."""

    __slots__ = ("_fetch", "_ladder", "_now_us", "faults")

    def __init__(self, ladder: FeatureLadder, now_us: Callable[[], int]) -> None:
        self._ladder, self._fetch, self._now_us = ladder, ladder.reader.fetch, now_us
        self.faults: dict[tuple[str, str], int] = {}
        """Rows that were there and could not be used, by view and fault."""

    def rows(
        self, plan: FeaturePlan, request: PredictRequest, snapshot: Snapshot | None = None
    ) -> Awaitable[ModelRows]:
        """Assemble the rows of every instance.

        snapshot: stored rows are taken from it, and those that it has not are read and kept in it.

        Raises, when awaited, MissingEntity, MissingFeature, WrongFeatureType, TooManyInstances (naming the field),
        FeaturesMissing, FeaturesUnavailable.
        """
        instances = request.instances
        if instances is None:
            return self._single(plan, request.entities, request.features, "", snapshot)
        if len(instances) == 1:
            (only,) = instances
            entities = {**request.entities, **only.entities} if request.entities else only.entities
            features = {**request.features, **only.features} if request.features else only.features
            return self._single(plan, entities, features, "instances[0].", snapshot)
        return self._many(plan, request, snapshot)

    async def _single(
        self,
        plan: FeaturePlan,
        entities: Mapping[str, EntityId],
        features: Mapping[str, Any],
        where: str,
        snapshot: Snapshot | None,
    ) -> ModelRows:
        views = plan.views
        keys = [view.key_prefix + entity_key(entities, view.entity, where + "entities") for view in views]
        request_pieces = plan.request_pieces(features, where + "features") if plan.request_runs else ()
        overrides = _overrides(plan, features) if plan.overridable else None
        degraded: tuple[str, ...] = ()
        try:
            if snapshot is not None:
                raw, degraded = await self._once(snapshot, plan, keys, views)
            elif plan.near_cached:
                raw, degraded = await self._ladder.recall(keys, views)
            else:
                raw = await self._fetch(keys) if keys else []
        except FeatureStoreUnavailable as error:
            raw, degraded = self._ladder.unread(keys, views, error)
        now_us = self._now_us()
        found, pieces = [], []
        for i, view in enumerate(views):
            row = _project(view, raw[i], now_us, overrides.get(i) if overrides else None, where + "features")
            found.append(row)
            pieces.append(row.pieces)
            if row.status:
                degraded = self._degraded(view, row, degraded)
        pieces.append(request_pieces)
        inputs = []
        for plan_input in plan.inputs:
            if len(plan_input.order) == 1:
                ((source, run),) = plan_input.order
                inputs.append(pieces[source][run])
            else:
                inputs.append(b"".join([pieces[source][run] for source, run in plan_input.order]))
        return ModelRows(1, tuple(inputs), [tuple(found)], degraded)

    async def _many(self, plan: FeaturePlan, request: PredictRequest, snapshot: Snapshot | None) -> ModelRows:
        # Column by column: what is done once an instance is a look-up, however many views there are.
        views, instances = plan.views, request.instances or []
        keys_by_view = [_keys(view, request.entities, instances) for view in views]
        features = _features(plan, request.features, instances)
        request_pieces = [plan.request_pieces(values, _where(i)) for i, values in enumerate(features)]
        keys = list(dict.fromkeys(chain.from_iterable(keys_by_view)))  # each is read once
        degraded: tuple[str, ...] = ()
        try:
            if snapshot is not None:
                raw, degraded = await self._once(snapshot, plan, keys, _owners(views, keys_by_view))
            elif plan.near_cached:
                raw, degraded = await self._ladder.recall(keys, _owners(views, keys_by_view))
            else:
                raw = await self._fetch(keys) if keys else []
        except FeatureStoreUnavailable as error:
            raw, degraded = self._ladder.unread(keys, _owners(views, keys_by_view), error)
        now_us, row_at = self._now_us(), dict(zip(keys, raw, strict=True))
        overrides = [_overrides(plan, values) for values in features] if plan.overridable else []
        by_view: list[list[ProjectedRow]] = []
        for v, (view, keys_of_view) in enumerate(zip(views, keys_by_view, strict=True)):
            own = {i: given[v] for i, given in enumerate(overrides) if v in given}
            rows, distinct = _rows_of_view(view, keys_of_view, row_at, own, now_us)
            by_view.append(rows)
            for row in distinct:
                if row.status:
                    degraded = self._degraded(view, row, degraded)
        pieces = [[row.pieces for row in rows] for rows in by_view]
        pieces.append(request_pieces)
        inputs, bytes_left = [], ROWS_BYTES_MAX
        for plan_input in plan.inputs:
            runs = [[of_row[run] for of_row in pieces[source]] for source, run in plan_input.order]
            bytes_left -= sum([sum(map(len, run)) for run in runs])
            if bytes_left < 0:
                raise TooManyInstances(
                    f"the rows of {len(instances)} instances take more than {ROWS_BYTES_MAX} bytes", "instances"
                )
            inputs.append(b"".join(runs[0] if len(runs) == 1 else chain.from_iterable(zip(*runs, strict=True))))
        found: list[tuple[ProjectedRow, ...]] = [()] * len(instances)
        if by_view:
            found = list(zip(*by_view, strict=True))
        return ModelRows(len(instances), tuple(inputs), found, degraded)

    async def _once(
        self, snapshot: Snapshot, plan: FeaturePlan, keys: Sequence[bytes], owners: Sequence[ViewPlan]
    ) -> tuple[list[bytes | None], tuple[str, ...]]:
        """Read what the snapshot has not, and keep it. What cannot be read counts as not there from then on."""
        wanted = [i for i, key in enumerate(keys) if key not in snapshot.rows]
        missing, views = [keys[i] for i in wanted], [owners[i] for i in wanted]
        if missing:
            degraded: tuple[str, ...] = ()
            try:
                if plan.near_cached:
                    raw, degraded = await self._ladder.recall(missing, views)
                else:
                    raw = await self._fetch(missing)
            except FeatureStoreUnavailable as error:
                raw, degraded = self._ladder.unread(missing, views, error)
            snapshot.rows.update(zip(missing, raw, strict=True))
            snapshot.degraded = tuple(dict.fromkeys((*snapshot.degraded, *degraded)))
        # Said again of each version that is fed it; not of one that does not read the view.
        said = snapshot.degraded and {view.degraded_by_status[FeatureStatus.STALE] for view in owners}
        return [snapshot.rows[key] for key in keys], tuple(name for name in snapshot.degraded if name in said)

    def _degraded(self, view: ViewPlan, row: ProjectedRow, so_far: tuple[str, ...]) -> tuple[str, ...]:
        if row.fault is not None:
            self.faults[view.name, row.fault] = self.faults.get((view.name, row.fault), 0) + 1
        name = view.degraded_by_status[row.status]
        return so_far if not name or name in so_far else (*so_far, name)


def entity_key(entities: Mapping[str, EntityId], kind: str, where: str) -> bytes:
    """Return an entity's id as bytes. Raises MissingEntity or InvalidRequest, which name the field."""
    entity = entities.get(kind)
    if entity is None:
        raise MissingEntity(f"the model's features need the entity {kind!r}", f"{where}.{kind}")
    try:
        return entity_id_bytes(entity if isinstance(entity, str) else str(entity))
    except InvalidEntityId as error:
        raise InvalidRequest(str(error), f"{where}.{kind}") from error


def _where(instance: int) -> str:
    return f"instances[{instance}].features"


def _keys(view: ViewPlan, shared: Mapping[str, EntityId], instances: Sequence[Instance]) -> list[bytes]:
    """Name the row of each instance: its own entity's, or the one that all share."""
    kind, prefix = view.entity, view.key_prefix
    if kind in shared and not any(kind in instance.entities for instance in instances):
        return [prefix + entity_key(shared, kind, "entities")] * len(instances)
    keys = []
    for i, instance in enumerate(instances):
        entity = instance.entities.get(kind)
        if isinstance(entity, str):
            try:
                keys.append(prefix + entity_id_bytes(entity))
                continue
            except InvalidEntityId:
                pass  # said below, with its place
        entities = shared if entity is None else instance.entities
        keys.append(prefix + entity_key(entities, kind, f"instances[{i}].entities"))
    return keys


def _owners(views: Sequence[ViewPlan], keys_by_view: Sequence[Sequence[bytes]]) -> list[ViewPlan]:
    """Name the view of each distinct key, in the order in which the keys are read."""
    return list({key: view for view, keys in zip(views, keys_by_view, strict=True) for key in keys}.values())


def _features(
    plan: FeaturePlan, shared: Mapping[str, Any], instances: Sequence[Instance]
) -> Sequence[Mapping[str, Any]]:
    """Join the features that each instance brings with the shared ones; none where the plan reads none."""
    if not plan.request_runs and not plan.overridable:
        return ()
    return [{**shared, **instance.features} if instance.features else shared for instance in instances]


def _project(
    view: ViewPlan, raw: bytes | None, now_us: int, overrides: Mapping[str, Any] | None, where: str
) -> ProjectedRow:
    if overrides is None:
        row = view.projection.project(raw, now_us)
    else:
        try:
            row = view.projection.project_with(raw, now_us, overrides)
        except WrongFeatureValue as error:
            raise WrongFeatureType(str(error), f"{where}.{view.name}:{error.feature}") from error
    if view.fail_when_missing and row.status is FeatureStatus.MISSING:
        raise FeaturesMissing(f"view {view.name!r} has no row for this {view.entity}", f"entities.{view.entity}")
    return row


def _rows_of_view(
    view: ViewPlan,
    keys: list[bytes],
    row_at: Mapping[bytes, bytes | None],
    overrides: Mapping[int, Mapping[str, Any]],
    now_us: int,
) -> tuple[list[ProjectedRow], list[ProjectedRow]]:
    """Project the row of each instance. A stored one is projected once, however many share it.

    overrides: by instance, values of the request. Returns the rows by instance, and those that were projected.
    """
    stored = [key for i, key in enumerate(keys) if i not in overrides] if overrides else keys
    shared = {key: _project(view, row_at[key], now_us, None, "") for key in dict.fromkeys(stored)}
    if not overrides:
        return [shared[key] for key in keys], list(shared.values())
    own = {i: _project(view, row_at[keys[i]], now_us, given, _where(i)) for i, given in overrides.items()}
    rows = [own[i] if i in own else shared[key] for i, key in enumerate(keys)]
    return rows, [*shared.values(), *own.values()]


def _overrides(plan: FeaturePlan, features: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    by_view: dict[int, dict[str, Any]] = {}
    for reference, (view, feature) in plan.overridable.items():
        if reference in features:
            by_view.setdefault(view, {})[feature] = features[reference]
    return by_view
