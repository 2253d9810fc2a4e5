"""Bring one version from disk to warm."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model_workers.errors import ModelMismatch, WorkerError
from model_workers.model_version import ModelVersion
from model_workers.repository import PublishedVersion, VersionDirectory, read_version
from model_workers.runtimes.lookup import find_runtime
from model_workers.runtimes.protocol import Runtime
from model_workers.warm_up import ExecutionCost, warm_up

PROBLEM_LENGTH_MAX: Final = 1_000
"""Of what a runtime says: some quote the whole model."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A verified, opened and warm version."""

    published: PublishedVersion
    model: ModelVersion
    cost: ExecutionCost


def load_version(directory: VersionDirectory, clock_us: Callable[[], int]) -> LoadedVersion:
    """Read, verify, open and warm one version. Slow; run it off the event loop.

    Raises RepositoryError, ArtifactMismatch, RuntimeMissing, ModelMismatch, or ExecutionFailed where generated rows do
    not come back as the manifest declares.
    """
    published = read_version(directory)
    model = ModelVersion(published.manifest, _opened(published))
    try:
        return LoadedVersion(published, model, warm_up(model, clock_us))
    except Exception:
        model.close()
        raise


def _opened(published: PublishedVersion) -> Runtime:
    manifest = published.manifest
    load = find_runtime(manifest.runtime)
    try:
        return load(published.path, manifest)
    except WorkerError:
        raise
    except Exception as error:  # a runtime, which may be anyone's, may raise anything
        problem = f"runtime {manifest.runtime!r} cannot open {manifest.artifact.file}: {type(error).__name__}: {error}"
        raise ModelMismatch(manifest.model, manifest.version, problem[:PROBLEM_LENGTH_MAX]) from error
