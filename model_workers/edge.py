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
    BodiesFull,
    BodyRefused,
    EncodingUnknown,
    ExecutionFailed,
    Expired,
    InputRefused,
    NotReady,
    QueueFull,
    RequestTooLarge,
    ShuttingDown,
    UnknownModel,
)
from model_workers.metrics import WorkerMetrics
from model_workers.served_models import ServedModels, ServedVersion

SERVER_NAME: Final = "sekisho-worker"
EXTENSIONS: Final = ("binary_tensor_data", "sekisho_manifest")
"""`binary_tensor_data` is the protocol's name; `sekisho_manifest` means that `…/manifest` answers."""

STATUS_AND_REASON_BY_ERROR: Final[dict[type[Exception], tuple[HTTPStatus, str]]] = {
    InferenceFormatError: (HTTPStatus.BAD_REQUEST, "malformed"),
    BodyRefused: (HTTPStatus.BAD_REQUEST, "malformed"),
    InputRefused: (HTTPStatus.BAD_REQUEST, "input_refused"),
    UnknownModel: (HTTPStatus.NOT_FOUND, "unknown_model"),
    RequestTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    EncodingUnknown: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown_encoding"),
    # The rows were well-formed and the model failed on them: the same rows fail on every worker alike.
    ExecutionFailed: (HTTPStatus.INTERNAL_SERVER_ERROR, "execution_failed"),
    QueueFull: (HTTPStatus.SERVICE_UNAVAILABLE, "queue_full"),
    BodiesFull: (HTTPStatus.SERVICE_UNAVAILABLE, "bodies_full"),
    NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"),
    ShuttingDown: (HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down"),
    Expired: (HTTPStatus.GATEWAY_TIMEOUT, "expired"),
}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Header = tuple[bytes, bytes]

_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_CLOSE: Final = (b"connection", b"close")
_RETRY_SOON: Final = (b"retry-after", b"1")
_MODEL_PATH: Final = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>infer|ready|manifest))?"
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
    ) -> None:
        self._models, self._metrics, self._registry, self._bodies = models, metrics, registry, bodies
        self._server_document = {"name": SERVER_NAME, "version": release, "extensions": EXTENSIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        on_model = _MODEL_PATH.fullmatch(path)
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
        version = self._models.version(on_model["model"], on_model["version"])
        request = decode_request(*await self._bodies.read(scope["headers"], receive))
        response = await version.infer(request)
        document, buffers = encode_response(response, _binary_outputs(request, version))
        if buffers:
            length = (INFERENCE_HEADER_CONTENT_LENGTH, b"%d" % len(document))
            await self._send(send, HTTPStatus.OK, b"".join((document, *buffers)), _BINARY, length)
        else:
            await self._send(send, HTTPStatus.OK, document, _JSON)

    async def _answer_model(self, on_model: re.Match[str], method: str, send: Send) -> None:
        if method != "GET":
            await self._refuse_method("GET", send)
            return
        version = self._models.version(on_model["model"], on_model["version"])
        if on_model["action"] == "manifest":
            await self._send(send, HTTPStatus.OK, version.document, _JSON)
        elif on_model["action"] == "ready":
            ready = self._models.accepting
            document = {"name": version.manifest.model, "version": version.manifest.version, "ready": ready}
            await self._send_json(send, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, document)
        else:
            versions = self._models.versions_of(version.manifest.model)
            await self._send_json(send, HTTPStatus.OK, _metadata(version, versions))

    async def _answer_server(self, path: str, method: str, send: Send) -> None:
        if path not in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/metrics"):
            await self._send_json(send, HTTPStatus.NOT_FOUND, {"error": f"there is nothing at {path[:200]!r}"})
        elif method != "GET":
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
        else:
            await self._send_json(send, HTTPStatus.OK, self._server_document)

    async def _refuse_method(self, allowed: str, send: Send) -> None:
        body = msgspec.json.encode({"error": f"this path takes {allowed} only"})
        await self._send(send, HTTPStatus.METHOD_NOT_ALLOWED, body, _JSON, (b"allow", allowed.encode()))

    async def _refuse(self, error: Exception, on_model: re.Match[str] | None, send: Send) -> None:
        status, reason = STATUS_AND_REASON_BY_ERROR.get(type(error), (HTTPStatus.INTERNAL_SERVER_ERROR, "internal"))
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
        all_headers = [*headers, (b"content-length", b"%d" % len(body))]
        if self._models.draining:
            all_headers.append(_CLOSE)
        # int(): an enum member's hash and equality are Python calls, and the server looks its status line up by it.
        await send({"type": "http.response.start", "status": int(status), "headers": all_headers})
        await send({"type": "http.response.body", "body": body})


def _binary_outputs(request: InferenceRequest, version: ServedVersion) -> list[str]:
    """Name the outputs that go as raw bytes: what an output says of itself, else what the request says of all."""
    if not request.outputs:
        return list(version.datatypes) if request.binary_output else []
    return [o.name for o in request.outputs if (request.binary_output if o.binary is None else o.binary)]


def _metadata(version: ServedVersion, versions: list[str]) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "name": manifest.model,
        "versions": versions,
        # As Triton spells platforms: onnxruntime_onnx. Ours for others: lightgbm_txt.
        "platform": f"{manifest.runtime}_{manifest.artifact.file.rpartition('.')[2]}",
        "inputs": [{"name": i.name, "datatype": i.dtype, "shape": i.shape} for i in manifest.inputs],
        "outputs": [{"name": o.name, "datatype": o.dtype, "shape": o.shape} for o in manifest.outputs],
    }
