"""The composition root: the one place that knows every concrete class and the order in which they start and stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from feature_store import NearCache, OnlineReader, RedisClient, open_connection, open_redis, read_views
from gateway.access.guards import Guards, guards_of, warn_of_open_ports
from gateway.admission import TICK_S, Admission
from gateway.arm_counts import ArmCounter
from gateway.clock import monotonic, wall_s, wall_us
from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration import Configuration, ConfigurationFiles
from gateway.configuration.configuration_report import ConfigurationReport
from gateway.configuration.discovery import system_resolve
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.configuration.registered_views import RegisteredViews
from gateway.configuration.version_changes import VersionChanges
from gateway.configuration.version_keeper import DESCRIBED_AT_ONCE_MAX, VersionSurroundings
from gateway.dispatch_metrics import DispatchCollector
from gateway.edge.admin_access import guarded
from gateway.edge.admin_port import LIMITS as ADMIN_LIMITS
from gateway.edge.admin_port import AdminPort
from gateway.edge.control_api import admin_api, data_api
from gateway.edge.data_port import DataPort
from gateway.edge.inference_route import InferenceRoute
from gateway.edge.outcomes_route import OutcomesRoute
from gateway.edge.predict_route import PredictRoute
from gateway.edge.supervisor_api import supervisor_api
from gateway.experimentation.served_experiments import ServedExperiments
from gateway.experimentation.stored_experiments import stored_experiments
from gateway.feature_ladder import FeatureLadder, read_timeout_s
from gateway.feature_metrics import FeatureCollector
from gateway.feature_rows import FeatureAssembler
from gateway.identifiers import uuid7_maker
from gateway.merged_metrics import MergedMetrics
from gateway.metrics import GatewayMetrics, StateCollector
from gateway.predict import Predictor
from gateway.prediction_log.log_writer import LogCounts, LogWriter
from gateway.prediction_log.parquet_spool import FileNames
from gateway.scoring_ladder import ScoringLadder
from gateway.settings import Settings
from gateway.shadow_scoring import ShadowScorer
from gateway.supervisor import Supervisor
from http_server.server import HttpServer, Limits
from settings.followed_files import follow
from settings.ports import listen, listen_unix
from settings.release import release

KEEP_ALIVE_S: Final = 75
"""Longer than the usual client's or load balancer's 60 s, so that it is they who close an idle connection."""

ADMIN_ANSWER_S: Final = 5
"""How long the admin port's last answers may take to write."""

DRAIN_TIMEOUT_S: Final = 15
"""How long a request in flight may hold the stop up; far above any model's deadline. The log is closed after it."""

SWITCH_INTERVAL_S: Final = 0.000_5
"""How long the log's thread may keep the event loop waiting for the interpreter; Python's own 5 ms is a request's whole
time."""

GC_THRESHOLD: Final = 100_000
"""Allocations between two collections of the youngest generation, once everything made at start-up is frozen."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain: not ready, serve on, stop accepting, finish, write the log out.

    Raises ConfigurationError, PortTaken, or OSError where the log's directory cannot be made.
    """
    redis = open_redis(settings.redis)
    state = StateDirectory(settings.state_dir, wall_us)
    files = ConfigurationFiles(settings.config, settings.experiments, state)
    # The operator's own start is refused where a file is wrong; a process that takes a dead one's place serves on.
    first = files.read() if settings.process_socket is None else files.read_or_last_good()
    sockets = [
        listen(settings.host, settings.port, "--port", shared=settings.process_socket is not None),
        listen_unix(settings.process_socket)
        if settings.process_socket is not None
        else listen(settings.admin_host, settings.admin_port, "--admin-port"),
    ]
    registry = process_registry()
    metrics, arms = GatewayMetrics(registry), ArmCounter(monotonic)
    guards = guards_of(settings, settings.processes, metrics.key_requests.add)
    names = file_names()
    log = LogWriter(settings.log_dir, names, settings.log_file_seconds, wall_us)
    log.start()
    reader, features = feature_reading(settings, registry)
    catalogue, configuration, report = live_configuration(first, files, state, redis, guards.worker_tls)
    experiments = ServedExperiments(
        configuration,
        stored_experiments(redis, state, f"{names.host}-{names.boot}", configuration, arms, monotonic, wall_us)
        if settings.experiments is None
        else None,
    )
    admission = Admission(settings.requests_in_flight_max)
    state_metrics = StateCollector(catalogue.models, admission, log)
    for collector in (report, experiments, state_metrics, DispatchCollector(catalogue.models, monotonic)):
        registry.register(collector)
    new_id = uuid7_maker(wall_us, Random(os.urandom(32)))  # noqa: S311 - see identifiers.py
    shadows = ShadowScorer(log, metrics, wall_us, monotonic)
    predictor = Predictor(admission, ScoringLadder(), log, metrics, arms, shadows, new_id, wall_us, monotonic)
    predict = PredictRoute(catalogue.models, predictor, features, metrics, new_id, monotonic, guards.gate)
    inference = InferenceRoute(catalogue.models, predictor, metrics, new_id, monotonic, release(), guards.gate)
    outcomes = OutcomesRoute(log, metrics, new_id, wall_us, guards.gate)
    rest = data_api(catalogue, new_id, experiments.register, guards.gate)
    port = DataPort(catalogue.models, predict, inference, outcomes, rest, metrics, new_id)
    catalogue.on_change = port.follow_models
    data = HttpServer(port, Limits(keep_alive_s=KEEP_ALIVE_S), wall_s)
    # One of several processes is asked by its supervisor alone, who has looked at the key.
    own_port = settings.process_socket is None
    admin_app = admin_api(
        catalogue,
        admission,
        log,
        metrics,
        registry,
        lambda: data.draining,
        new_id,
        report,
        VersionChanges(configuration, catalogue),
        experiments,
        guards.files,
    )
    admin = HttpServer(
        AdminPort(guarded(admin_app, guards.gate if own_port else None, new_id), new_id), ADMIN_LIMITS, wall_s
    )
    stop = _stop_signal()

    await reader.start()
    configuration.start()
    await experiments.start()
    await data.listen(sockets[0], guards.tls)
    await admin.listen(sockets[1], guards.tls if own_port else None)
    chores = [
        asyncio.create_task(chore)
        for chore in (
            _fold(metrics, guards),
            follow(guards.files),
            _follow_latencies(admission),
            _follow_deadlines(reader, catalogue),
        )
    ]
    _settle()
    _tell_start(settings, list(first.routes))

    await stop.wait()
    logger.info("draining", extra={"grace_s": settings.shutdown_grace_s})
    data.draining = inference.draining = True
    await asyncio.sleep(settings.shutdown_grace_s)
    await data.close(DRAIN_TIMEOUT_S)
    await _close(chores, (shadows, experiments, configuration, catalogue, reader))
    await redis.aclose()
    # In a thread: the admin port answers until the very end.
    await asyncio.to_thread(log.close)
    await admin.close(ADMIN_ANSWER_S)
    _tell_end(log.counts())


