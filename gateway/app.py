"""The composition root: the one place that knows every concrete class and the order in which they start and stop."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import uvicorn
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from feature_store import OnlineReader, RedisConnection, open_redis
from gateway.admission import Admission
from gateway.catalogue import Catalogue
from gateway.clock import monotonic, wall_us
from gateway.edge.control_api import admin_api, data_api
from gateway.edge.data_port import DataPort
from gateway.edge.inference_route import InferenceRoute
from gateway.edge.outcomes_route import OutcomesRoute
from gateway.edge.predict_route import PredictRoute
from gateway.edge.supervisor_api import supervisor_api
from gateway.experiments_file import read_experiments
from gateway.feature_rows import FeatureAssembler
from gateway.identifiers import uuid7_maker
from gateway.merged_metrics import MergedMetrics
from gateway.metrics import GatewayMetrics, StateCollector
from gateway.predict import Predictor
from gateway.prediction_log.log_writer import LogWriter
from gateway.prediction_log.parquet_spool import FileNames
from gateway.routes_file import read_routes
from gateway.scoring_ladder import ScoringLadder
from gateway.settings import Settings
from gateway.supervisor import Supervisor
from http_server.server import HttpServer, Limits
from settings.http_protocol import BoundedHeadProtocol
from settings.ports import listen, listen_unix
from settings.release import release

KEEP_ALIVE_S: Final = 75
"""Longer than the usual client's or load balancer's 60 s, so that it is they who close an idle connection."""

DRAIN_TIMEOUT_S: Final = 15
"""How long a request in flight may hold the stop up; far above any model's deadline. The log is closed after it."""

SWITCH_INTERVAL_S: Final = 0.000_5
"""How long the log's thread may keep the event loop waiting for the interpreter; Python's own 5 ms is a request's whole
time."""

GC_THRESHOLD: Final = 100_000
"""Allocations between two collections of the youngest generation, once everything made at start-up is frozen."""

logger = logging.getLogger(__name__)


class QuietServer(uvicorn.Server):
    """A uvicorn server that leaves signals to this program, which has two servers and a log to close in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain: not ready, serve on, stop accepting, finish, write the log out.

    Raises ConfigurationError, PortTaken, or OSError where the log's directory cannot be made.
    """
    routes = read_routes(settings.config)
    experiments = read_experiments(settings.experiments, routes)
    sockets = [
        listen(settings.host, settings.port, "--port", shared=settings.process_socket is not None),
        listen_unix(settings.process_socket)
        if settings.process_socket is not None
        else listen(settings.admin_host, settings.admin_port, "--admin-port"),
    ]
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    log = LogWriter(settings.log_dir, file_names(), settings.log_file_seconds, wall_us)
    log.start()
    redis = open_redis(settings.redis)
    reader = OnlineReader(RedisConnection(settings.redis))
    catalogue = Catalogue(routes, experiments, redis, monotonic)
    admission = Admission(settings.requests_in_flight_max)
    metrics = GatewayMetrics(registry)
    features = FeatureAssembler(reader, wall_us)
    registry.register(StateCollector(catalogue.models, admission, features, log))
    new_id = uuid7_maker(wall_us, Random(os.urandom(32)))  # noqa: S311 - see identifiers.py
    predictor = Predictor(admission, ScoringLadder(), log, metrics, new_id, wall_us, monotonic)
    predict = PredictRoute(catalogue.models, predictor, features, metrics, new_id, monotonic)
    inference = InferenceRoute(catalogue.models, predictor, metrics, new_id, monotonic, release())
    outcomes = OutcomesRoute(log, metrics, new_id, wall_us)
    port = DataPort(catalogue.models, predict, inference, outcomes, data_api(catalogue, new_id), metrics, new_id)
    data = HttpServer(port, Limits(keep_alive_s=KEEP_ALIVE_S), lambda: wall_us() / 1e6)
    admin = QuietServer(
        _server_config(admin_api(catalogue, admission, log, metrics, registry, lambda: data.draining, new_id))
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    await reader.start()
    catalogue.start()
    await data.listen(sockets[0])
    administration = asyncio.create_task(admin.serve([sockets[1]]))
    folding = asyncio.create_task(_fold(metrics))
    # What was made at start-up lives as long as the process: without this, each full collection walks all of it, and
    # its pause is the tail latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logger.info(
        "serving", extra={"port": settings.port, "admin_port": settings.admin_port, "models": list(routes.models)}
    )

    await asyncio.wait([asyncio.create_task(stop.wait()), administration], return_when=asyncio.FIRST_COMPLETED)
    logger.info("draining", extra={"grace_s": settings.shutdown_grace_s})
    data.draining = inference.draining = True
    await asyncio.sleep(settings.shutdown_grace_s)
    await data.close(DRAIN_TIMEOUT_S)
    folding.cancel()
    await catalogue.close()
    await reader.close()
    await redis.aclose()
    # In a thread: the admin port answers until the very end.
    await asyncio.to_thread(log.close)
    admin.should_exit = True
    await administration
    counts = log.counts()
    logger.info("stopped", extra={"rows_written": counts.written, "rows_dropped": counts.dropped})


async def supervise(settings: Settings, arguments: Sequence[str]) -> None:
    """Serve with several processes until SIGTERM or SIGINT. arguments: of this program, passed on to each of them.

    Raises ConfigurationError before any process is started, and PortTaken.
    """
    read_experiments(settings.experiments, read_routes(settings.config))

    def make_server(processes: dict[str, Path], metrics: MergedMetrics) -> uvicorn.Server:
        return QuietServer(_server_config(supervisor_api(processes, metrics)))

    await Supervisor(settings, arguments, make_server).run()


def file_names() -> FileNames:
    """Name this process's log files: the host, and a boot that no other process of it has had."""
    host = "".join(c if c.isalnum() or c in "_." else "_" for c in socket.gethostname())[:63] or "host"
    return FileNames(host, f"{wall_us():x}_{os.getpid():x}")


async def _fold(metrics: GatewayMetrics) -> None:
    while True:
        await asyncio.sleep(1.0)
        metrics.fold_overdue()


def _server_config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedHeadProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here reads the client address, and the middleware costs a call a request
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
    )
