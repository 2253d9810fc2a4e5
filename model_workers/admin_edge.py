"""The admin port: Triton's model repository extension, and whatever the data port tells without inferring.

Source: Triton Inference Server, `extension_model_repository.md`. Ours beside it: `…/versions/{v}/load` and `…/unload`.
"""

import logging
import re
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec

from model_workers.body import BodyReader
from model_workers.edge import (
    INTERNAL_FAULT,
    MODEL_PATH,
    REPOSITORY_PATH,
    STATUS_AND_REASON_BY_ERROR,
    Receive,
    Scope,
    Send,
    WorkerApp,
    send_json,
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
    """The ASGI application over `control`; `reads` answers what is asked about models and health."""

    def __init__(self, control: RepositoryControl, reads: WorkerApp) -> None:
        self._control, self._reads = control, reads
        self._bodies = BodyReader(BODY_BYTES_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        on_model = MODEL_PATH.fullmatch(path)
        if on_model and on_model["action"] == "infer":
            error = "inference is on the data port (--port); this is the admin port"
            await send_json(send, HTTPStatus.NOT_FOUND, {"error": error})
        elif path.startswith(REPOSITORY_PATH):
            await self._answer(path, scope, receive, send)
        else:
            await self._reads(scope, receive, send)

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        operation = _OPERATION_PATH.fullmatch(path)
        allowed = ("POST",) if operation else ("POST", "GET")
        try:
            if path != "/v2/repository/index" and operation is None:
                await send_json(send, HTTPStatus.NOT_FOUND, {"error": f"there is nothing at {path[:200]!r}"})
            elif scope["method"] not in allowed:
                error = f"this path takes {' and '.join(allowed)} only"
                header = (b"allow", ", ".join(allowed).encode())
                await send_json(send, HTTPStatus.METHOD_NOT_ALLOWED, {"error": error}, header)
            else:
                body, _ = await self._bodies.read(scope["headers"], receive)
                answer = await (self._operate(operation, body) if operation else self._index(body))
                await send_json(send, HTTPStatus.OK, answer)
        except ConnectionResetError:
            return  # the caller is gone; what it began goes on
        except Exception as error:  # noqa: BLE001 - the edge's last word: an answer is never a traceback
            await self._refuse(error, send)

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

    async def _refuse(self, error: Exception, send: Send) -> None:
        status, _ = STATUS_AND_REASON_BY_ERROR.get(type(error), INTERNAL_FAULT)
        message = str(error)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            _logger.error("a request to the admin port failed inside the worker", exc_info=error)
            message = "the worker failed on this request; its log says why"
        await send_json(send, status, {"error": message})


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
