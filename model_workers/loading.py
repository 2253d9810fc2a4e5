"""Bring one version from disk to warm."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model_workers.errors import ModelMismatch, WorkerError
from model_workers.model_version import ModelVersion
from model_workers.repository import PublishedVersion, VersionDirectory, read_version, refuse_changed
from model_workers.runtimes.lookup import find_runtime
from model_workers.runtimes.protocol import Runtime
from model_workers.warm_up import ExecutionCost, warm_up
from model_workers.warm_up_requests import read_warm_up_requests

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

    Raises RepositoryError, ArtifactMismatch also where the files change meanwhile, RuntimeMissing, ModelMismatch, or
    ExecutionFailed where recorded or generated rows do not come back as the manifest declares.
    """
    published = read_version(directory)
    recorded = read_warm_up_requests(published.path, published.manifest)
    model = ModelVersion(published.manifest, _opened(published))
    try:
        # A runtime opens the artifact by its path: what it read is what was hashed only if nobody replaced it between.
        refuse_changed(published)
        return LoadedVersion(published, model, warm_up(model, clock_us, recorded))
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
