"""`grpc.health.v1.Health`, which probes of orchestrators and load balancers ask.

Source: gRPC, "GRPC Health Checking Protocol". `Watch` is not served: its callers then ask `Check` again and again.
"""

from collections.abc import Mapping
from typing import Any, Final

import grpc

from model_workers.grpc_edge.calls import CallRefused
from model_workers.grpc_edge.messages import INFERENCE_SERVICE, MessageClass
from model_workers.served_models import ServedModels

SERVING: Final = 1
NOT_SERVING: Final = 2


class HealthService:
    """Says whether new callers should come here, in messages of `classes`."""

    def __init__(self, models: ServedModels, classes: Mapping[str, MessageClass]) -> None:
        self._models, self._classes = models, classes

    async def check(self, message: Any, _context: Any) -> Any:
        """Answer for the server, which has no name, and for the inference service."""
        if message.service not in ("", INFERENCE_SERVICE):
            raise CallRefused(grpc.StatusCode.NOT_FOUND, f"there is no service {message.service[:64]!r} here")
        status = SERVING if self._models.accepting else NOT_SERVING
        return self._classes["HealthCheckResponse"](status=status)
