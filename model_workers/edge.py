"""The worker's HTTP face: the Open Inference Protocol v2 on the lean server.

No framework: with one, routing and validation would cost more than the model. A request is read, checked and queued in
one call, and its answer is written from the callback of its rows: there is no task in between.
"""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from contracts.inference import InferenceFormatError, InferenceRequest, json_length
from http_server.content_encoding import EncodingCorrupt, EncodingUnknown, InflatedTooLarge, encoding_of, inflated
from http_server.exchange import Exchange, Header, head_of
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
from model_workers.metrics import WorkerMetrics
from model_workers.model_documents import model_document, statistics_document
from model_workers.openapi import OPENAPI_PATH, openapi_document
from model_workers.served_models import QueuedRequest, ServedModels, ServedVersion
from model_workers.wire_memory import WireMemory

SERVER_NAME: Final = "sekisho-worker"
EXTENSIONS: Final = ("binary_tensor_data", "statistics", "sekisho_manifest")
"""Of the data port. `sekisho_manifest`, ours, means that `…/manifest` answers; the others are the protocol's names."""

STATUS_AND_REASON_BY_ERROR: Final[dict[type[Exception], tuple[HTTPStatus, str]]] = {
    InferenceFormatError: (HTTPStatus.BAD_REQUEST, "malformed"),
    EncodingCorrupt: (HTTPStatus.BAD_REQUEST, "malformed"),
    InputRefused: (HTTPStatus.BAD_REQUEST, "input_refused"),
    AdminRequestRefused: (HTTPStatus.BAD_REQUEST, "admin_refused"),
    LoadFailed: (HTTPStatus.BAD_REQUEST, "load_failed"),  # as Triton's extension has it
    UnknownModel: (HTTPStatus.NOT_FOUND, "unknown_model"),
    RequestTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    InflatedTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    EncodingUnknown: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown_encoding"),
    # The rows were well-formed and the model failed on them: the same rows fail on every worker alike.
    ExecutionFailed: (HTTPStatus.INTERNAL_SERVER_ERROR, "execution_failed"),
    QueueFull: (HTTPStatus.SERVICE_UNAVAILABLE, "queue_full"),
    NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"),
    ShuttingDown: (HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down"),
    OperationsFull: (HTTPStatus.SERVICE_UNAVAILABLE, "operations_full"),
    RepositoryError: (HTTPStatus.SERVICE_UNAVAILABLE, "repository_unreadable"),
    RepositoryUnreadable: (HTTPStatus.SERVICE_UNAVAILABLE, "repository_unreadable"),
    Expired: (HTTPStatus.GATEWAY_TIMEOUT, "expired"),
}
INTERNAL_FAULT: Final = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal")
"""Of anything else: a fault of the worker."""

REASON_BY_STATUS: Final = {400: "malformed", 408: "too_slow", 413: "too_large", 431: "malformed", 503: "server_full"}
"""Of what the server refuses before there is a request."""

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""One body, as it is sent and as it inflates. 16,384 rows of 1,000 FP32 features take 62.5 MiB."""

_JSON: Final = b"content-type: application/json\r\n"
_BINARY: Final = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n"
_READING: Final = ("GET", "HEAD")
"""HEAD is GET without the body (RFC 9110, 9.3.2), which the server leaves out by itself."""

_RETRY_SOON: Final = b"retry-after: 1\r\n"
REPOSITORY_PATH: Final = "/v2/repository/"
STATISTICS_PATH: Final = "/v2/models/stats"
"""It wins over the metadata of a model called `stats`, whose other paths answer as any model's."""

_SERVER_PATHS: Final = frozenset(
    {"/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/metrics", OPENAPI_PATH, STATISTICS_PATH}
)
MODEL_PATH: Final = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>infer|ready|manifest|stats))?"
)

_logger = logging.getLogger(__name__)


