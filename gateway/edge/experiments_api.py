"""Experiments on the admin port: read, made, changed, removed, and all switched off."""

from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from experiments import Experiment
from experiments.register import Register
from gateway.edge.change_requests import DRY_RUN, described, expected_revision, json_body, refusals, who_and_why
from gateway.edge.http_exchange import decode_json
from gateway.errors import ExperimentsFromFiles, UnknownExperiment
from gateway.experimentation.register_changes import Author, Outcome, revisioned
from gateway.experimentation.stored_experiments import StoredExperiments


class KillSwitch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model's experiments are to be off, or on again; `*` means every model's."""

    model: str
    on: bool


def add_experiment_routes(app: FastAPI, experiments: Callable[[], Register], stored: StoredExperiments | None) -> None:
    """Add them. experiments: those in force in this process. stored: None where they come from files."""
    decoder = msgspec.json.Decoder(dict[str, Any])

    @app.get("/admin/v1/experiments", summary="The experiments, by name")
    async def all_of_them(response: Response) -> dict[str, Any]:
        register = experiments()
        response.headers["etag"] = f'"{register.revision}"'
        return {name: revisioned(entry.experiment) for name, entry in sorted(register.entries.items())}

    @app.get("/admin/v1/experiments/{experiment}", summary="One experiment")
    async def one(experiment: str, response: Response) -> dict[str, Any]:
        found = find_in(experiments(), experiment)
        response.headers["etag"] = f'"{found.revision}"'
        return revisioned(found)

    @app.put(
        "/admin/v1/experiments/{experiment}",
        summary="Make an experiment, or change it",
        openapi_extra=described({"type": "object"}, conditional=True),
        responses=refusals(400, 409, 412, 415, 422, 428, 503),
    )
    async def put(experiment: str, request: Request, *, dry_run: bool = DRY_RUN) -> Response:
        changes = stored_in(stored).changes
        author, expected = Author(*who_and_why(request)), expected_revision(request)
        document = decode_json(decoder, await json_body(request))
        return _changed(await changes.put(experiment, document, expected, author, dry_run=dry_run), dry_run=dry_run)

    @app.delete(
        "/admin/v1/experiments/{experiment}",
        summary="Remove an experiment that does not run",
        openapi_extra=described(None, conditional=True),
        responses=refusals(404, 409, 412, 422, 428, 503),
    )
    async def delete(experiment: str, request: Request, *, dry_run: bool = DRY_RUN) -> Response:
        changes = stored_in(stored).changes
        author, expected = Author(*who_and_why(request)), expected_revision(request)
        return _changed(await changes.delete(experiment, expected, author, dry_run=dry_run), dry_run=dry_run)

    _add_kill_switch(app, experiments, stored)


def find_in(register: Register, name: str) -> Experiment:
    """Return an experiment. Raises UnknownExperiment, which names those that there are."""
    entry = register.entries.get(name)
    if entry is None:
        known = ", ".join(sorted(register.entries)) or "none"
        raise UnknownExperiment(f"there is no experiment {name[:64]!r}; there are: {known[:512]}")
    return entry.experiment


def stored_in(stored: StoredExperiments | None) -> StoredExperiments:
    """Return the store's parts. Raises ExperimentsFromFiles where there is none."""
    if stored is None:
        raise ExperimentsFromFiles(
            "this gateway reads its experiments from files: change those, or start it without --experiments"
        )
    return stored


def _add_kill_switch(app: FastAPI, experiments: Callable[[], Register], stored: StoredExperiments | None) -> None:
    decoder = msgspec.json.Decoder(KillSwitch)

    @app.get("/admin/v1/kill-switch", summary="The models whose experiments are off")
    async def killed() -> dict[str, Any]:
        register = experiments()
        return {"revision": register.revision, "killed": sorted(register.killed), "warnings": []}

    @app.put(
        "/admin/v1/kill-switch",
        summary="Send everybody to the default version, or go on with the experiments",
        openapi_extra=described(
            {
                "type": "object",
                "required": ["model", "on"],
                "properties": {"model": {"type": "string"}, "on": {"type": "boolean"}},
            }
        ),
        responses=refusals(400, 404, 409, 415, 422, 503),
    )
    async def kill(request: Request, *, dry_run: bool = DRY_RUN) -> dict[str, Any]:
        changes = stored_in(stored).changes
        author = Author(*who_and_why(request))
        wanted: KillSwitch = decode_json(decoder, await json_body(request))
        change = await changes.kill(wanted.model, author, on=wanted.on, dry_run=dry_run)
        register = change.register
        return {"revision": register.revision, "killed": sorted(register.killed), "warnings": list(change.warnings)}


def _changed(outcome: Outcome, *, dry_run: bool) -> Response:
    change = outcome.change
    experiment = change.entry.experiment if change.entry is not None else None
    body = {
        "revision": experiment.revision if experiment is not None else change.register.revision,
        "epoch": experiment.epoch if experiment is not None else None,
        "units_moved_bp": round(change.units_moved_bp, 2),
        "warnings": list(change.warnings),
        "document": dict(experiment.document) if experiment is not None else None,
    }
    headers = {} if experiment is None or dry_run else {"etag": f'"{experiment.revision}"'}
    status = 201 if outcome.created and not dry_run else 200
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
