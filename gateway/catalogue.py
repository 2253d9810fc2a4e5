"""Brings versions into service: asks a worker for the manifest, the registry for the views, and plans the features."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from contracts.manifest import Manifest, ManifestError, decode_manifest
from experiments import Experiment
from feature_store import CorruptRegistry, FeatureStoreUnavailable, RegisteredView, read_views
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer
from gateway.dispatch.worker_pool import WorkerPool
from gateway.feature_plan import PlanError, plan_features
from gateway.prediction_log.prediction_table import PredictionTable, output_columns
from gateway.routes_file import RoutesFile
from gateway.served_models import PlannedVersion, ServedModel, ServedVersion

LOOK_AGAIN_S: Final = 0.2
"""While some version is not planned yet."""

REFRESH_S: Final = 5.0
"""Once all are: how soon a view that has gained features is read with its new layout."""

MANIFEST_TIMEOUT_S: Final = 2.0

logger = logging.getLogger(__name__)


class NoManifest(Exception):
    """A worker did not give a manifest; the message says why."""


class Catalogue:
    """The served models, and the task that plans their versions and keeps them planned."""

    def __init__(
        self,
        routes: RoutesFile,
        experiments: Mapping[str, tuple[Experiment, ...]],
        redis: Redis,
        clock: Callable[[], float],
    ) -> None:
        self._redis, self._clock = redis, clock
        self._views: dict[str, RegisteredView] = {}
        self._task: asyncio.Task[None] | None = None
        self.models: dict[str, ServedModel] = {}
        for name, route in routes.models.items():
            versions = {
                version: ServedVersion(version, WorkerPool(served.workers))
                for version, served in route.versions.items()
            }
            model = ServedModel(name, route, versions, experiments.get(name, ()))
            model.learn_names()
            self.models[name] = model

    @property
    def ready(self) -> bool:
        """Whether the default version of every model can answer."""
        return all(model.ready for model in self.models.values())

    def start(self) -> None:
        """Connect to the workers and begin to plan."""
        for model in self.models.values():
            for served in model.versions.values():
                served.pool.start()
        self._task = asyncio.create_task(self._keep_planned(), name="catalogue")

    async def close(self) -> None:
        """Stop planning and disconnect from the workers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for model in self.models.values():
            for served in model.versions.values():
                await served.pool.close()

    async def _keep_planned(self) -> None:
        while True:
            changed = await self._read_views()
            for model in self.models.values():
                for served in model.versions.values():
                    if served.planned is None or changed:
                        await self._plan(model, served)
            all_planned = all(s.planned is not None for m in self.models.values() for s in m.versions.values())
            await asyncio.sleep(REFRESH_S if all_planned else LOOK_AGAIN_S)

    async def _read_views(self) -> bool:
        try:
            views = await read_views(self._redis)
        except (FeatureStoreUnavailable, CorruptRegistry) as error:
            # The last good ones stay: a plan does not become wrong because Redis is away.
            logger.warning("the feature registry cannot be read", extra={"reason": str(error)})
            return False
        changed = views != self._views
        self._views = views
        return changed

    async def _plan(self, model: ServedModel, served: ServedVersion) -> None:
        try:
            manifest = (
                served.planned.manifest
                if served.planned
                else await _fetch_manifest(served.pool, model.name, served.version)
            )
            plan = plan_features(manifest, self._views, model.route.on_missing, model.route.request_overrides)
            outputs = output_columns(manifest)
        except (NoManifest, ManifestError, PlanError, ValueError) as error:
            if served.problem != str(error):
                logger.warning(
                    "a version cannot be planned",
                    extra={"model": model.name, "version": served.version, "reason": str(error)},
                )
            served.problem = str(error)
            return
        entities = sorted(plan.entities | ({model.route.unit} if model.route.unit else set()))
        if served.planned is None:
            dispatcher = BatchDispatcher(manifest, served.pool, self._clock)
            served.pool.on_change = dispatcher.wake
        else:
            dispatcher = served.planned.dispatcher
        table = PredictionTable(model.name, served.version, entities, outputs, plan)
        names = tuple(output.name for output in manifest.outputs)
        served.planned = PlannedVersion(served.version, manifest, plan, dispatcher, table, names)
        value = model.route.fallback.value
        if value is not None:
            model.static_outputs = value if isinstance(value, dict) else dict.fromkeys(names, value)
            static = [(name, "FP64") for name in model.static_outputs]
            model.static_table = PredictionTable(model.name, "static", entities, static, None)
        model.learn_names()
        logger.info("a version is in service", extra={"model": model.name, "version": served.version})


async def _fetch_manifest(pool: WorkerPool, model: str, version: str) -> Manifest:
    chosen = pool.pick()
    if chosen is None:
        raise NoManifest("none of its workers can be reached")
    replica, connection = chosen
    answered: asyncio.Future[WorkerAnswer | ConnectionLost] = asyncio.get_running_loop().create_future()
    path = f"/v2/models/{model}/versions/{version}/manifest"
    request = f"GET {path} HTTP/1.1\r\nhost: {replica.host}:{replica.port}\r\n\r\n"
    connection.exchange([request.encode()], lambda answer: None if answered.done() else answered.set_result(answer))
    try:
        async with asyncio.timeout(MANIFEST_TIMEOUT_S):
            answer = await answered
    except TimeoutError:
        connection.abort("no manifest in time")
        raise NoManifest(f"{replica.url}{path}: no answer within {MANIFEST_TIMEOUT_S:g} s") from None
    if isinstance(answer, ConnectionLost):
        raise NoManifest(f"{replica.url}{path}: {answer}")
    if answer.status != 200:
        raise NoManifest(f"{replica.url}{path}: status {answer.status}, {answer.body[:200].decode('utf-8', 'replace')}")
    manifest = decode_manifest(answer.body)
    if (manifest.model, manifest.version) != (model, version):
        raise NoManifest(f"{replica.url}{path}: the manifest is that of {manifest.model}@{manifest.version}")
    return manifest