def live_configuration(
    first: Configuration, files: ConfigurationFiles, state: StateDirectory, redis: RedisClient, tls: ssl.SSLContext
) -> tuple[Catalogue, LiveConfiguration, ConfigurationReport]:
    """Compose what follows the configuration's sources and serves by them; the first two are to be closed."""
    views = RegisteredViews(lambda: read_views(redis), state, monotonic)
    around = VersionSurroundings(
        views=views,
        state=state,
        resolve=system_resolve,
        random=Random(),  # noqa: S311 - spreads look-ups, no secret
        clock=monotonic,
        describing=asyncio.Semaphore(DESCRIBED_AT_ONCE_MAX),
        tls=tls,
    )
    catalogue = Catalogue(around)
    configuration = LiveConfiguration(first, files, state, catalogue, monotonic)
    return catalogue, configuration, ConfigurationReport(configuration, catalogue, views, state)


def feature_reading(settings: Settings, registry: CollectorRegistry) -> tuple[OnlineReader, FeatureAssembler]:
    """Compose what reads features, with its metrics; the reader is to be started and closed."""
    near_cache = NearCache()
    reader = OnlineReader(
        open_connection(settings.redis),
        near_cache=near_cache,
        clock=monotonic,
    )
    ladder = FeatureLadder(reader, near_cache, monotonic)
    features = FeatureAssembler(ladder, wall_us)
    registry.register(FeatureCollector(features, ladder, reader, near_cache))
    return reader, features


async def supervise(settings: Settings, arguments: Sequence[str]) -> None:
    """Serve with several processes until SIGTERM or SIGINT. arguments: of this program, passed on to each of them.

    Raises ConfigurationError before any process is started, and PortTaken.
    """
    ConfigurationFiles(settings.config, settings.experiments, StateDirectory(settings.state_dir, wall_us)).read()
    guards = guards_of(settings, 1, lambda _key, _outcome: None)  # the processes count
    new_id = uuid7_maker(wall_us, Random(os.urandom(32)))  # noqa: S311 - see identifiers.py

    async def open_admin(listener: socket.socket, processes: dict[str, Path], metrics: MergedMetrics) -> HttpServer:
        locked = guarded(supervisor_api(processes, metrics), guards.gate, new_id)
        server = HttpServer(AdminPort(locked, new_id), ADMIN_LIMITS, wall_s)
        await server.listen(listener, guards.tls)
        return server

    warn_of_open_ports(settings)
    following = asyncio.create_task(follow(guards.files))
    await Supervisor(settings, arguments, open_admin).run()
    following.cancel()


def file_names() -> FileNames:
    """Name this process's log files: the host, and a boot that no other process of it has had."""
    host = "".join(c if c.isalnum() or c in "_." else "_" for c in socket.gethostname())[:63] or "host"
    return FileNames(host, f"{wall_us():x}_{os.getpid():x}")


def process_registry() -> CollectorRegistry:
    """Make a registry that knows the process itself."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


class _Part(Protocol):
    async def close(self) -> None: ...


async def _close(chores: Sequence[asyncio.Task[None]], parts: Sequence[_Part]) -> None:
    for chore in chores:
        chore.cancel()
    for part in parts:
        await part.close()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _tell_start(settings: Settings, models: list[str]) -> None:
    if settings.process_socket is None:
        warn_of_open_ports(settings)
    logger.info("serving", extra={"port": settings.port, "admin_port": settings.admin_port, "models": models})


def _tell_end(counts: LogCounts) -> None:
    logger.info("stopped", extra={"rows_written": counts.written, "rows_dropped": counts.dropped})


def _settle() -> None:
    # What was made at start-up lives as long as the process: without this, each full collection walks all of it, and
    # its pause is the tail latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


async def _follow_latencies(admission: Admission) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        admission.follow(monotonic())


async def _follow_deadlines(reader: OnlineReader, catalogue: Catalogue) -> None:
    while True:
        reader.allow(read_timeout_s(model.route.deadline_ms for model in catalogue.models.values()))
        await asyncio.sleep(1.0)


async def _fold(metrics: GatewayMetrics, guards: Guards) -> None:
    while True:
        for followed in guards.files:
            metrics.files.set(followed.name, value=followed.problem is None)
        await asyncio.sleep(1.0)
        metrics.fold_overdue()
