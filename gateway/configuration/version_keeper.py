"""One version from its route to its end: its workers followed, its signature learned, its features planned."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from contracts.manifest import ManifestError
from gateway.background_task import in_background
from gateway.configuration.discovery import Discovery, Resolve
from gateway.configuration.last_good import StateDirectory, ignored
from gateway.configuration.registered_views import RegisteredViews
from gateway.configuration.signature_file import SignatureFileError, decode_signature, encode_signature, signature_file
from gateway.configuration.worker_description import NotDescribed, describe
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.worker_address import WorkerAddress
from gateway.dispatch.worker_pool import WorkerPool
from gateway.feature_plan import FeaturePlan, PlanError, plan_features
from gateway.model_signature import ModelSignature, takes_features
from gateway.prediction_log.prediction_table import PredictionTable, logged_columns
from gateway.routes_file import ModelRoute, VersionRoute
from gateway.served_models import PlannedVersion, ServedVersion

LOOK_AGAIN_S: Final = 0.2
"""While the worker has not said what it serves, or not again since the signature was read from disk."""

START_PATIENCE_S: Final = 1.0
"""How long a worker may take to say what it serves before its last good signature stands in."""

DESCRIBED_AT_ONCE_MAX: Final = 64
"""Versions whose workers are asked at the same time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTarget:
    """Everything that a version's plan follows from. What differs in any of it is planned anew, and beside."""

    model: str
    version: str
    route: VersionRoute
    unit: str | None
    on_missing: tuple[tuple[str, str], ...]
    request_overrides: tuple[str, ...]


def target_of(model: str, version: str, route: ModelRoute) -> VersionTarget:
    """Say what one version of a route is planned by."""
    return VersionTarget(
        model=model,
        version=version,
        route=route.versions[version],
        unit=route.unit,
        on_missing=tuple(sorted(route.on_missing.items())),
        request_overrides=route.request_overrides,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSurroundings:
    """What all versions share. clock: seconds, the one that deadlines are told by."""

    views: RegisteredViews
    state: StateDirectory
    resolve: Resolve
    random: Random
    clock: Callable[[], float]
    describing: asyncio.Semaphore
    tls: ssl.SSLContext | None = None


class VersionKeeper:
    """Brings one version into service and keeps it there. on_planned: called when its plan is another one."""

    def __init__(self, target: VersionTarget, around: VersionSurroundings, on_planned: Callable[[], None]) -> None:
        self.target, self._around, self._on_planned = target, around, on_planned
        self._discovery = Discovery(target.route.workers, around.resolve, self._follow, around.random)
        pool = WorkerPool(self._discovery.addresses, around.clock, tls=around.tls)
        self.served = ServedVersion(target.version, pool)
        self._signature: ModelSignature | None = None
        self._looked_on_disk = False
        self._views_changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.started_at_s = around.clock()

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return self.served.ready

    def start(self) -> None:
        """Begin to connect, to ask and to plan."""
        self._discovery.start()
        self.served.pool.start()
        self._task = in_background(self._keep(), f"version {self.target.model}@{self.target.version}")

    def replan(self) -> None:
        """Plan again: the views are others."""
        self._views_changed.set()

    async def stop_learning(self) -> None:
        """End everything but the answering of what is in flight."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._discovery.close()

    async def close(self) -> None:
        """End everything."""
        await self.stop_learning()
        await self.served.pool.close()

    def _follow(self, addresses: Sequence[WorkerAddress]) -> None:
        self.served.pool.update(addresses)

    async def _keep(self) -> None:
        while True:
            learned = await self._learn()
            if learned or self._views_changed.is_set() or self.served.planned is None:
                self._views_changed.clear()
                await self._plan()
            if self._signature is not None and not self.served.from_disk:
                await self._views_changed.wait()
            else:
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _learn(self) -> bool:
        """Ask the worker, unless it has said. Returns whether the signature is another one than before."""
        if self._signature is not None and not self.served.from_disk:
            return False
        target = self.target
        try:
            async with self._around.describing:
                signature = await describe(self.served.pool, target.model, target.version, target.route)
        except (NotDescribed, ManifestError) as error:
            if self._signature is None:
                self._tell(str(error))
                return await self._take_from_disk()
            return False
        changed = signature != self._signature
        self._signature, self.served.from_disk = signature, False
        data = encode_signature(signature, target.route)
        await self._around.state.keep(signature_file(target.model, target.version), data)
        return changed

    async def _take_from_disk(self) -> bool:
        if self._looked_on_disk or self._around.clock() - self.started_at_s < START_PATIENCE_S:
            return False
        self._looked_on_disk = True
        target, state = self.target, self._around.state
        name = signature_file(target.model, target.version)
        stored = await asyncio.to_thread(state.read, name)
        if stored is None:
            return False
        try:
            self._signature = decode_signature(stored.data, target.model, target.version, target.route)
        except SignatureFileError as error:
            ignored(state.path_of(name), str(error))
            return False
        self.served.from_disk = True
        logger.warning(
            "a signature is taken from the last good one on disk", extra=self._labels(age_s=int(stored.age_s))
        )
        return True

    async def _plan(self) -> None:
        signature, served = self._signature, self.served
        if signature is None:
            return
        try:
            plan = await asyncio.to_thread(self._features, signature) if takes_features(signature.inputs) else None
        except (PlanError, ManifestError) as error:
            self._tell(str(error))
            return
        entities = sorted(({self.target.unit} if self.target.unit else set()) | (plan.entities if plan else set()))
        dispatcher = self._dispatcher(signature)
        columns = logged_columns(signature.inputs, signature.outputs, plan)
        table = PredictionTable(self.target.model, self.target.version, entities, columns)
        names = tuple(output.name for output in signature.outputs)
        # In one assignment, when all of it is there: a request sees the plan before or this one.
        served.planned = PlannedVersion(self.target.version, signature, plan, dispatcher, table, names)
        served.problem = ""
        logger.info("a version is in service", extra=self._labels(from_disk=served.from_disk))
        self._on_planned()

    def _features(self, signature: ModelSignature) -> FeaturePlan:
        target, views = self.target, self._around.views.views
        return plan_features(signature.inputs, views, dict(target.on_missing), target.request_overrides)

    def _dispatcher(self, signature: ModelSignature) -> BatchDispatcher:
        pool, planned = self.served.pool, self.served.planned
        if planned is not None and planned.signature == signature:
            return planned.dispatcher
        dispatcher = BatchDispatcher(signature, pool, self._around.clock)
        pool.on_change = dispatcher.wake
        if planned is not None:
            # The worker says something else than the file did: what waits under the old signature is still answered.
            pool.on_change = _both(planned.dispatcher.wake, dispatcher.wake)
        pool.check_readiness(f"{signature.path}/ready")
        return dispatcher

    def _tell(self, problem: str) -> None:
        if self.served.problem != problem:
            self.served.problem = problem
            logger.warning("a version cannot be planned", extra=self._labels(reason=problem))

    def _labels(self, **more: object) -> dict[str, object]:
        return {"model": self.target.model, "version": self.target.version, **more}


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        one()
        other()

    return call
