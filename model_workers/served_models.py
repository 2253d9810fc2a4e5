"""Which versions a worker serves, which of them answers by default, and which could not be loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.inference import InferenceRequest, InferenceResponse, Tensor, tensor_of
from contracts.manifest import Manifest
from model_workers.batcher import Batcher
from model_workers.errors import NotReady, UnknownModel
from model_workers.metrics import VersionMetrics
from model_workers.repository import version_order
from model_workers.request_rows import RowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """A loaded version and the way into it. `document` is its manifest.json as published."""

    manifest: Manifest
    document: bytes
    reader: RowReader
    batcher: Batcher
    metrics: VersionMetrics
    datatypes: dict[str, str]

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request's rows.

        Raises InputRefused, RequestTooLarge, QueueFull, Expired, ShuttingDown, ExecutionFailed.
        """
        rows = self.reader.rows(request.inputs)
        names = self.reader.outputs(request.outputs)
        arrays = await self.batcher.submit(rows, names, request.timeout_us)
        return InferenceResponse(
            model_name=self.manifest.model,
            model_version=self.manifest.version,
            outputs=tuple(self._tensor(name, arrays[name]) for name in names),
            id=request.id,
        )

    def _tensor(self, name: str, array: np.ndarray[Any, Any]) -> Tensor:
        return tensor_of(name, array, self.datatypes[name])


class ServedModels:
    """The selected versions by model and version. Filled while the worker loads; an edge reads it."""

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
        """Note that this version can answer."""
        model, version = served.manifest.model, served.manifest.version
        self._unready.get(model, {}).pop(version, None)
        versions = {**self._loaded.get(model, {}), version: served}
        self._loaded[model] = dict(sorted(versions.items(), key=lambda item: version_order(item[0])))

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
        raise UnknownModel(model, version, tuple(str(name) for name in self._names()))

    def versions_of(self, model: str) -> list[str]:
        """List a model's loaded versions, the default one last."""
        return list(self._loaded.get(model, {}))

    def __iter__(self) -> Iterator[ServedVersion]:
        return (served for versions in self._loaded.values() for served in versions.values())

    def _names(self) -> list[str]:
        return [f"{model}@{version}" for model, versions in self._loaded.items() for version in versions]
