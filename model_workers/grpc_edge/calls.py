"""What is alike for every gRPC method: messages are read within bounds, errors become codes, failures are counted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from contracts.inference import InferenceFormatError
from model_workers.edge import INTERNAL_FAULT, STATUS_AND_REASON_BY_ERROR
from model_workers.errors import (
    AdminRequestRefused,
    ExecutionFailed,
    Expired,
    InputRefused,
    LoadFailed,
    NotReady,
    OperationsFull,
    QueueFull,
    RepositoryError,
    RepositoryUnreadable,
    RequestTooLarge,
    ShuttingDown,
    UnknownModel,
)
from model_workers.grpc_edge.messages import MessageClass
from model_workers.grpc_edge.wire_bounds import NO_FIELD, check_growth
from model_workers.metrics import WorkerMetrics
from model_workers.served_models import ServedModels

CODE_BY_ERROR: Final = {
    InferenceFormatError: grpc.StatusCode.INVALID_ARGUMENT,
    InputRefused: grpc.StatusCode.INVALID_ARGUMENT,
    AdminRequestRefused: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OperationsFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    RepositoryError: grpc.StatusCode.UNAVAILABLE,
    RepositoryUnreadable: grpc.StatusCode.UNAVAILABLE,
    ExecutionFailed: grpc.StatusCode.INTERNAL,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    Expired: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The codes of this edge. What is UNAVAILABLE may be sent again, elsewhere or later; anything not here is INTERNAL."""

DETAILS_CHARACTERS_MAX: Final = 500
"""Of an error's message. It travels in a trailer, of which a client takes 8 KiB by default, in up to 12 bytes each."""

DEADLINE_SLACK_S: Final = 0.01
"""A caller counts its deadline from sending, so that its cancellation may arrive just before the deadline does here."""

Answer = Callable[[Any, Any], Awaitable[Any]]
"""Answers one message, in one call's context, with another message."""

_logger = logging.getLogger(__name__)


class CallRefused(Exception):
    """A call that has no place here, with the code that says so. It is no failure of a request."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


def refuse_here(details: str) -> Answer:
    """Make the answer of a method that another port has."""

    async def refuse(_message: Any, _context: Any) -> Any:
        raise CallRefused(grpc.StatusCode.PERMISSION_DENIED, details)

    return refuse


class Calls:
    """Makes gRPC methods of functions from message to message.

    metrics: where failures are counted; None: nowhere, because an operator's mistakes are no failures to serve.
    message_bytes_max: of one request.
    """

    def __init__(self, models: ServedModels, metrics: WorkerMetrics | None, *, message_bytes_max: int) -> None:
        self._models, self._metrics = models, metrics
        self.message_bytes_max = message_bytes_max

    def service(self, name: str, answers: Mapping[str, tuple[MessageClass, Answer]]) -> Any:
        """Make the handler of a service: by method, the class of its requests and what answers them."""
        methods = {
            method: grpc.unary_unary_rpc_method_handler(self._method(request_class, answer))
            for method, (request_class, answer) in answers.items()
        }
        return grpc.method_handlers_generic_handler(name, methods)

    def _method(self, request_class: MessageClass, answer: Answer) -> Callable[[bytes, Any], Awaitable[bytes]]:
        raw_contents = request_class.DESCRIPTOR.fields_by_name.get("raw_input_contents")
        raw_field = raw_contents.number if raw_contents else NO_FIELD

        # The message is parsed here, and not by the library, whose callers of a broken one would be told UNKNOWN.
        async def call(data: bytes, context: Any) -> bytes:
            message = None
            try:
                message = self._parsed(data, request_class, raw_field)
                response = await answer(message, context)
                encoded: bytes = response.SerializeToString()
            except asyncio.CancelledError:
                remaining_s = context.time_remaining()
                if remaining_s is not None and remaining_s < DEADLINE_SLACK_S:
                    self._count("expired", message)
                raise
            except CallRefused as refused:
                code, details = refused.code, refused.details
            except Exception as error:  # noqa: BLE001 - the edge's last word: an answer is never a traceback
                code, details = self._refused(error, message)
            else:
                return encoded
            return await context.abort(code, details)  # type: ignore[no-any-return] # it never returns

        return call

    def _parsed(self, data: bytes, request_class: MessageClass, raw_field: int) -> Any:
        if len(data) > self.message_bytes_max:
            raise RequestTooLarge("bytes of a message", self.message_bytes_max, len(data))
        check_growth(data, raw_field)
        try:
            return request_class.FromString(data)
        except DecodeError as error:
            raise InferenceFormatError(f"the bytes are no {request_class.DESCRIPTOR.name}") from error

    def _refused(self, error: Exception, message: Any) -> tuple[Any, str]:
        code, details = CODE_BY_ERROR.get(type(error)), str(error)
        if code is None:
            _logger.error("a request failed inside the worker", exc_info=error)
            code, details = grpc.StatusCode.INTERNAL, "the worker failed on this request; its log says why"
        _, reason = STATUS_AND_REASON_BY_ERROR.get(type(error), INTERNAL_FAULT)
        self._count(reason, message)
        return code, details[:DETAILS_CHARACTERS_MAX]

    def _count(self, reason: str, message: Any) -> None:
        if self._metrics is None:
            return
        # Only names that are served become labels: others would let a caller make any number of series.
        model = getattr(message, "model_name", "") or getattr(message, "name", "")
        version = getattr(message, "model_version", "") or getattr(message, "version", "")
        try:
            served = self._models.version(model, version or None)
        except (UnknownModel, NotReady):
            self._metrics.failures.add("", "", reason)
        else:
            self._metrics.failures.add(served.manifest.model, served.manifest.version, reason)
