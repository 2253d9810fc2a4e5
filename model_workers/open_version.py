"""A version that is open: the way into it, and what must be given back when it leaves."""

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from model_workers.batcher import Batcher
from model_workers.executions import INLINE_US_MAX, Executions
from model_workers.loading import LoadedVersion, load_version
from model_workers.metrics import VersionMetrics, WorkerMetrics
from model_workers.model_version import ModelVersion
from model_workers.repository import VersionDirectory
from model_workers.request_rows import RowReader
from model_workers.served_models import ServedVersion
from settings.daemon_thread import run_on_daemon_thread

DRAIN_S_MAX: Final = 30.0
"""How long what a leaving version has accepted may take; what then waits is answered 503."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenVersion:
    """What edges serve, and behind it the model and its threads."""

    served: ServedVersion
    model: ModelVersion
    executions: Executions

    async def close(self) -> None:
        """Answer what was accepted, then end the threads and close the model. No lookup may lead here any more.

        Waits while the model runs: closing it under a running execution would crash the process.
        """
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                await self.served.batcher.drain()
        except TimeoutError:
            manifest = self.served.manifest
            _logger.warning("%s@%s runs on after %g s of draining", manifest.model, manifest.version, DRAIN_S_MAX)
            self.served.batcher.abort()
            await self.served.batcher.drain()
        self.executions.stop()
        try:
            await run_on_daemon_thread(self.model.close, f"close-{self.served.manifest.model}")
        except Exception:  # a runtime may raise anything; the version has left all the same
            _logger.exception("%s@%s did not close cleanly", self.served.manifest.model, self.served.manifest.version)
        # What bindings leave behind in cycles would stay for hundreds of loads: a worker's collector hardly ever runs.
        # What was there at start is frozen, so that this takes 0.2 ms.
        gc.collect()

    def abort(self) -> None:
        """Fail what is not answered, and end the threads after what they do. For the end of the process."""
        self.served.batcher.abort()
        self.executions.stop()


class VersionOpener:
    """Opens versions. threads, queue_rows_max: of each. clock_us is monotonic, wall_clock_ms since the epoch."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        *,
        clock_us: Callable[[], int],
        wall_clock_ms: Callable[[], int],
        threads: int,
        queue_rows_max: int,
    ) -> None:
        self._metrics, self._clock_us, self._wall_clock_ms = metrics, clock_us, wall_clock_ms
        self._threads, self._queue_rows_max = threads, queue_rows_max

    async def open(self, directory: VersionDirectory) -> OpenVersion:
        """Bring a version from disk to warm, beside the event loop. Raises WorkerError."""
        loaded = await run_on_daemon_thread(partial(load_version, directory, self._clock_us), f"load-{directory}")
        return self._opened(loaded)

    def _opened(self, loaded: LoadedVersion) -> OpenVersion:
        manifest = loaded.published.manifest
        metrics = VersionMetrics(
            self._metrics,
            manifest.model,
            manifest.version,
            clock_us=self._clock_us,
            wall_clock_ms=self._wall_clock_ms,
        )
        # Threads of its own for each version: a slow model must not hold up a fast one beside it.
        executions = Executions(
            asyncio.get_running_loop(),
            threads=self._threads,
            inline_rows_max=loaded.cost.rows_within(INLINE_US_MAX),
            name=f"{manifest.model}@{manifest.version}",
        )
        batcher = Batcher(
            loaded.model.execute,
            executions,
            batch_rows_max=manifest.batch_rows_max,
            queue_rows_max=self._queue_rows_max,
            executions_max=self._threads,
            clock_us=self._clock_us,
            observer=metrics,
        )
        served = ServedVersion(
            manifest=manifest,
            document=loaded.published.document,
            reader=RowReader(manifest, self._queue_rows_max),
            batcher=batcher,
            metrics=metrics,
            datatypes={output.name: output.dtype for output in manifest.outputs},
        )
        return OpenVersion(served=served, model=loaded.model, executions=executions)
