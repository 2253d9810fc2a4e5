"""Versions at run time: `PUT` and `DELETE /admin/v1/models/{model}/versions/{version}`, `PUT …/default_version`."""

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from contracts.manifest import Name
from gateway.configuration.version_changes import VersionChanges, VersionState
from gateway.edge import problem
from gateway.edge.http_exchange import check_json, decode_json, request_id_of
from gateway.errors import GatewayError, InvalidRequest
from gateway.routes_file import VersionRoute

ACTOR: Final = "x-sekisho-actor"
REASON: Final = "x-sekisho-reason"
HEADER_CHARACTERS_MAX: Final = 256
"""Of an actor or a reason: a line of the audit log."""

_SCHEMAS: Final = "#/components/schemas/{name}"
_DRY_RUN: Final = Query(default=False, description="Say what would be answered, and change nothing.")

audit = logging.getLogger("gateway.audit")


class DefaultVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is to be the default one."""

    version: Name


def add_version_routes(app: FastAPI, changes: VersionChanges, new_id: Callable[[], str]) -> None:
    """Add the three operations to the admin port's application."""
    decode_route, decode_default = msgspec.json.Decoder(VersionRoute), msgspec.json.Decoder(DefaultVersion)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        status, headers, body = problem.problem(error, request_id_of(dict(request.scope["headers"]), new_id))
        named = {name.decode(): value.decode() for name, value in headers}
        return Response(body, status, named, media_type=problem.CONTENT_TYPE.decode())

    app.add_exception_handler(GatewayError, refused)

    @app.put(
        "/admin/v1/models/{model}/versions/{version}",
        summary="Add a version, or replace where it is served",
        openapi_extra=_described(VersionRoute),
        responses=_answers(200, 201, 404, 422, 503),
    )
    async def put(model: str, version: str, request: Request, *, dry_run: bool = _DRY_RUN) -> Response:
        actor, reason = _who_and_why(request)
        route = decode_json(decode_route, await _json_body(request))
        state, added = await changes.put(model, version, route, dry_run=dry_run)
        _tell("put_version", state, actor, reason, dry_run=dry_run, route=msgspec.to_builtins(route))
        return _answer(state, 201 if added else 200)

    @app.delete(
        "/admin/v1/models/{model}/versions/{version}",
        summary="Remove a version that nothing sends requests to",
        openapi_extra=_described(None),
        responses=_answers(200, 404, 409, 422, 503),
    )
    async def delete(model: str, version: str, request: Request, *, dry_run: bool = _DRY_RUN) -> Response:
        actor, reason = _who_and_why(request)
        state = await changes.delete(model, version, dry_run=dry_run)
        _tell("delete_version", state, actor, reason, dry_run=dry_run)
        return _answer(state, 200)

    @app.put(
        "/admin/v1/models/{model}/default_version",
        summary="Make another version the default one",
        openapi_extra=_described(DefaultVersion),
        responses=_answers(200, 404, 409, 422, 503),
    )
    async def put_default(model: str, request: Request, *, dry_run: bool = _DRY_RUN) -> Response:
        actor, reason = _who_and_why(request)
        wanted: DefaultVersion = decode_json(decode_default, await _json_body(request))
        state = await changes.set_default(model, wanted.version, dry_run=dry_run)
        _tell("put_default_version", state, actor, reason, dry_run=dry_run)
        return _answer(state, 200)

    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        _, schemas = msgspec.json.schema_components((VersionRoute, DefaultVersion, VersionState), ref_template=_SCHEMAS)
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _who_and_why(request: Request) -> tuple[str, str]:
    actor = getattr(request.state, "actor", None) or request.headers.get(ACTOR, "")
    return _checked(ACTOR, str(actor)), _checked(REASON, request.headers.get(REASON, ""))


def _checked(name: str, value: str) -> str:
    if not 1 <= len(value) <= HEADER_CHARACTERS_MAX or not value.isprintable():
        raise InvalidRequest(f"a change needs this header: 1 to {HEADER_CHARACTERS_MAX} printable characters", name)
    return value


async def _json_body(request: Request) -> bytes:
    check_json(dict(request.scope["headers"]))
    return await request.body()  # the port bounds it


def _tell(action: str, state: VersionState, actor: str, reason: str, *, dry_run: bool, **more: Any) -> None:
    told = {"action": action, "actor": actor, "reason": reason, "dry_run": dry_run, **more}
    audit.info("a change by an administrator", extra={**told, "model": state.model, "version": state.version})


def _answer(state: VersionState, status: int) -> Response:
    return Response(msgspec.json.encode(state), status, media_type="application/json")


def _described(body: type | None) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": HEADER_CHARACTERS_MAX}
    headers = [{"name": name, "in": "header", "required": True, "schema": text} for name in (ACTOR, REASON)]
    if body is None:
        return {"parameters": headers}
    schema = {"$ref": _SCHEMAS.format(name=body.__name__)}
    content = {"application/json": {"schema": schema}}
    return {"parameters": headers, "requestBody": {"required": True, "content": content}}


def _answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    state = {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=VersionState.__name__)}}}
    told: dict[int | str, dict[str, Any]] = {}
    for status in (*statuses, 400, 415):
        refusal = {"description": problem.TITLE_BY_STATUS.get(status, ""), "content": {_PROBLEM_TYPE: {}}}
        told[status] = {"description": "What it has led to", "content": state} if status < 300 else refusal
    return told


_PROBLEM_TYPE: Final = problem.CONTENT_TYPE.decode()
