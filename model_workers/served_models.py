"""Which versions a worker serves, which of them answers by default, and which could not be loaded."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.inference import InferenceRequest, InferenceResponse, tensor_of
from contracts.manifest import Manifest
from model_workers.batcher import Batcher
from model_workers.errors import NotReady, UnknownModel
from model_workers.metrics import VersionMetrics
from model_workers.request_rows import RowReader
from model_workers.runtimes.protocol import Arrays
from model_workers.version_policy import version_order


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """A loaded version and the way into it. `document` is its manifest.json as published."""

    manifest: Manifest
    document: bytes
    reader: RowReader
    batcher: Batcher
    metrics: VersionMetrics
    datatypes: dict[str, str]

    def submit(self, request: InferenceRequest) -> "QueuedRequest":
        """Check one request's rows and queue them. Raises InputRefused, RequestTooLarge, QueueFull, ShuttingDown."""
        came_us = self.metrics.clock_us()
        rows = self.reader.rows(request.inputs)
        names = self.reader.outputs(request.outputs)
        answer = self.batcher.submit(rows, names, request.timeout_us, request.priority)
        return QueuedRequest(self, request, names, came_us, answer)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request's rows. Raises what `submit` and `QueuedRequest.response` raise."""
        queued = self.submit(request)
        await queued.answer
        return queued.response()


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request whose rows are on their way; `answer` is done when they are."""

    version: ServedVersion
    request: InferenceRequest
    names: tuple[str, ...]
    came_us: int
    answer: asyncio.Future[Arrays]

    def response(self) -> InferenceResponse:
        """Make the response, once `answer` is done. Raises Expired, QueueFull, ShuttingDown, ExecutionFailed."""
        arrays = self.answer.result()
        version = self.version
        version.metrics.answered(self.came_us)
        return InferenceResponse(
            model_name=version.manifest.model,
            model_version=version.manifest.version,
            outputs=tuple(tensor_of(name, arrays[name], version.datatypes[name]) for name in self.names),
            id=self.request.id,
        )


class ServedModels:
    """The selected versions by model and version. Only the owner of loading changes it, on the event loop.

    Each change is one assignment: whoever looks a version up and submits to it without an await between meets no
    version that was replaced or removed.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, dict[str, ServedVersion]] = {}
        self._unready: dict[str, dict[str, str]] = {}
        self.ready = False
        self.draining = False

    @property
    def accepting(self) -> bool:
        """Whether new callers should come here: loaded, warm, and not about to leave."""
        return self.ready and not self.draining

    def expect(self, model: str, version: str) -> None:
        """Note that this version was selected and is being loaded."""
        self._unready.setdefault(model, {})[version] = "it is loading"

    def add(self, served: ServedVersion) -> None:
        """Note that this version can answer, in the place of an earlier load of it."""
        model, version = served.manifest.model, served.manifest.version
        self.forget(model, version)
        versions = {**self._loaded.get(model, {}), version: served}
        self._loaded[model] = dict(sorted(versions.items(), key=lambda item: version_order(item[0])))

    def remove(self, model: str, version: str) -> None:
        """Note that this version is not served any more."""
        left = {name: served for name, served in self._loaded.get(model, {}).items() if name != version}
        if left:
            self._loaded[model] = left
        else:
            self._loaded.pop(model, None)

    def forget(self, model: str, version: str) -> None:
        """Drop what was noted of a version that could not be loaded."""
        unready = self._unready.get(model, {})
        unready.pop(version, None)
        if not unready:
            self._unready.pop(model, None)

    def fail(self, model: str, version: str, reason: str) -> None:
        """Note that this version could not be loaded, and why."""
        self._unready.setdefault(model, {})[version] = reason

    def version(self, model: str, version: str | None) -> ServedVersion:
        """Find a loaded version; none named means the highest loaded one, in natural order (10 after 9).

        Raises UnknownModel where it was not selected, NotReady where it is loading or failed to.
        """
        loaded, unready = self._loaded.get(model, {}), self._unready.get(model, {})
        if version is None and loaded:
            return next(reversed(loaded.values()))
        if version in loaded:
            return loaded[version]
        if version is None and unready:
            version = max(unready, key=version_order)
        if version is not None and version in unready:
            raise NotReady(model, version, unready[version])
        raise UnknownModel(model, version, self.names())

    def versions_of(self, model: str) -> list[str]:
        """List a model's loaded versions, the default one last."""
        return list(self._loaded.get(model, {}))

    def unready_versions_of(self, model: str) -> list[str]:
        """List a model's versions that are loading or failed to."""
        return list(self._unready.get(model, {}))

    def model_names(self) -> list[str]:
        """List the models of which any version is loaded, loading or failed to."""
        return list({**self._loaded, **self._unready})

    def __iter__(self) -> Iterator[ServedVersion]:
        return (served for versions in self._loaded.values() for served in versions.values())

    def names(self) -> tuple[str, ...]:
        """Name the loaded versions as NAME@VERSION."""
        return tuple(f"{model}@{version}" for model, versions in self._loaded.items() for version in versions)
