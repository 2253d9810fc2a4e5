"""The one owner of loading and unloading: what the repository holds, what is served of it, and the way between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from model_workers.daemon_thread import run_on_daemon_thread
from model_workers.errors import LoadFailed, OperationsFull, RepositoryError, ShuttingDown, UnknownModel, WorkerError
from model_workers.metrics import WorkerMetrics
from model_workers.open_version import DRAIN_S_MAX, OpenVersion
from model_workers.repository import VERSIONS_MAX, VersionDirectory, files_stamp, scan
from model_workers.repository_index import (
    LOADING,
    READY,
    UNAVAILABLE,
    UNLOADING,
    Failure,
    FilesStamp,
    IndexEntry,
    RepositoryIndex,
    VersionKey,
)
from model_workers.served_models import ServedModels
from model_workers.version_holds import VersionHolds
from model_workers.version_policy import VersionPolicy

OPERATIONS_WAITING_MAX: Final = 64
"""Loads and unloads that may wait for their turn: one runs at a time, so that at most one model more is in memory."""

CLOSE_S_MAX: Final = DRAIN_S_MAX + 5.0
"""How long an operation waits for a version to leave; one whose model hangs leaves when that ends."""

_logger = logging.getLogger(__name__)


class Opener(Protocol):
    """Who brings a version from disk to warm."""

    async def open(self, directory: VersionDirectory) -> OpenVersion:
        """Open a version. Raises WorkerError."""
        ...


class RepositoryControl:
    """Loads and unloads the versions of `repository`, by `policy` and as it is asked. Lives on one event loop."""

    def __init__(
        self,
        repository: Path,
        policy: VersionPolicy,
        *,
        models: ServedModels,
        opener: Opener,
        metrics: WorkerMetrics,
        clock_us: Callable[[], int],
    ) -> None:
        self._repository, self._policy = repository, policy
        self._models, self._opener, self._metrics, self._clock_us = models, opener, metrics, clock_us
        self._index, self._holds = RepositoryIndex(), VersionHolds()
        self._open: dict[VersionKey, OpenVersion] = {}
        self._leaving: dict[OpenVersion, asyncio.Task[None]] = {}
        self._turn, self._looking = asyncio.Lock(), asyncio.Lock()
        self._operations: set[asyncio.Task[None]] = set()
        self._told_gone: set[VersionKey] = set()

    def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """List what the repository held when it was last looked at, and what is served. `refresh` looks again."""
        return [entry for entry in self._index.entries() if entry.state == READY or not ready_only]

    async def refresh(self) -> None:
        """Look at the repository again. Raises RepositoryError."""
        async with self._looking:  # one thread, however many ask
            published = await run_on_daemon_thread(partial(scan, self._repository), "scan")
        self._index.note_published(published)
        self._holds.forget_versions_not_in(published)
        self._metrics.forget_loads_except({*published, *self._models.model_names()})

    async def load(self, model: str, version: str | None = None) -> None:
        """Load a version, anew where it is served already; without one, what the policy selects and is missing.

        Returns when it answers. Goes on where its caller is cancelled. Without a version, what the policy selects no
        longer is unloaded after. Raises UnknownModel where the repository has none, LoadFailed, RepositoryError where
        it cannot be listed, OperationsFull, ShuttingDown.
        """
        await self._take_turn(lambda: self._load_asked(model, version))

    async def unload(self, model: str, version: str | None = None) -> None:
        """Unload a version, or all of a model, and hold it out until it is loaded explicitly.

        Returns when the last answer was given and the memory given back. Goes on where its caller is cancelled.
        Raises UnknownModel where there is none, RepositoryError, OperationsFull, ShuttingDown.
        """
        await self._take_turn(lambda: self._unload_asked(model, version))

    async def apply_policy(self) -> None:
        """Look at the repository, load what the policy selects and unload what it does not.

        A load that failed before is tried again where its files have changed. Failures are logged and kept in the
        index. Raises RepositoryError.
        """
        async with self._turn:
            await self.refresh()
            models = [model for model in self._known_models() if self._holds.covers(self._policy, model)]
            for model in models:
                for version in self._missing(model):
                    if self._index.failure((model, version)) is None:
                        self._expect((model, version))
        for model in models:
            async with self._turn:
                await self._apply(model, again=False)

    def abort(self) -> None:
        """End whatever is going on and fail what is not answered. For the end of the process."""
        for operation in self._operations:
            operation.cancel()
        for opened in (*self._open.values(), *self._leaving):
            opened.abort()

    async def _take_turn(self, operation: Callable[[], Awaitable[None]]) -> None:
        if len(self._operations) >= OPERATIONS_WAITING_MAX:
            raise OperationsFull(OPERATIONS_WAITING_MAX)
        # A task of its own: a caller that hangs up must not leave a version half loaded.
        task = asyncio.create_task(self._in_turn(operation))
        self._operations.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # and not its caller
                raise ShuttingDown from None
            raise

    async def _in_turn(self, operation: Callable[[], Awaitable[None]]) -> None:
        async with self._turn:
            await self.refresh()
            await operation()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._operations.discard(task)
        if not task.cancelled():
            task.exception()  # seen here, also where its caller has gone

    async def _load_asked(self, model: str, version: str | None) -> None:
        versions = self._index.published.get(model, [])
        if not versions or (version is not None and version not in versions):
            there = [f"{model}@{name}" for name in versions] or self._index.published
            raise UnknownModel(model, version, tuple(there), to_load=True)
        if version is None:
            self._holds.load(model, None)
            failures = await self._apply(model, again=True)
            if failures:
                raise failures[0]
        else:
            await self._load(model, version)
            self._holds.load(model, version)

    async def _unload_asked(self, model: str, version: str | None) -> None:
        versions = {*self._index.published.get(model, []), *self._models.versions_of(model)}
        if not versions or (version is not None and version not in versions):
            raise UnknownModel(model, version, self._models.names())
        self._holds.unload(model, version)
        for name in sorted(versions) if version is None else [version]:
            await self._unload(model, name)

    async def _apply(self, model: str, *, again: bool) -> list[LoadFailed]:
        failures = []
        for version in self._missing(model):
            if again or await self._worth_a_try((model, version)):
                try:
                    await self._load(model, version)
                except LoadFailed as failure:
                    failures.append(failure)
        await self._unload_deselected(model)
        return failures

    async def _worth_a_try(self, key: VersionKey) -> bool:
        failure = self._index.failure(key)
        return failure is None or failure.files != await self._files_stamp(key)

    async def _unload_deselected(self, model: str) -> None:
        selected, served = self._selected(model), self._models.versions_of(model)
        for version in self._models.unready_versions_of(model):
            if version not in selected:
                self._models.forget(model, version)
                self._metrics.forget(model, version)
        if any(version in selected for version in served):
            for version in served:
                if version not in selected:
                    await self._unload(model, version)
        else:
            self._tell_gone(model, served)

    def _tell_gone(self, model: str, served: Sequence[str]) -> None:
        # Never less service than before: a folder may be gone by mistake, and nothing else could answer.
        gone = {(model, version) for version in served if version not in self._index.published.get(model, [])}
        for name, version in sorted(gone - self._told_gone):
            _logger.warning("%s@%s has gone from the repository and serves on: no other version could", name, version)
        self._told_gone = {key for key in self._told_gone if key[0] != model} | gone

    async def _load(self, model: str, version: str) -> None:
        key, directory = (model, version), VersionDirectory(model, version, self._repository / model / version)
        before = self._open.get(key)
        if before is None:
            self._expect(key)
        files, began_us = await self._files_stamp(key), self._clock_us()
        try:
            self._check_room(key)
            opened = await self._opener.open(directory)
        except Exception as error:
            self._fail(key, Failure(str(error), files))
            if not isinstance(error, WorkerError):
                raise  # a fault of the program
            raise LoadFailed(model, version, str(error)) from error
        # From here to the next await, requests go to the old one or to the new one, and none to neither.
        self._open[key] = opened
        self._models.add(opened.served)
        self._index.note_state(key, READY)
        self._index.note_failure(key, None)
        self._metrics.ready.set(model, version, value=1)
        self._metrics.note_load(model, loaded=True)
        took_ms = (self._clock_us() - began_us) // 1_000
        _logger.info("loaded %s", directory, extra={"model": model, "version": version, "took_ms": took_ms})
        if before is not None:
            await self._close(before)

    async def _unload(self, model: str, version: str) -> None:
        key = (model, version)
        opened = self._open.pop(key, None)
        self._models.remove(model, version)
        self._models.forget(model, version)
        self._index.note_failure(key, None)
        self._index.note_state(key, UNAVAILABLE if opened is None else UNLOADING)
        if opened is None:
            self._metrics.forget(model, version)
        else:
            await self._close(opened)
            _logger.info("unloaded %s@%s", model, version, extra={"model": model, "version": version})

    async def _close(self, opened: OpenVersion) -> None:
        # A task of its own, for that of a model which hangs outlasts the wait: it must not hold up every later load.
        task = self._leaving[opened] = asyncio.create_task(opened.close())
        task.add_done_callback(lambda _: self._closed(opened))
        await asyncio.wait({task}, timeout=CLOSE_S_MAX)

    def _closed(self, opened: OpenVersion) -> None:
        del self._leaving[opened]
        key = _key(opened)
        if key in {*self._open, *map(_key, self._leaving)}:
            return  # it was loaded again meanwhile
        if self._index.state(key) == UNLOADING:
            self._index.note_state(key, UNAVAILABLE)
        self._metrics.forget(*key)

    def _check_room(self, key: VersionKey) -> None:
        if key not in self._open and len(self._open) >= VERSIONS_MAX:
            problem = f"{VERSIONS_MAX} versions are served already, which is the most; unload one, or give --latest"
            raise RepositoryError(self._repository, problem)

    def _expect(self, key: VersionKey) -> None:
        self._models.expect(*key)
        self._index.note_state(key, LOADING)

    def _fail(self, key: VersionKey, failure: Failure) -> None:
        model, version = key
        self._index.note_failure(key, failure)
        if key not in self._open:
            self._models.fail(model, version, failure.reason)
            self._metrics.ready.set(model, version, value=0)
            self._index.note_state(key, UNAVAILABLE)
        self._metrics.note_load(model, loaded=False)
        _logger.error("version not loaded: %s", failure.reason, extra={"model": model, "version": version})

    def _selected(self, model: str) -> list[str]:
        return self._holds.select(self._policy, model, self._index.published.get(model, []))

    def _missing(self, model: str) -> list[str]:
        return [version for version in self._selected(model) if (model, version) not in self._open]

    def _known_models(self) -> list[str]:
        return list(dict.fromkeys([*self._index.published, *self._models.model_names()]))

    async def _files_stamp(self, key: VersionKey) -> FilesStamp:
        model, version = key
        directory = VersionDirectory(model, version, self._repository / model / version)
        return await run_on_daemon_thread(partial(files_stamp, directory), "stat")


def _key(opened: OpenVersion) -> VersionKey:
    return opened.served.manifest.model, opened.served.manifest.version
