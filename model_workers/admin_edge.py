"""The admin port: Triton's model repository extension, and whatever the data port tells without inferring.

Source: Triton Inference Server, `extension_model_repository.md`. Ours beside it: `…/versions/{v}/load` and `…/unload`.
"""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from http_server.content_encoding import encoding_of, inflated
from http_server.exchange import Application, Exchange, Header
from model_workers.edge import (
    INTERNAL_FAULT,
    MODEL_PATH,
    REPOSITORY_PATH,
    STATUS_AND_REASON_BY_ERROR,
    answer_json,
    refuse_method,
)
from model_workers.errors import AdminRequestRefused
from model_workers.repository_control import RepositoryControl

BODY_BYTES_MAX: Final = 64 * 1024
EXTENSIONS: Final = ("model_repository", "statistics", "sekisho_manifest")

_OPERATION_PATH: Final = re.compile(
    r"/v2/repository/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/(?P<operation>load|unload)"
)

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _OperationRequest(msgspec.Struct):
    parameters: dict[str, Any] | None = None


class AdminApp:
    """What the server serves over `control`; `reads` answers what is asked about models and health."""

    def __init__(self, control: RepositoryControl, reads: Application) -> None:
        self._control, self._reads = control, reads
        self._operations: set[asyncio.Task[None]] = set()

    def body_bytes_max(self, target: bytes) -> int:  # noqa: ARG002 - the same for each
        """Return the bound of a body."""
        return BODY_BYTES_MAX

    def serve(self, exchange: Exchange) -> None:
        """Answer one request, or begin what it asks for."""
        path = exchange.path
        on_model = MODEL_PATH.fullmatch(path)
        if on_model and on_model["action"] == "infer":
            error = "inference is on the data port (--port); this is the admin port"
            answer_json(exchange, {"error": error}, HTTPStatus.NOT_FOUND)
        elif not path.startswith(REPOSITORY_PATH):
            self._reads.serve(exchange)
        else:
            # Whoever asked may leave: what it began goes on.
            task = asyncio.get_running_loop().create_task(self._answer(path, exchange))
            self._operations.add(task)
            task.add_done_callback(self._operations.discard)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        """Write the answer to what never became a request."""
        return self._reads.refusal(status, detail, target, headers)

    async def _answer(self, path: str, exchange: Exchange) -> None:
        operation = _OPERATION_PATH.fullmatch(path)
        allowed = ("POST",) if operation else ("POST", "GET")
        try:
            if path != "/v2/repository/index" and operation is None:
                answer_json(exchange, {"error": f"there is nothing at {path[:200]!r}"}, HTTPStatus.NOT_FOUND)
            elif exchange.method not in allowed:
                refuse_method(exchange, *allowed)
            else:
                body = await inflated(exchange.body, encoding_of(exchange.headers), BODY_BYTES_MAX)
                answer_json(exchange, await (self._operate(operation, body) if operation else self._index(body)))
        except Exception as error:  # noqa: BLE001 - the edge's last word: an answer is never a traceback
            _refuse(error, exchange)

    async def _index(self, body: bytes) -> object:
        request = _decoded(body, _IndexRequest)
        await self._control.refresh()
        return self._control.index(request.ready)

    async def _operate(self, operation: re.Match[str], body: bytes) -> object:
        parameters = _decoded(body, _OperationRequest).parameters or {}
        version = _version(operation["version"], parameters)
        if operation["operation"] == "load":
            _refuse_overrides(parameters)
            await self._control.load(operation["model"], version)
        else:
            await self._control.unload(operation["model"], version)
        return {}


def _refuse(error: Exception, exchange: Exchange) -> None:
    status, _ = STATUS_AND_REASON_BY_ERROR.get(type(error), INTERNAL_FAULT)
    message = str(error)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.error("a request to the admin port failed inside the worker", exc_info=error)
        message = "the worker failed on this request; its log says why"
    answer_json(exchange, {"error": message}, status)


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind) if body.strip() else kind()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdminRequestRefused(f"the body is no request: {error}") from error


def _version(in_path: str | None, parameters: dict[str, Any]) -> str | None:
    asked = parameters.get("version")
    if asked is None:
        return in_path
    if not isinstance(asked, str) or not asked:
        raise AdminRequestRefused("parameters.version must be a version as text")
    if in_path is not None and in_path != asked:
        raise AdminRequestRefused("the path names another version than parameters.version")
    return asked


def _refuse_overrides(parameters: dict[str, Any]) -> None:
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise AdminRequestRefused(
                f"parameters {name[:64]!r} is refused: a version is served as it was published, with the hash that its "
                "manifest names; publish another version instead"
            )
