"""A worker's life: listen, load, warm, become ready, serve, and leave without an error for anyone."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector

from model_workers.batcher import Batcher
from model_workers.body import BodyReader
from model_workers.edge import WorkerApp
from model_workers.errors import WorkerError
from model_workers.executions import INLINE_US_MAX, Executions
from model_workers.loading import LoadedVersion, load_version
from model_workers.metrics import VersionMetrics, WorkerMetrics
from model_workers.repository import VersionDirectory
from model_workers.request_rows import RowReader
from model_workers.served_models import ServedModels, ServedVersion
from settings.http_protocol import BoundedHeadProtocol

KEEP_ALIVE_S: Final = 75
"""Longer than any client's: the side that closes an idle connection must be the one that would use it next."""

FINISH_S_MAX: Final = 30
"""How long requests in flight may still take once the grace is over; what then waits is answered 503."""

ANSWER_S_MAX: Final = 5
"""How long the last answers may take to write, before their connections are cut."""

CONNECTIONS_MAX: Final = 4_096

GC_GENERATION_0_THRESHOLD: Final = 50_000
"""A request leaves no cycles behind, so the collector would mostly look at the live; the default is 700."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one worker serves what it loads. `release` is what it calls its own version."""

    queue_rows_max: int
    body_bytes_max: int
    threads: int
    shutdown_grace_s: float
    release: str


class _HttpServer(uvicorn.Server):
    # uvicorn would exit at once on SIGTERM and then die of the signal; a worker first says that it is leaving.
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Worker:
    """One worker process. `run` returns its exit code."""

    def __init__(self, settings: WorkerSettings, clock_us: Callable[[], int]) -> None:
        self._settings, self._clock_us = settings, clock_us
        self._models = ServedModels()
        self._registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self._registry)
        self._executions: list[Executions] = []
        self._stopping = asyncio.Event()
        self._in_haste = asyncio.Event()
        ProcessCollector(registry=self._registry)

    async def run(self, listener: socket.socket, directories: Sequence[VersionDirectory]) -> int:
        """Serve `directories` on `listener` until SIGTERM or SIGINT. Returns 0, or 1 where none could be loaded."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._stop_in_haste)
        server = self._http_server()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        # Alive before it is ready: a liveness probe must not kill a worker that loads a large model.
        loading = asyncio.create_task(self._load_all(directories))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({loading, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        useless = loading.done() and not self._begin_serving(loading)
        if not useless:
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            await self._leave()
        loading.cancel()
        stopping.cancel()
        await self._finish(server, serving)
        return 1 if useless else 0

    def _http_server(self) -> _HttpServer:
        app = WorkerApp(
            self._models,
            self._metrics,
            self._registry,
            bodies=BodyReader(self._settings.body_bytes_max),
            release=self._settings.release,
        )
        config = uvicorn.Config(
            app,
            http=BoundedHeadProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=FINISH_S_MAX + ANSWER_S_MAX,
        )
        return _HttpServer(config)

    async def _load_all(self, directories: Sequence[VersionDirectory]) -> None:
        for directory in directories:
            self._models.expect(directory.model, directory.version)
        for directory in directories:
            began_us = self._clock_us()
            names = {"model": directory.model, "version": directory.version}
            loaded = await self._load(directory)
            if isinstance(loaded, WorkerError):
                self._models.fail(directory.model, directory.version, str(loaded))
                _logger.error("version not loaded: %s", loaded, extra=names)
            else:
                self._models.add(self._served(loaded))
                took_ms = (self._clock_us() - began_us) // 1_000
                _logger.info("loaded %s", directory, extra={**names, "took_ms": took_ms})
            ready = int(not isinstance(loaded, WorkerError))
            self._metrics.ready.set(directory.model, directory.version, value=ready)

    async def _load(self, directory: VersionDirectory) -> LoadedVersion | WorkerError:
        # On a thread that does not keep the process: a stop must not wait for a large model.
        loop = asyncio.get_running_loop()
        loading: asyncio.Future[LoadedVersion | WorkerError] = loop.create_future()
        loader = Executions(loop, threads=1, inline_rows_max=0, name=f"load-{directory}")
        loader.start(partial(_loaded_or_error, directory, self._clock_us), 1, partial(_settle, loading))
        loader.stop()
        return await loading

    def _served(self, loaded: LoadedVersion) -> ServedVersion:
        manifest = loaded.published.manifest
        metrics = VersionMetrics(self._metrics, manifest.model, manifest.version)
        # Threads of its own for each version: a slow model must not hold up a fast one beside it.
        executions = Executions(
            asyncio.get_running_loop(),
            threads=self._settings.threads,
            inline_rows_max=loaded.cost.rows_within(INLINE_US_MAX),
            name=f"{manifest.model}@{manifest.version}",
        )
        self._executions.append(executions)
        batcher = Batcher(
            loaded.model.execute,
            executions,
            batch_rows_max=manifest.batch_rows_max,
            queue_rows_max=self._settings.queue_rows_max,
            executions_max=self._settings.threads,
            clock_us=self._clock_us,
            observer=metrics,
        )
        return ServedVersion(
            manifest=manifest,
            document=loaded.published.document,
            reader=RowReader(manifest, self._settings.queue_rows_max),
            batcher=batcher,
            metrics=metrics,
            datatypes={output.name: output.dtype for output in manifest.outputs},
        )

    def _begin_serving(self, loading: asyncio.Task[None]) -> bool:
        loading.result()  # anything but a WorkerError is a fault of the program and ends it
        loaded = [f"{served.manifest.model}@{served.manifest.version}" for served in self._models]
        if not loaded:
            _logger.error("no version could be loaded; nothing to serve")
            return False
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_GENERATION_0_THRESHOLD, 20, 100)
        self._models.ready = True
        _logger.info("ready", extra={"serving": loaded})
        return True

    def _stop_in_haste(self) -> None:
        self._in_haste.set()  # someone at a keyboard waits
        self._stopping.set()

    async def _leave(self) -> None:
        grace_s = self._settings.shutdown_grace_s if self._models.ready else 0
        self._models.draining = True
        _logger.info("leaving: not ready, connections close after their next answer", extra={"grace_s": grace_s})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._in_haste.wait()

    async def _finish(self, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        server.should_exit = True  # stops listening, closes idle connections, waits for the others' answers
        await asyncio.wait({serving}, timeout=FINISH_S_MAX)
        for served in self._models:
            served.batcher.abort()
        await serving
        for executions in self._executions:
            executions.stop()
        _logger.info("stopped")


def _loaded_or_error(directory: VersionDirectory, clock_us: Callable[[], int]) -> LoadedVersion | WorkerError:
    try:
        return load_version(directory, clock_us)
    except WorkerError as error:
        return error


def _settle(loading: asyncio.Future[LoadedVersion | WorkerError], outcome: LoadedVersion | WorkerError) -> None:
    if not loading.done():
        loading.set_result(outcome)