class WorkerApp:
    """What the server serves over `models`. `registry` is what `GET /metrics` shows, `release` what `GET /v2` names."""

    def __init__(
        self,
        models: ServedModels,
        metrics: WorkerMetrics,
        registry: CollectorRegistry,
        *,
        body_bytes_max: int,
        release: str,
        extensions: tuple[str, ...] = EXTENSIONS,
    ) -> None:
        self._models, self._metrics, self._registry = models, metrics, registry
        self._body_bytes_max = body_bytes_max
        self._server_document: dict[str, Any] = {"name": SERVER_NAME, "version": release, "extensions": extensions}
        self._memory = WireMemory()
        self._inflating: set[asyncio.Task[None]] = set()

    def body_bytes_max(self, target: bytes) -> int:  # noqa: ARG002 - the same for each
        """Return the bound of a body as it is sent."""
        return self._body_bytes_max

    def serve(self, exchange: Exchange) -> None:
        """Answer one request, or queue its rows."""
        path = exchange.path
        on_model = MODEL_PATH.fullmatch(path) if path != STATISTICS_PATH else None
        try:
            if on_model is None:
                self._answer_server(path, exchange)
            elif on_model["action"] == "infer":
                self._infer(on_model, exchange)
            else:
                self._answer_model(on_model, exchange)
        except Exception as error:  # noqa: BLE001 - the edge's last word: an answer is never a traceback
            self._refuse(error, on_model, exchange)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:  # noqa: ARG002
        """Write the answer to what never became a request."""
        self._metrics.failures.add("", "", REASON_BY_STATUS[status])
        return _JSON + (_RETRY_SOON if status == 503 else b""), msgspec.json.encode({"error": detail})

    # Inference -----------------------------------------------------------------------------------------------------

    def _infer(self, on_model: re.Match[str], exchange: Exchange) -> None:
        if exchange.method != "POST":
            refuse_method(exchange, "POST")
            return
        encoding = encoding_of(exchange.headers)
        if not encoding:
            self._queue(on_model, exchange, exchange.body)
            return
        self._models.version(on_model["model"], on_model["version"])  # before anything is inflated
        task = asyncio.get_running_loop().create_task(self._inflate_and_queue(on_model, exchange, encoding))
        self._inflating.add(task)
        task.add_done_callback(self._inflating.discard)

    async def _inflate_and_queue(self, on_model: re.Match[str], exchange: Exchange, encoding: bytes) -> None:
        try:
            self._queue(on_model, exchange, await inflated(exchange.body, encoding, self._body_bytes_max))
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error, on_model, exchange)

    def _queue(self, on_model: re.Match[str], exchange: Exchange, body: bytes) -> None:
        # From the look-up to the queue nothing awaits, so that nobody's rows meet a version that has left meanwhile.
        version = self._models.version(on_model["model"], on_model["version"])
        request = self._memory.decode(body, json_length(exchange.headers))
        queued = version.submit(request)
        queued.answer.add_done_callback(lambda _: self._answer_rows(on_model, exchange, queued))

    def _answer_rows(self, on_model: re.Match[str], exchange: Exchange, queued: QueuedRequest) -> None:
        try:
            binary = _binary_outputs(queued.request, queued.version)
            document, buffers = self._memory.encode(queued.response(), binary)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(error, on_model, exchange)
            return
        if buffers:
            exchange.respond(200, _BINARY % len(document), b"".join((document, *buffers)))
        else:
            exchange.respond(200, _JSON, document)

    # Descriptions --------------------------------------------------------------------------------------------------

    def _answer_model(self, on_model: re.Match[str], exchange: Exchange) -> None:
        if exchange.method not in _READING:
            refuse_method(exchange, *_READING)
            return
        if on_model["action"] == "stats":
            answer_json(exchange, statistics_document(self._models, on_model["model"], on_model["version"]))
            return
        version = self._models.version(on_model["model"], on_model["version"])
        if on_model["action"] == "manifest":
            exchange.respond(200, _JSON, version.document)
        elif on_model["action"] == "ready":
            ready = not self._models.draining  # others may still be loading: this one answers
            manifest = version.manifest
            document = {"name": manifest.model, "version": manifest.version, "ready": ready}
            answer_json(exchange, document, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            answer_json(exchange, model_document(version, self._models.versions_of(version.manifest.model)))

    def _answer_server(self, path: str, exchange: Exchange) -> None:
        if path not in _SERVER_PATHS:
            error = f"there is nothing at {path[:200]!r}"
            if path.startswith(REPOSITORY_PATH):
                error = "the model repository extension is on the admin port (--admin-port)"
            answer_json(exchange, {"error": error}, HTTPStatus.NOT_FOUND)
        elif exchange.method not in _READING:
            refuse_method(exchange, *_READING)
        elif path == "/v2/health/live":
            answer_json(exchange, {"live": True})
        elif path == "/v2/health/ready":
            ready = self._models.accepting
            answer_json(exchange, {"ready": ready}, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)
        elif path == "/metrics":
            for version in self._models:
                version.metrics.note_waiting_rows(version.batcher.waiting_rows)
            head = head_of([(b"content-type", CONTENT_TYPE_LATEST.encode())])
            exchange.respond(200, head, generate_latest(self._registry))
        elif path == STATISTICS_PATH:
            answer_json(exchange, statistics_document(self._models, None, None))
        elif path == OPENAPI_PATH:
            server = self._server_document
            answer_json(exchange, openapi_document(server["version"], server["extensions"]))
        else:
            answer_json(exchange, self._server_document)

    # Refusals ------------------------------------------------------------------------------------------------------

    def _refuse(self, error: Exception, on_model: re.Match[str] | None, exchange: Exchange) -> None:
        status, reason = STATUS_AND_REASON_BY_ERROR.get(type(error), INTERNAL_FAULT)
        message = str(error)
        if reason == "internal":
            _logger.error("a request failed inside the worker", exc_info=error)
            message = "the worker failed on this request; its log says why"
        self._metrics.failures.add(*self._labels_of(on_model), reason)
        answer_json(exchange, {"error": message}, status)

    def _labels_of(self, on_model: re.Match[str] | None) -> tuple[str, str]:
        # Only names that are served become labels: others would let a caller make any number of series.
        try:
            served = self._models.version(on_model["model"], on_model["version"]) if on_model else None
        except (UnknownModel, NotReady):
            served = None
        return (served.manifest.model, served.manifest.version) if served else ("", "")


def answer_json(exchange: Exchange, document: object, status: HTTPStatus = HTTPStatus.OK, more: bytes = b"") -> None:
    """Answer with a JSON document and more header lines; one of 503 says when to retry."""
    retry = _RETRY_SOON if status is HTTPStatus.SERVICE_UNAVAILABLE else b""
    exchange.respond(int(status), _JSON + more + retry, msgspec.json.encode(document))


def refuse_method(exchange: Exchange, *allowed: str) -> None:
    """Answer 405, and name the methods that the path takes."""
    error = f"this path takes {' and '.join(allowed)} only"
    allow = head_of([(b"allow", ", ".join(allowed).encode())])
    answer_json(exchange, {"error": error}, HTTPStatus.METHOD_NOT_ALLOWED, allow)


def _binary_outputs(request: InferenceRequest, version: ServedVersion) -> list[str]:
    """Name the outputs that go as raw bytes: what an output says of itself, else what the request says of all."""
    if not request.outputs:
        return list(version.datatypes) if request.binary_output else []
    return [o.name for o in request.outputs if (request.binary_output if o.binary is None else o.binary)]
