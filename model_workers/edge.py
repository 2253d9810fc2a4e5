"""The worker's HTTP face: the Open Inference Protocol v2 as a bare ASGI application.

No framework: with one, routing and validation would cost more than the model. Each answer is one body message.
"""

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from contracts.headers import INFERENCE_HEADER_CONTENT_LENGTH
from contracts.inference import InferenceFormatError, InferenceRequest, decode_request, encode_response
from model_workers.body import BodyReader
from model_workers.errors import (
    AdminRequestRefused,
    BodiesFull,
    BodyRefused,
    EncodingUnknown,
    ExecutionFailed,
    Expired,
    InputRefused,
    LoadFailed,
    NotReady,
    OperationsFull,
    QueueFull,
    RepositoryError,
    RequestTooLarge,
    ShuttingDown,
    UnknownModel,
)
from model_workers.metrics import WorkerMetrics
from model_workers.model_documents import model_document, statistics_document
from model_workers.openapi import OPENAPI_PATH, openapi_document
from model_workers.served_models import ServedModels, ServedVersion

SERVER_NAME: Final = "sekisho-worker"
EXTENSIONS: Final = ("binary_tensor_data", "statistics", "sekisho_manifest")
"""Of the data port. `sekisho_manifest`, ours, means that `…/manifest` answers; the others are the protocol's names."""

STATUS_AND_REASON_BY_ERROR: Final[dict[type[Exception], tuple[HTTPStatus, str]]] = {
    InferenceFormatError: (HTTPStatus.BAD_REQUEST, "malformed"),
    BodyRefused: (HTTPStatus.BAD_REQUEST, "malformed"),
    InputRefused: (HTTPStatus.BAD_REQUEST, "input_refused"),
    AdminRequestRefused: (HTTPStatus.BAD_REQUEST, "admin_refused"),
    LoadFailed: (HTTPStatus.BAD_REQUEST, "load_failed"),  # as Triton's extension has it
    UnknownModel: (HTTPStatus.NOT_FOUND, "unknown_model"),
    RequestTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    EncodingUnknown: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown_encoding"),
    # The rows were well-formed and the model failed on them: the same rows fail on every worker alike.
    ExecutionFailed: (HTTPStatus.INTERNAL_SERVER_ERROR, "execution_failed"),
    QueueFull: (HTTPStatus.SERVICE_UNAVAILABLE, "queue_full"),
    BodiesFull: (HTTPStatus.SERVICE_UNAVAILABLE, "bodies_full"),
    NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"),
    ShuttingDown: (HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down"),
    OperationsFull: (HTTPStatus.SERVICE_UNAVAILABLE, "operations_full"),
    RepositoryError: (HTTPStatus.SERVICE_UNAVAILABLE, "repository_unreadable"),
    Expired: (HTTPStatus.GATEWAY_TIMEOUT, "expired"),
}
INTERNAL_FAULT: Final = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal")
"""Of anything else: a fault of the worker."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Header = tuple[bytes, bytes]

_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_CLOSE: Final = (b"connection", b"close")
_READING: Final = ("GET", "HEAD")
"""HEAD is GET without the body (RFC 9110, 9.3.2), which the HTTP server leaves out by itself."""

_RETRY_SOON: Final = (b"retry-after", b"1")
REPOSITORY_PATH: Final = "/v2/repository/"
STATISTICS_PATH: Final = "/v2/models/stats"
"""It wins over the metadata of a model called `stats`, whose other paths answer as any model's."""

MODEL_PATH: Final = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>infer|ready|manifest|stats))?"
)

_logger = logging.getLogger(__name__)


