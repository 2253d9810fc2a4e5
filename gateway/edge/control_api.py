"""What is not the hot path, on FastAPI.

The data port's model list and OpenAPI document; the admin port's health, status, experiments and metrics.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from experiments.register import Register
from gateway.access.gate import AccessGate
from gateway.admission import Admission
from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration_report import ConfigurationReport
from gateway.configuration.version_changes import VersionChanges
from gateway.edge import problem
from gateway.edge.change_requests import refuse_with_problems
from gateway.edge.experiments_api import add_experiment_routes
from gateway.edge.http_exchange import request_id_of
from gateway.edge.insight_api import add_insight_routes
from gateway.edge.ofrep_route import add_ofrep_route
from gateway.edge.openapi_paths import add_bare_routes
from gateway.edge.versions_api import add_version_routes
from gateway.experimentation.served_experiments import ServedExperiments
from gateway.metrics import GatewayMetrics
from gateway.prediction_log.log_writer import LogWriter
from settings.followed_files import FollowedFiles

PROBLEM: Final[dict[str, Any]] = {problem.CONTENT_TYPE.decode(): {}}

CODE_BY_STATUS: Final = {
    404: "unknown_path",
    405: "method_not_allowed",
    400: "malformed_request",
    422: "invalid_request",
}


class Health(BaseModel):
    """`ok`, or why not."""

    status: str
    detail: dict[str, str] = {}


class ModelSummary(BaseModel):
    """One served model."""

    name: str
    ready: bool
    default_version: str
    versions: list[str]


def data_api(
    catalogue: Catalogue,
    new_id: Callable[[], str],
    experiments: Callable[[], Register],
    access: AccessGate | None,
) -> FastAPI:
    """Build what the data port serves beside the bare routes. access: None where there are no keys."""
    app = FastAPI(
        title="Sekisho", summary="Predictions and their outcomes", version="1", redoc_url=None, redirect_slashes=False
    )
    _answer_with_problems(app, new_id)

    @app.get("/v1/models", summary="The models that are served")
    async def models() -> list[ModelSummary]:
        return [_summary(catalogue, name) for name in catalogue.models]

    @app.get("/v1/models/{model}", summary="One model")
    async def model(model: str) -> ModelSummary:
        if model not in catalogue.models:
            raise HTTPException(404, f"no model {model[:64]!r} is served here")
        return _summary(catalogue, model)

    add_ofrep_route(app, catalogue, experiments, access)
    _describe_once(app, add_bare_routes)
    return app


def admin_api(
    catalogue: Catalogue,
    admission: Admission,
    log: LogWriter,
    metrics: GatewayMetrics,
    registry: CollectorRegistry,
    is_draining: Callable[[], bool],
    new_id: Callable[[], str],
    configuration: ConfigurationReport,
    versions: VersionChanges,
    experiments: ServedExperiments,
    followed: Sequence[FollowedFiles[Any]] = (),
) -> FastAPI:
    """Build what the admin port serves. followed: files whose state the status tells."""
    app = FastAPI(
        title="Sekisho administration",
        summary="Health, status, experiments, metrics",
        version="1",
        redoc_url=None,
        redirect_slashes=False,
        responses={
            status: {"description": "A problem document (RFC 9457)", "content": PROBLEM}
            for status in (401, 403, 404, 422, 429)
        },
    )
    _answer_with_problems(app, new_id)

    @app.get("/healthz", summary="The process lives")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", summary="Every model's default version can answer", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        if is_draining():
            response.status_code = 503
            return Health(status="draining")
        problems = {
            f"{model.name}@{model.route.default_version}": model.versions[model.route.default_version].reason or ""
            for model in catalogue.models.values()
            if not model.ready
        }
        if problems:
            response.status_code = 503
            return Health(status="not ready", detail=problems)
        return Health(status="ok")

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics_page() -> Response:
        metrics.fold_overdue()
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/admin/v1/status", summary="Versions, workers, log and limits of this process")
    async def status() -> dict[str, Any]:
        counts = log.counts()
        return {
            "pid": os.getpid(),
            "configuration": configuration.status(),
            "experiments": await experiments.status(),
            "models": {name: _status(catalogue, name) for name in catalogue.models},
            "requests_in_flight": admission.in_flight,
            "admission": {
                name: {"limit": model.limit, "in_flight": model.in_flight} for name, model in admission.models.items()
            },
            "draining": is_draining(),
            "files": {files.name: {"in_force": files.problem is None, "problem": files.problem} for files in followed},
            "log": {
                "rows_offered": counts.offered,
                "rows_written": counts.written,
                "rows_pending": counts.pending,
                "rows_in_open_files": log.rows_in_open_files,
                "rows_dropped": counts.dropped,
            },
        }

    add_version_routes(app, versions)
    add_experiment_routes(app, experiments.register, experiments.stored)
    add_insight_routes(app, experiments.register, experiments.stored)
    _describe_once(app)
    return app


def _describe_once(app: FastAPI, add: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Serve the OpenAPI document as bytes that are made once, now that the routes are as they stay.

    add: adds to it what the framework does not know of.
    """
    # The framework's own answer makes dictionaries, and JSON of them, at each request: 5 ms of the event loop, for
    # whoever asks and without a key.
    document = app.openapi()
    if add is not None:
        add(document)
    encoded = msgspec.json.encode(document)

    async def described(_: Request) -> Response:
        return Response(encoded, media_type="application/json")

    routes = app.router.routes
    (place,) = (n for n, route in enumerate(routes) if isinstance(route, Route) and route.path == app.openapi_url)
    routes[place] = Route(str(app.openapi_url), described, include_in_schema=False)


