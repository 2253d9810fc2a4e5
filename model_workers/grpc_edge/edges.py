"""The gRPC ports of a worker: which services and methods each has."""

from collections.abc import Mapping
from typing import Any, Final

from model_workers.grpc_edge.address import GrpcAddress
from model_workers.grpc_edge.calls import Answer, Calls, refuse_here
from model_workers.grpc_edge.health_service import HealthService
from model_workers.grpc_edge.inference_service import InferenceService
from model_workers.grpc_edge.messages import HEALTH_SERVICE, INFERENCE_SERVICE, health_messages, inference_messages
from model_workers.grpc_edge.repository_service import REPOSITORY_METHODS, RepositoryService
from model_workers.grpc_edge.server import GrpcServer
from model_workers.metrics import WorkerMetrics
from model_workers.repository_control import RepositoryControl
from model_workers.served_models import ServedModels

ADMIN_MESSAGE_BYTES_MAX: Final = 64 * 1024

_ASK_ADMIN_PORT: Final = "versions are loaded and unloaded on the admin port only: ask there (--grpc-admin-port)"
_ASK_DATA_PORT: Final = "the admin port infers nothing: ask the data port (--grpc-port)"


class GrpcEdges:
    """Makes the servers of one worker over its models and their control. `release` is the worker's own version."""

    def __init__(
        self, models: ServedModels, metrics: WorkerMetrics, control: RepositoryControl, *, release: str
    ) -> None:
        self._models, self._metrics, self._release = models, metrics, release
        self._classes = inference_messages()
        self._health_classes = health_messages()
        self._repository = RepositoryService(control, self._classes)

    def data_server(self, address: GrpcAddress, message_bytes_max: int) -> GrpcServer:
        """Make the server of the data port."""
        service = self._inference_service("statistics")
        answers = {
            **service.questions(),
            "ModelInfer": service.infer,
            **dict.fromkeys(REPOSITORY_METHODS, refuse_here(_ASK_ADMIN_PORT)),
        }
        return self._server(address, answers, Calls(self._models, self._metrics, message_bytes_max=message_bytes_max))

    def admin_server(self, address: GrpcAddress) -> GrpcServer:
        """Make the server of the admin port."""
        answers = {
            **self._inference_service("statistics", "model_repository").questions(),
            **self._repository.answers(),
            "ModelInfer": refuse_here(_ASK_DATA_PORT),
        }
        return self._server(address, answers, Calls(self._models, None, message_bytes_max=ADMIN_MESSAGE_BYTES_MAX))

    def _inference_service(self, *extensions: str) -> InferenceService:
        return InferenceService(self._models, self._classes, release=self._release, extensions=extensions)

    def _server(self, address: GrpcAddress, answers: Mapping[str, Answer], calls: Calls) -> GrpcServer:
        check = (self._health_classes["HealthCheckRequest"], HealthService(self._models, self._health_classes).check)
        inference: dict[str, tuple[Any, Answer]] = {
            method: (self._classes[f"{method}Request"], answer) for method, answer in answers.items()
        }
        services = [calls.service(INFERENCE_SERVICE, inference), calls.service(HEALTH_SERVICE, {"Check": check})]
        return GrpcServer(address, services, message_bytes_max=calls.message_bytes_max)