class WorkerApp:
    """The ASGI application over `models`. `registry` is what `GET /metrics` shows, `release` what `GET /v2` names."""

    def __init__(
        self,
        models: ServedModels,
        metrics: WorkerMetrics,
        registry: CollectorRegistry,
        *,
        bodies: BodyReader,
        release: str,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        self._models, self._metrics, self._registry, self._bodies = models, metrics, registry, bodies
        self._server_document: dict[str, Any] = {"name": SERVER_NAME, "version": release, "extensions": extensions}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        on_model = MODEL_PATH.fullmatch(path) if path != STATISTICS_PATH else None
        try:
            if on_model is None:
                await self._answer_server(path, scope["method"], send)
            elif on_model["action"] == "infer":
                await self._infer(on_model, scope, receive, send)
            else:
                await self._answer_model(on_model, scope["method"], send)
        except ConnectionResetError:
            return  # the caller is gone, so is whoever would read an answer
        except Exception as error:  # noqa: BLE001 - the edge's last word: an answer is never a traceback
            await self._refuse(error, on_model, send)

    async def _infer(self, on_model: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._refuse_method("POST", send)
            return
        model, asked = on_model["model"], on_model["version"]
        self._models.version(model, asked)  # what is not served is refused before its body is read
        request = decode_request(*await self._bodies.read(scope["headers"], receive))
        # Looked up once more: while the body came, a version may have been loaded anew, or a higher one. From here to
        # the queue nothing awaits, so that nobody's rows meet a version that has left.
        version = self._models.version(model, asked)
        response = await version.infer(request)
        document, buffers = encode_response(response, _binary_outputs(request, version))
        if buffers:
            length = (INFERENCE_HEADER_CONTENT_LENGTH, b"%d" % len(document))
            await self._send(send, HTTPStatus.OK, b"".join((document, *buffers)), _BINARY, length)
        else:
            await self._send(send, HTTPStatus.OK, document, _JSON)

    async def _answer_model(self, on_model: re.Match[str], method: str, send: Send) -> None:
        if method not in _READING:
            await self._refuse_method("GET", send)
            return
        if on_model["action"] == "stats":
            document = statistics_document(self._models, on_model["model"], on_model["version"])
            await self._send_json(send, HTTPStatus.OK, document)
            return
        version = self._models.version(on_model["model"], on_model["version"])
        if on_model["action"] == "manifest":
            await self._send(send, HTTPStatus.OK, version.document, _JSON)
        elif on_model["action"] == "ready":
            ready = self._models.accepting
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            manifest = version.manifest
            await self._send_json(send, status, {"name": manifest.model, "version": manifest.version, "ready": ready})
        else:
            versions = self._models.versions_of(version.manifest.model)
            await self._send_json(send, HTTPStatus.OK, model_document(version, versions))

    async def _answer_server(self, path: str, method: str, send: Send) -> None:
        if path not in (
            "/v2",
            "/v2/",
            "/v2/health/live",
            "/v2/health/ready",
            "/metrics",
            OPENAPI_PATH,
            STATISTICS_PATH,
        ):
            error = f"there is nothing at {path[:200]!r}"
            if path.startswith(REPOSITORY_PATH):
                error = "the model repository extension is on the admin port (--admin-port)"
            await self._send_json(send, HTTPStatus.NOT_FOUND, {"error": error})
        elif method not in _READING:
            await self._refuse_method("GET", send)
        elif path == "/v2/health/live":
            await self._send_json(send, HTTPStatus.OK, {"live": True})
        elif path == "/v2/health/ready":
            ready = self._models.accepting
            await self._send_json(send, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, {"ready": ready})
        elif path == "/metrics":
            for version in self._models:
                version.metrics.note_waiting_rows(version.batcher.waiting_rows)
            exposition = generate_latest(self._registry)
            await self._send(send, HTTPStatus.OK, exposition, (b"content-type", CONTENT_TYPE_LATEST.encode()))
        elif path == STATISTICS_PATH:
            await self._send_json(send, HTTPStatus.OK, statistics_document(self._models, None, None))
        elif path == OPENAPI_PATH:
            server = self._server_document
            await self._send_json(send, HTTPStatus.OK, openapi_document(server["version"], server["extensions"]))
        else:
            await self._send_json(send, HTTPStatus.OK, self._server_document)

    async def _refuse_method(self, allowed: str, send: Send) -> None:
        body = msgspec.json.encode({"error": f"this path takes {allowed} only"})
        await self._send(send, HTTPStatus.METHOD_NOT_ALLOWED, body, _JSON, (b"allow", allowed.encode()))

    async def _refuse(self, error: Exception, on_model: re.Match[str] | None, send: Send) -> None:
        status, reason = STATUS_AND_REASON_BY_ERROR.get(type(error), INTERNAL_FAULT)
        message = str(error)
        if reason == "internal":
            _logger.error("a request failed inside the worker", exc_info=error)
            message = "the worker failed on this request; its log says why"
        self._metrics.failures.add(*self._labels_of(on_model), reason)
        extra = (_RETRY_SOON,) if status is HTTPStatus.SERVICE_UNAVAILABLE else ()
        await self._send(send, status, msgspec.json.encode({"error": message}), _JSON, *extra)

    def _labels_of(self, on_model: re.Match[str] | None) -> tuple[str, str]:
        # Only names that are served become labels: others would let a caller make any number of series.
        try:
            served = self._models.version(on_model["model"], on_model["version"]) if on_model else None
        except (UnknownModel, NotReady):
            served = None
        return (served.manifest.model, served.manifest.version) if served else ("", "")

    async def _send_json(self, send: Send, status: HTTPStatus, document: object) -> None:
        await self._send(send, status, msgspec.json.encode(document), _JSON)

    async def _send(self, send: Send, status: HTTPStatus, body: bytes, *headers: Header) -> None:
        await _send(send, status, body, *headers, *((_CLOSE,) if self._models.draining else ()))


async def send_json(send: Send, status: HTTPStatus, document: object, *headers: Header) -> None:
    """Send a JSON answer; one of 503 says when to retry."""
    extra = (_RETRY_SOON,) if status is HTTPStatus.SERVICE_UNAVAILABLE else ()
    await _send(send, status, msgspec.json.encode(document), _JSON, *headers, *extra)


async def _send(send: Send, status: HTTPStatus, body: bytes, *headers: Header) -> None:
    all_headers = [*headers, (b"content-length", b"%d" % len(body))]
    # int(): an enum member's hash and equality are Python calls, and the server looks its status line up by it.
    await send({"type": "http.response.start", "status": int(status), "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def _binary_outputs(request: InferenceRequest, version: ServedVersion) -> list[str]:
    """Name the outputs that go as raw bytes: what an output says of itself, else what the request says of all."""
    if not request.outputs:
        return list(version.datatypes) if request.binary_output else []
    return [o.name for o in request.outputs if (request.binary_output if o.binary is None else o.binary)]