def _answer_with_problems(app: FastAPI, new_id: Callable[[], str]) -> None:
    refuse_with_problems(app, new_id)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        request_id = request_id_of(dict(request.scope["headers"]), new_id)
        status = error.status_code if error.status_code in problem.TITLE_BY_STATUS else 400
        body = problem.document(status, CODE_BY_STATUS.get(status, "malformed_request"), str(error.detail), request_id)
        headers = dict(error.headers or {})
        if status == 405:
            headers["allow"] = ", ".join(_methods_at(app, request))
        return Response(body, status, media_type=problem.CONTENT_TYPE.decode(), headers=headers)

    async def invalid(request: Request, error: Exception) -> Response:
        request_id = request_id_of(dict(request.scope["headers"]), new_id)
        first = error.errors()[0]  # type: ignore[attr-defined]
        where = ".".join(str(part) for part in first["loc"])
        body = problem.document(422, "invalid_request", str(first["msg"]), request_id, where)
        return Response(body, 422, media_type=problem.CONTENT_TYPE.decode())

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def _methods_at(app: FastAPI, request: Request) -> list[str]:
    # Of all routes of the path: the framework names those of the first alone.
    routes = [r for r in app.routes if isinstance(r, Route) and r.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods or ()})


def _summary(catalogue: Catalogue, name: str) -> ModelSummary:
    model = catalogue.models[name]
    return ModelSummary(
        name=name, ready=model.ready, default_version=model.route.default_version, versions=list(model.versions)
    )


def _status(catalogue: Catalogue, name: str) -> dict[str, Any]:
    model = catalogue.models[name]
    return {
        "ready": model.ready,
        "default_version": model.route.default_version,
        "versions": {
            served.version: {
                "ready": served.ready,
                "problem": served.reason,
                "workers": {
                    replica.url: {
                        "reachable": replica.reachable,
                        "connections": len(replica.connections),
                        "outstanding_rows": replica.outstanding_rows,
                        "ejected": replica.health.is_ejected,
                        "ejections": replica.health.ejections,
                        "ready": not replica.health.checked_out,
                    }
                    for replica in served.pool.replicas
                },
            }
            for served in model.versions.values()
        },
    }
