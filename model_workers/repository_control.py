"""The one owner of loading and unloading: what the repository holds, what is served of it, and the way between."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from model_workers.errors import (
    ExecutionFailed,
    LoadFailed,
    ModelMismatch,
    RepositoryError,
    UnknownModel,
    WorkerError,
)
from model_workers.metrics import WorkerMetrics
from model_workers.open_version import DRAIN_S_MAX, OpenVersion
from model_workers.operations import Operations
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
from model_workers.repository_notices import RepositoryNotices
from model_workers.served_models import ServedModels
from model_workers.version_holds import VersionHolds
from model_workers.version_policy import VersionPolicy
from settings.daemon_thread import run_on_daemon_thread

STAND_INS_MAX: Final = 1_024
"""Lower versions that are tried at once in the place of those that could not be loaded."""

CLOSE_S_MAX: Final = DRAIN_S_MAX + 5.0
"""How long an operation waits for a version to leave; one whose model hangs leaves when that ends."""

STILL_LOADING_S: Final = 30.0
"""After so long, a load that goes on is told: nothing else is loaded meanwhile."""

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
        self._notices = RepositoryNotices(repository)
        self._open: dict[VersionKey, OpenVersion] = {}
        self._leaving: dict[OpenVersion, asyncio.Task[None]] = {}
        self._operations, self._looking = Operations(), asyncio.Lock()

    def index(self, ready_only: bool = False) -> list[IndexEntry]:
        """List what the repository held when it was last looked at, and what is served. `refresh` looks again."""
        return [entry for entry in self._index.entries() if entry.state == READY or not ready_only]

    async def refresh(self) -> None:
        """Look at the repository again. Raises RepositoryError."""
        async with self._looking:  # one thread, however many ask
            listing = await run_on_daemon_thread(partial(scan, self._repository), "scan")
        self._notices.tell_unreadable(listing.unreadable)
        published = listing.with_last_seen(self._index.published)
        self._index.note_published(published)
        self._holds.forget_versions_not_in(published)
        self._metrics.forget_loads_except({*published, *self._models.model_names()})

    async def load(self, model: str, version: str | None = None) -> None:
        """Load a version, anew where it is served already; without one, what the policy selects and is missing.

        Returns when it answers. Goes on where its caller is cancelled. Without a version, what the policy selects no
        longer is unloaded after, and where nothing of what it selects can be loaded, a lower version stands in.
        Raises UnknownModel where the repository has none, LoadFailed, RepositoryError where it cannot be listed,
        OperationsFull, ShuttingDown.
        """
        await self._operations.run(lambda: self._load_asked(model, version))

    async def unload(self, model: str, version: str | None = None) -> None:
        """Unload a version, or all of a model, and hold it out until it is loaded explicitly.

        Returns when the last answer was given and the memory given back. Goes on where its caller is cancelled.
        Raises UnknownModel where there is none, RepositoryError, OperationsFull, ShuttingDown.
        """
        await self._operations.run(lambda: self._unload_asked(model, version))

    async def apply_policy(self) -> None:
        """Look at the repository, load what the policy selects and unload what it does not.

        A load that failed before is tried again where its files have changed. Failures are logged and kept in the
        index; where they leave a model without any version, a lower one stands in. Raises RepositoryError.
        """
        async with self._operations.turn:
            await self.refresh()
            models = [model for model in self._known_models() if self._holds.covers(self._policy, model)]
            for model in models:
                for version in self._missing(model):
                    if self._index.failure((model, version)) is None:
                        self._expect((model, version))
        for model in models:
            async with self._operations.turn:
                await self._apply(model, again=False)

    def abort(self) -> None:
        """End whatever is going on and fail what is not answered. For the end of the process."""
        self._operations.abort()
        for opened in (*self._open.values(), *self._leaving):
            opened.abort()

    async def _load_asked(self, model: str, version: str | None) -> None:
        await self.refresh()
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
        await self.refresh()
        versions = {*self._index.published.get(model, []), *self._models.versions_of(model)}
        if not versions or (version is not None and version not in versions):
            raise UnknownModel(model, version, self._models.names())
        self._holds.unload(model, version)
        for name in sorted(versions) if version is None else [version]:
            await self._unload(model, name)

    async def _apply(self, model: str, *, again: bool) -> list[LoadFailed]:
        tried = [await self._try(model, version, again=again) for version in self._missing(model)]
        if self._selected(model) and not self._models.versions_of(model):
            await self._load_stand_in(model, again=again)
        await self._unload_deselected(model)
        return [failure for failure in tried if failure is not None]

    async def _load_stand_in(self, model: str, *, again: bool) -> None:
        # A worker that starts beside a damaged newest version would otherwise serve nothing of the model.
        stand_ins = self._holds.stand_ins(self._policy, model, self._index.published.get(model, []))
        for version in stand_ins[:STAND_INS_MAX]:
            await self._try(model, version, again=again)
            if (model, version) in self._open:
                _logger.warning("%s@%s stands in: no selected version of it could be loaded", model, version)
                return

    async def _try(self, model: str, version: str, *, again: bool) -> LoadFailed | None:
        if again or await self._worth_a_try((model, version)):
            try:
                await self._load(model, version)
            except LoadFailed as failure:
                return failure
        return None

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
            # Never less service than before: a folder may be gone by mistake, and nothing else could answer.
            published = self._index.published.get(model, [])
            self._notices.tell_gone(model, [(model, version) for version in served if version not in published])

    async def _load(self, model: str, version: str) -> None:
        key, directory = (model, version), VersionDirectory(model, version, self._repository / model / version)
        before = self._open.get(key)
        if before is None:
            self._expect(key)
        began_us = self._clock_us()
        slow = asyncio.get_running_loop().call_later(STILL_LOADING_S, _tell_slow, directory)
        try:
            files = await self._files_stamp(key)
            opened = await self._open_version(key, directory, files)
        finally:
            slow.cancel()
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

    async def _open_version(self, key: VersionKey, directory: VersionDirectory, files: FilesStamp) -> OpenVersion:
        try:
            self._check_room(key)
            return await self._opener.open(directory)
        except Exception as error:
            reason = _reason(error)
            self._fail(key, Failure(reason, files))
            if not isinstance(error, WorkerError):
                raise  # a fault of the program
            raise LoadFailed(*key, reason) from error

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
        told = {"model": model, "version": version}
        _logger.error("%s@%s was not loaded: %s", model, version, failure.reason, extra=told)

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


def _tell_slow(directory: VersionDirectory) -> None:
    told = {"model": directory.model, "version": directory.version}
    _logger.warning("still loading %s after %g s; other loads wait", directory, STILL_LOADING_S, extra=told)


def _reason(error: Exception) -> str:
    """Say why a load failed, beside the name of its version."""
    return error.problem if isinstance(error, ModelMismatch | ExecutionFailed) else str(error)


def _key(opened: OpenVersion) -> VersionKey:
    return opened.served.manifest.model, opened.served.manifest.version
