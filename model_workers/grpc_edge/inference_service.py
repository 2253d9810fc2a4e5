"""`inference.GRPCInferenceService` over the served models: health, metadata and inference."""

from collections.abc import Mapping, Sequence
from typing import Any

from model_workers.edge import SERVER_NAME
from model_workers.errors import NotReady, UnknownModel
from model_workers.grpc_edge.calls import Answer
from model_workers.grpc_edge.inference import read_request, write_response
from model_workers.grpc_edge.messages import MessageClass
from model_workers.model_documents import model_document, statistics_document
from model_workers.served_models import ServedModels


class InferenceService:
    """Answers in messages of `classes`. release, extensions: what the server says of itself."""

    def __init__(
        self,
        models: ServedModels,
        classes: Mapping[str, MessageClass],
        *,
        release: str,
        extensions: Sequence[str],
    ) -> None:
        self._models, self._classes = models, classes
        self._release, self._extensions = release, extensions

    def questions(self) -> dict[str, Answer]:
        """Name the methods that only tell, which every port has."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelStatistics": self.model_statistics,
        }

    async def server_live(self, _message: Any, _context: Any) -> Any:
        """Say yes."""
        return self._classes["ServerLiveResponse"](live=True)

    async def server_ready(self, _message: Any, _context: Any) -> Any:
        """Say whether new callers should come here."""
        return self._classes["ServerReadyResponse"](ready=self._models.accepting)

    async def model_ready(self, message: Any, _context: Any) -> Any:
        """Say whether a version answers; one that is unknown does not, as Triton has it."""
        try:
            self._models.version(message.name, message.version or None)
        except (NotReady, UnknownModel):
            return self._classes["ModelReadyResponse"](ready=False)
        return self._classes["ModelReadyResponse"](ready=not self._models.draining)

    async def server_metadata(self, _message: Any, _context: Any) -> Any:
        """Tell name, release and extensions."""
        return self._classes["ServerMetadataResponse"](
            name=SERVER_NAME, version=self._release, extensions=self._extensions
        )

    async def model_metadata(self, message: Any, _context: Any) -> Any:
        """Tell a version's inputs, outputs and platform. Raises UnknownModel, NotReady."""
        version = self._models.version(message.name, message.version or None)
        document = model_document(version, self._models.versions_of(version.manifest.model))
        return self._classes["ModelMetadataResponse"](**document)

    async def model_statistics(self, message: Any, _context: Any) -> Any:
        """Tell what a version, a model or all of them did. Raises UnknownModel, NotReady."""
        document = statistics_document(self._models, message.name or None, message.version or None)
        return self._classes["ModelStatisticsResponse"](**document)

    async def infer(self, message: Any, context: Any) -> Any:
        """Run the rows of one request. Raises InferenceFormatError, and what `ServedVersion.infer` does."""
        version = self._models.version(message.model_name, message.model_version or None)
        remaining_s = context.time_remaining()
        request = read_request(message, None if remaining_s is None else int(remaining_s * 1e6))
        response = self._classes["ModelInferResponse"]()
        # Between the lookup and this line there is no wait, so that the version cannot have left.
        write_response(response, await version.infer(request), raw=bool(message.raw_input_contents))
        return response
