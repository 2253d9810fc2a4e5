"""A worker's life: listen, load, warm, become ready, serve, and leave without an error for anyone."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector

from http_server.server import HttpServer
from model_workers import admin_edge, edge
from model_workers.errors import RepositoryError
from model_workers.grpc_edge.address import GrpcAddress
from model_workers.metrics import WorkerMetrics
from model_workers.open_version import VersionOpener
from model_workers.repository_control import RepositoryControl
from model_workers.served_models import ServedModels
from model_workers.version_policy import VersionPolicy
from settings.followed_files import follow
from settings.ports import PortTaken
from settings.tls import ServerContext, ServerTls

FINISH_S_MAX: Final = 30
"""How long requests in flight may still take once the grace is over; what then waits is answered 503."""

ANSWER_S_MAX: Final = 5
"""How long the last answers may take to write, before their connections are cut."""

GC_GENERATION_0_THRESHOLD: Final = 50_000
"""A request leaves no cycles behind, so the collector would mostly look at the live; the default is 700."""

SWITCH_INTERVAL_S: Final = 0.000_5
"""How long the event loop and a thread that runs a model may make each other wait for the interpreter. With Python's
own 5 ms a batch that is done lies until then. docs/adr/0009 has what it and the bound of inline executions gave."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one worker serves what it loads. `release` is what it calls its own version.

    poll_s: how often it looks whether the repository has changed; 0: never. tls: of both ports; None: no TLS.
    """

    repository: Path
    policy: VersionPolicy
    poll_s: float
    queue_rows_max: int
    body_bytes_max: int
    threads: int
    shutdown_grace_s: float
    release: str
    tls: ServerTls | None = None
    grpc: GrpcAddress | None = None
    grpc_admin: GrpcAddress | None = None


class GrpcPort(Protocol):
    """A gRPC server that has started."""

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and cancel those that have no answer after the grace."""
        ...


class Worker:
    """One worker process. `run` returns its exit code. clock_us is monotonic, wall_clock_ms since the epoch."""

    def __init__(self, settings: WorkerSettings, clock_us: Callable[[], int], wall_clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._models = ServedModels()
        self._registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self._registry)
        opener = VersionOpener(
            self._metrics,
            clock_us=clock_us,
            wall_clock_ms=wall_clock_ms,
            threads=settings.threads,
            queue_rows_max=settings.queue_rows_max,
        )
        self._control = RepositoryControl(
            settings.repository,
            settings.policy,
            models=self._models,
            opener=opener,
            metrics=self._metrics,
            clock_us=clock_us,
        )
        self._stopping = asyncio.Event()
        self._in_haste = asyncio.Event()
        ProcessCollector(registry=self._registry)

    async def run(self, listener: socket.socket, admin_listener: socket.socket | None = None) -> int:
        """Serve until SIGTERM or SIGINT. Returns 0, or 1 where nothing could be loaded and nothing is waited for.

        Raises PortTaken where a gRPC port was taken meanwhile, ConfigurationError where a certificate is wrong.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._stop_in_haste)
        tls = None if self._settings.tls is None else ServerContext(self._settings.tls)
        context = None if tls is None else lambda: tls.current  # the one of the moment
        following_tls = asyncio.create_task(follow([] if tls is None else [tls.files]))
        grpc_ports = await self._start_grpc()
        server = HttpServer(self._app(edge.EXTENSIONS))
        admin_server = HttpServer(admin_edge.AdminApp(self._control, self._app(admin_edge.EXTENSIONS)))
        await server.listen(listener, context)
        if admin_listener is not None:
            await admin_server.listen(admin_listener, context)
        # Alive before it is ready: a liveness probe must not kill a worker that loads a large model.
        following = asyncio.create_task(self._follow_repository())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()  # a fault of the program ends it
        useless = following.done() and not self._models.ready
        if useless:
            _logger.error("no version could be loaded; nothing to serve")
        else:
            await stopping
            await self._leave(server)
        for task in (following, stopping, following_tls):
            task.cancel()
        await self._finish(server, grpc_ports)
        await admin_server.close(ANSWER_S_MAX)  # after the data port: an operator may watch it leave
        _logger.info("stopped")
        return 1 if useless else 0

    def _app(self, extensions: tuple[str, ...]) -> edge.WorkerApp:
        return edge.WorkerApp(
            self._models,
            self._metrics,
            self._registry,
            body_bytes_max=self._settings.body_bytes_max,
            release=self._settings.release,
            extensions=extensions,
        )

    async def _follow_repository(self) -> None:
        """Load what the policy selects; then, where polling is on, go on for ever."""
        told = ""
        while True:
            trouble = ""
            try:
                await self._control.apply_policy()
            except RepositoryError as error:  # it may be gone for a while, as a network disk is
                trouble = f"the repository was not looked at: {error}"
            except Exception:
                if not self._models.ready:
                    raise
                _logger.exception("the repository was not followed")
            if not self._models.ready and self._models.names():
                self._begin_serving()
            if not self._settings.poll_s:
                return
            if not self._models.ready:
                trouble = trouble or "no version is loaded yet; waiting for the repository to change"
            if trouble and trouble != told:
                _logger.warning("%s", trouble)
            told = trouble
            await asyncio.sleep(self._settings.poll_s)

    def _begin_serving(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_GENERATION_0_THRESHOLD, 20, 100)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._models.ready = True
        _logger.info("ready", extra={"serving": self._models.names()})

    def _stop_in_haste(self) -> None:
        self._in_haste.set()  # someone at a keyboard waits
        self._stopping.set()

    async def _leave(self, server: HttpServer) -> None:
        grace_s = self._settings.shutdown_grace_s if self._models.ready else 0
        self._models.draining = server.draining = True
        _logger.info("leaving: not ready, connections close after their next answer", extra={"grace_s": grace_s})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._in_haste.wait()

    async def _start_grpc(self) -> list[GrpcPort]:
        settings = self._settings
        if settings.grpc is None and settings.grpc_admin is None:
            return []
        # The library writes lines of its own to standard error, where a log of JSON lines is. It reads this variable
        # when it is imported, and has no other setting for it.
        os.putenv("GRPC_VERBOSITY", "NONE")
        from model_workers.grpc_edge.edges import GrpcEdges  # noqa: PLC0415 - an extra: most workers carry no gRPC

        edges = GrpcEdges(self._models, self._metrics, self._control, release=settings.release)
        servers = []
        if settings.grpc is not None:
            servers.append(edges.data_server(settings.grpc, settings.body_bytes_max))
        if settings.grpc_admin is not None:
            servers.append(edges.admin_server(settings.grpc_admin))
        try:
            for server in servers:
                await server.start()
        except PortTaken:
            for server in servers:
                await server.stop(0)  # the library does not bear an event loop that closes under it
            raise
        return [*servers]

    async def _finish(self, server: HttpServer, grpc_ports: Sequence[GrpcPort]) -> None:
        # No more connections, idle ones close, and the others' answers are waited for.
        within_s = FINISH_S_MAX + ANSWER_S_MAX
        ending = [server.close(within_s), *(port.stop(within_s) for port in grpc_ports)]
        leaving = [asyncio.create_task(end) for end in ending]
        await asyncio.wait(leaving, timeout=FINISH_S_MAX)
        self._control.abort()
        await asyncio.gather(*leaving)
