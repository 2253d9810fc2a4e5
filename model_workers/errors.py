"""What can go wrong in a worker. Each error carries its facts; only the edges know what status it becomes."""

from pathlib import Path
from typing import Final

NAMES_TOLD_MAX: Final = 20


class WorkerError(Exception):
    """Any failure that a worker tells of in its own words."""


class RepositoryError(WorkerError):
    """The model repository, or a version in it, is not laid out as it must be."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class RepositoryUnreadable(RepositoryError):
    """The repository is there, and its own folder cannot be listed."""


class FileChanged(RepositoryError):
    """A file became longer or shorter while it was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "changed while it was read; a version never changes, so publish a new one")


class ArtifactMismatch(RepositoryError):
    """An artifact's bytes are not the ones that its manifest was published with. `found` is their SHA-256.

    None found: it, or its manifest, changed while it was loaded, so that nobody knows what was opened.
    """

    def __init__(self, path: Path, expected: str, found: str | None) -> None:
        what = "changed while it was read" if found is None else f"SHA-256 is {found}"
        super().__init__(path, f"{what}, the manifest says {expected}; a version never changes, so publish a new one")
        self.expected, self.found = expected, found


class ModelMismatch(WorkerError):
    """A model is not what its manifest declares: another input, dtype, column count or output."""

    def __init__(self, model: str, version: str, problem: str) -> None:
        super().__init__(f"{model}@{version}: {problem}")
        self.model, self.version, self.problem = model, version, problem


class RuntimeMissing(WorkerError):
    """No runtime of this name is installed here."""

    def __init__(self, runtime: str, known: tuple[str, ...], reason: str = "") -> None:
        super().__init__(
            f"runtime {runtime!r} is not available: {reason or 'it is unknown'}; known: {', '.join(known)}"
        )
        self.runtime, self.known, self.reason = runtime, known, reason


class ExecutionFailed(WorkerError):
    """The model failed on well-formed rows, or answered with something other than it declares."""

    def __init__(self, model: str, version: str, rows: int, reason: str) -> None:
        problem = f"failed on {rows} row{'s' if rows != 1 else ''}: {reason}"
        super().__init__(f"{model}@{version} {problem}")
        self.model, self.version, self.rows, self.reason, self.problem = model, version, rows, reason, problem


class InputRefused(WorkerError):
    """A request's tensors do not fit the model's inputs or outputs; the message names the tensor."""


class RequestTooLarge(WorkerError):
    """A body or a request's rows are beyond what this worker ever takes."""

    def __init__(self, what: str, limit: int, found: int | None = None) -> None:
        said = "more" if found is None else f"{found}"
        super().__init__(f"{what}: {said} given, at most {limit} taken")
        self.what, self.limit, self.found = what, limit, found


class QueueFull(WorkerError):
    """So many rows wait that these would only wait in vain."""

    def __init__(self, waiting_rows: int, queue_rows_max: int) -> None:
        super().__init__(f"{waiting_rows} rows wait already, at most {queue_rows_max} may; retry elsewhere or later")
        self.waiting_rows, self.queue_rows_max = waiting_rows, queue_rows_max


class Expired(WorkerError):
    """The caller's budget was spent before its rows reached the model."""

    def __init__(self, waited_us: int, timeout_us: int) -> None:
        super().__init__(f"waited {waited_us} µs of a timeout of {timeout_us} µs; the model was not run")
        self.waited_us, self.timeout_us = waited_us, timeout_us


class ShuttingDown(WorkerError):
    """The worker is going away and takes no more rows."""

    def __init__(self) -> None:
        super().__init__("the worker is shutting down; send this elsewhere")


class UnknownModel(WorkerError):
    """No such model, or no such version of it, is served here, or, where it is to be loaded, is in the repository.

    served: what is there instead; a message names at most NAMES_TOLD_MAX of it.
    """

    def __init__(self, model: str, version: str | None, served: tuple[str, ...], *, to_load: bool = False) -> None:
        wanted = model[:128] if version is None else f"{model[:128]}@{version[:128]}"
        told = ", ".join(served[:NAMES_TOLD_MAX]) + (", …" if len(served) > NAMES_TOLD_MAX else "")
        if to_load:
            super().__init__(f"{wanted} is not in the repository; it holds: {told or 'nothing'}")
        else:
            super().__init__(f"{wanted} is not served here; served: {told or 'nothing yet'}")
        self.model, self.version, self.served = model, version, served


class LoadFailed(WorkerError):
    """A version could not be loaded. What was served before still is."""

    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(f"{model}@{version} was not loaded: {reason}")
        self.model, self.version, self.reason = model, version, reason


class OperationsFull(WorkerError):
    """So many loads and unloads wait that another one is refused."""

    def __init__(self, waiting_max: int) -> None:
        super().__init__(f"{waiting_max} loads and unloads wait already; retry when they are done")
        self.waiting_max = waiting_max


class AdminRequestRefused(WorkerError):
    """A request to the admin port is malformed, or asks for what this worker never does."""


class NotReady(WorkerError):
    """A model or version is selected here but cannot answer: it is still loading, or its load failed."""

    def __init__(self, model: str, version: str, reason: str) -> None:
        super().__init__(f"{model}@{version} is not ready: {reason}")
        self.model, self.version, self.reason = model, version, reason
