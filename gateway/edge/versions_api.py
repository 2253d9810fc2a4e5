"""Versions at run time: `PUT` and `DELETE /admin/v1/models/{model}/versions/{version}`, `PUT …/default_version`."""

import logging
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from contracts.manifest import Name
from gateway.configuration.version_changes import VersionChanges, VersionState
from gateway.edge.change_requests import DRY_RUN, described, json_body, refusals, who_and_why
from gateway.edge.http_exchange import decode_json
from gateway.routes_file import VersionRoute

_SCHEMAS: Final = "#/components/schemas/{name}"

audit = logging.getLogger("gateway.audit")


class DefaultVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version is to be the default one."""

    version: Name


def add_version_routes(app: FastAPI, changes: VersionChanges) -> None:
    """Add the three operations to the admin port's application."""
    decode_route, decode_default = msgspec.json.Decoder(VersionRoute), msgspec.json.Decoder(DefaultVersion)

    @app.put(
        "/admin/v1/models/{model}/versions/{version}",
        summary="Add a version, or replace where it is served",
        openapi_extra=_described(VersionRoute),
        responses=_answers(200, 201, 404, 422, 503),
    )
    async def put(model: str, version: str, request: Request, *, dry_run: bool = DRY_RUN) -> Response:
        actor, reason = who_and_why(request)
        route = decode_json(decode_route, await json_body(request))
        state, added = await changes.put(model, version, route, dry_run=dry_run)
        _tell("put_version", state, actor, reason, dry_run=dry_run, route=msgspec.to_builtins(route))
        return _answer(state, 201 if added else 200)

    @app.delete(
        "/admin/v1/models/{model}/versions/{version}",
        summary="Remove a version that nothing sends requests to",
        openapi_extra=_described(None),
        responses=_answers(200, 404, 409, 422, 503),
    )
    async def delete(model: str, version: str, request: Request, *, dry_run: bool = DRY_RUN) -> Response:
        actor, reason = who_and_why(request)
        state = await changes.delete(model, version, dry_run=dry_run)
        _tell("delete_version", state, actor, reason, dry_run=dry_run)
        return _answer(state, 200)

    @app.put(
        "/admin/v1/models/{model}/default_version",
        summary="Make another version the default one",
        openapi_extra=_described(DefaultVersion),
        responses=_answers(200, 404, 409, 422, 503),
    )
    async def put_default(model: str, request: Request, *, dry_run: bool = DRY_RUN) -> Response:
        actor, reason = who_and_why(request)
        wanted: DefaultVersion = decode_json(decode_default, await json_body(request))
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


def _tell(action: str, state: VersionState, actor: str, reason: str, *, dry_run: bool, **more: Any) -> None:
    told = {"action": action, "actor": actor, "reason": reason, "dry_run": dry_run, **more}
    audit.info("a change by an administrator", extra={**told, "model": state.model, "version": state.version})


def _answer(state: VersionState, status: int) -> Response:
    return Response(msgspec.json.encode(state), status, media_type="application/json")


def _described(body: type | None) -> dict[str, Any]:
    return described(None if body is None else {"$ref": _SCHEMAS.format(name=body.__name__)})


def _answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    state = {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=VersionState.__name__)}}}
    done: dict[int | str, dict[str, Any]] = {
        status: {"description": "What it has led to", "content": state} for status in statuses if status < 300
    }
    return {**done, **refusals(*(status for status in statuses if status >= 300), 400, 415)}
