"""Brings versions into service: learns their signatures, asks the registry for the views, and plans the features."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from contracts.manifest import ManifestError
from experiments import Experiment
from feature_store import CorruptRegistry, FeatureStoreUnavailable, RegisteredView, read_views
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.worker_pool import WorkerPool
from gateway.feature_plan import FeaturePlan, PlanError, plan_features
from gateway.model_signature import ModelSignature, takes_features
from gateway.prediction_log.prediction_table import LoggedColumns, PredictionTable, logged_columns
from gateway.routes_file import RoutesFile
from gateway.served_models import PlannedVersion, ServedModel, ServedVersion
from gateway.worker_description import NotDescribed, describe

LOOK_AGAIN_S: Final = 0.2
"""While some version is not planned yet."""

REFRESH_S: Final = 5.0
"""Once all are: how soon a view that has gained features is read with its new layout."""

STATIC_DATATYPE: Final = "FP64"
"""Of a static score's values."""

logger = logging.getLogger(__name__)


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
            route = model.route.versions[served.version]
            signature = (
                served.planned.signature
                if served.planned
                else await describe(served.pool, model.name, served.version, route)
            )
            plan = self._features(model, signature)
        except (NotDescribed, ManifestError, PlanError) as error:
            if served.problem != str(error):
                logger.warning(
                    "a version cannot be planned",
                    extra={"model": model.name, "version": served.version, "reason": str(error)},
                )
            served.problem = str(error)
            return
        unit = {model.route.unit} if model.route.unit else set()
        entities = sorted(unit | (plan.entities if plan else set()))
        if served.planned is None:
            dispatcher = BatchDispatcher(signature, served.pool, self._clock)
            served.pool.on_change = dispatcher.wake
        else:
            dispatcher = served.planned.dispatcher
        columns = logged_columns(signature.inputs, signature.outputs, plan)
        table = PredictionTable(model.name, served.version, entities, columns)
        names = tuple(output.name for output in signature.outputs)
        served.planned = PlannedVersion(served.version, signature, plan, dispatcher, table, names)
        value = model.route.fallback.value
        if value is not None:
            model.static_outputs = value if isinstance(value, dict) else dict.fromkeys(names, value)
            static = LoggedColumns((), (), tuple(((name, STATIC_DATATYPE),) for name in model.static_outputs))
            model.static_table = PredictionTable(model.name, "static", entities, static)
        model.learn_names()
        logger.info("a version is in service", extra={"model": model.name, "version": served.version})

    def _features(self, model: ServedModel, signature: ModelSignature) -> FeaturePlan | None:
        if not takes_features(signature.inputs):
            return None
        return plan_features(signature.inputs, self._views, model.route.on_missing, model.route.request_overrides)
