"""The repository calls of `inference.GRPCInferenceService`, for the admin port.

Source: Triton, `grpc_service.proto` and its model repository extension.
"""

from collections.abc import Mapping
from typing import Any, Final

from model_workers.errors import AdminRequestRefused
from model_workers.grpc_edge.calls import Answer
from model_workers.grpc_edge.messages import MessageClass
from model_workers.repository_control import RepositoryControl

REPOSITORY_METHODS: Final = ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")


class RepositoryService:
    """Answers over `control`, in messages of `classes`."""

    def __init__(self, control: RepositoryControl, classes: Mapping[str, MessageClass]) -> None:
        self._control, self._classes = control, classes

    def answers(self) -> dict[str, Answer]:
        """Name the methods."""
        return dict(zip(REPOSITORY_METHODS, (self.index, self.load, self.unload), strict=True))

    async def index(self, message: Any, _context: Any) -> Any:
        """List the versions of the repository, and what became of each. Raises RepositoryError."""
        _refuse_name(message.repository_name)
        await self._control.refresh()
        entries = self._control.index(message.ready)
        return self._classes["RepositoryIndexResponse"](
            models=[{"name": e.name, "version": e.version, "state": e.state, "reason": e.reason} for e in entries]
        )

    async def load(self, message: Any, _context: Any) -> Any:
        """Load a model, or one version of it. Raises AdminRequestRefused, and what RepositoryControl does."""
        _refuse_name(message.repository_name)
        for key in message.parameters:
            if key == "config" or key.startswith("file:"):
                raise AdminRequestRefused(
                    f"parameter {key[:64]!r} is refused: a version is served as it was published, with the hash that "
                    "its manifest names; publish another version instead"
                )
        await self._control.load(message.model_name, _version(message.parameters))
        return self._classes["RepositoryModelLoadResponse"]()

    async def unload(self, message: Any, _context: Any) -> Any:
        """Unload a model, or one version of it. Raises AdminRequestRefused, and what RepositoryControl does."""
        _refuse_name(message.repository_name)
        await self._control.unload(message.model_name, _version(message.parameters))
        return self._classes["RepositoryModelUnloadResponse"]()


def _refuse_name(repository: str) -> None:
    if repository:
        raise AdminRequestRefused(f"repository {repository[:64]!r} is unknown: a worker has one, which has no name")


def _version(parameters: Any) -> str | None:
    if "version" not in parameters:
        return None
    version = parameters["version"].string_param
    if not version:
        raise AdminRequestRefused("parameter 'version' must be a string: the version's name")
    return str(version)
