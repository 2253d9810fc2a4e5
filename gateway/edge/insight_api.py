"""How experiments stand, on the admin port: guardrails, published results, one unit's decisions, the audit trail."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, TypeVar

import msgspec
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from experiments import Assignment, Experiment, assign
from experiments.canary import ArmCounts, Counts, quantile_ms
from experiments.guardrails import ALPHA
from experiments.register import Register
from gateway.edge.change_requests import described, json_body, refusals, who_and_why
from gateway.edge.experiments_api import find_in, stored_in
from gateway.edge.http_exchange import decode_json
from gateway.errors import BodyTooLarge, ExperimentsUnavailable, InvalidRequest, NoResults
from gateway.experimentation.experiment_store import RESULTS_BYTES_MAX, AuditEntry, StoreUnavailable
from gateway.experimentation.stored_experiments import StoredExperiments

UNIT_CHARACTERS_MAX: Final = 256
ATTRIBUTES_CHARACTERS_MAX: Final = 8_192
AUDIT_PAGE_MAX: Final = 1_000
AUDIT_READ_AT_ONCE: Final = 100
"""Entries, each with two documents, which may be long."""

AUDIT_READ_MAX: Final = 10_000
"""Entries that one request goes through for those of one experiment."""

_ID: Final = r"^\d{1,19}-\d{1,19}$"
"""Of a stream's entry: two numbers of 64 bits."""

_UNIT: Final = Query(min_length=1, max_length=UNIT_CHARACTERS_MAX)
_ATTRIBUTES: Final = Query(
    default="{}", max_length=ATTRIBUTES_CHARACTERS_MAX, description="JSON: entities and features that `where` may read"
)


T = TypeVar("T")


class Results(msgspec.Struct, frozen=True):
    """Published results, as they are kept."""

    published_at: str
    actor: str
    results: msgspec.Raw


def add_insight_routes(app: FastAPI, experiments: Callable[[], Register], stored: StoredExperiments | None) -> None:
    """Add them. experiments: those in force in this process. stored: None where they come from files."""
    _add_guardrails(app, experiments, stored)
    _add_results(app, experiments, stored)
    _add_audit(app, stored)
    _add_explanations(app, experiments)


def _add_guardrails(app: FastAPI, experiments: Callable[[], Register], stored: StoredExperiments | None) -> None:
    @app.get(
        "/admin/v1/experiments/{experiment}/guardrails",
        summary="What its arms came to, and its guardrails",
        responses=refusals(404, 409, 503),
    )
    async def guardrails(experiment: str) -> dict[str, Any]:
        found = find_in(experiments(), experiment)
        counts, findings = await _available(stored_in(stored).controller.findings(found))
        return {
            "experiment": found.name,
            "revision": found.revision,
            "epoch": found.epoch,
            "enrol_bp": found.enrol_bp,
            "alpha": ALPHA,
            "arms": {variant.name: _arm(counts, variant.name) for variant in found.variants},
            "findings": [asdict(finding) for finding in findings],
        }


def _add_results(app: FastAPI, experiments: Callable[[], Register], stored: StoredExperiments | None) -> None:
    decoder = msgspec.json.Decoder(dict[str, Any])

    @app.get(
        "/admin/v1/experiments/{experiment}/results",
        summary="The results that were published last",
        responses=refusals(404, 409, 503),
    )
    async def results(experiment: str) -> Response:
        found = find_in(experiments(), experiment)
        data = await _available(stored_in(stored).store.results(found.name))
        if data is None:
            raise NoResults(
                f"nobody has published results: `sekisho-experiments results {found.name} --log DIR --publish` does"
            )
        return Response(data, media_type="application/json")

    @app.put(
        "/admin/v1/experiments/{experiment}/results",
        summary="Publish results",
        openapi_extra=described({"type": "object"}),
        responses=refusals(400, 404, 409, 413, 415, 422, 503),
    )
    async def publish(experiment: str, request: Request) -> Response:
        keeper = stored_in(stored)
        actor, _ = who_and_why(request)
        found, body = find_in(experiments(), experiment), await json_body(request)
        if len(body) > RESULTS_BYTES_MAX:
            raise BodyTooLarge(f"results have at most {RESULTS_BYTES_MAX} bytes")
        decode_json(decoder, body)
        results = Results(published_at=keeper.now().isoformat(), actor=actor, results=msgspec.Raw(body))
        data = msgspec.json.encode(results)
        await _available(keeper.store.publish_results(found.name, data))
        return Response(data, media_type="application/json")


def _add_audit(app: FastAPI, stored: StoredExperiments | None) -> None:
    @app.get(
        "/admin/v1/audit", summary="Who changed what, when and why; the newest first", responses=refusals(409, 422, 503)
    )
    async def audit(
        experiment: str | None = Query(default=None, max_length=128),
        limit: int = Query(default=100, ge=1, le=AUDIT_PAGE_MAX),
        before: str | None = Query(default=None, pattern=_ID),
    ) -> dict[str, Any]:
        found: list[AuditEntry] = []
        read, last = 0, before
        while len(found) < limit and read < AUDIT_READ_MAX:
            page = await _available(stored_in(stored).store.audit(AUDIT_READ_AT_ONCE, last))
            read += len(page)
            found += [e for e in page if experiment is None or e.content.get("experiment") == experiment]
            if len(page) < AUDIT_READ_AT_ONCE:
                last = None
                break
            last = page[-1].id
        more = len(found) > limit
        found = found[:limit]
        return {
            "entries": [{"id": entry.id, **entry.content} for entry in found],
            "next": found[-1].id if more else last,
        }


def _add_explanations(app: FastAPI, experiments: Callable[[], Register]) -> None:
    @app.get(
        "/admin/v1/experiments/{experiment}/explain",
        summary="One unit's decision, with the bucket numbers",
        responses=refusals(404, 422),
    )
    async def explain(experiment: str, unit: str = _UNIT, attributes: str = _ATTRIBUTES) -> dict[str, Any]:
        found = find_in(experiments(), experiment)
        return _decision(found, unit, _read_attributes(attributes))

    @app.get("/admin/v1/explain", summary="Every experiment's decision for one unit, and what each model serves by")
    async def explain_all(
        unit: str = _UNIT,
        model: str | None = Query(default=None, max_length=128),
        attributes: str = _ATTRIBUTES,
    ) -> dict[str, Any]:
        register, given = experiments(), _read_attributes(attributes)
        chosen = [e.experiment for _, e in sorted(register.entries.items()) if model in (None, e.experiment.model)]
        models = sorted({experiment.model for experiment in chosen})
        decided = [(e, _decision(e, unit, given)) for e in chosen]
        return {
            "unit": unit,
            "decisions": [
                {"experiment": e.name, "model": e.model, "epoch": e.epoch, **decision} for e, decision in decided
            ],
            "serves": {name: _served(register, name, unit, given) for name in models},
        }


async def _available(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except StoreUnavailable as error:
        raise ExperimentsUnavailable(str(error)) from None


def _read_attributes(text: str) -> dict[str, Any]:
    try:
        attributes: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"a JSON object is expected: {str(error)[:200]}", "attributes") from None
    return {name: value for name, value in attributes.items() if value is not None}  # a null is no value


def _decision(experiment: Experiment, unit: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    decision = assign((experiment,), unit, {experiment.unit: unit, **attributes})
    return {
        "unit": unit,
        "enrolled": decision.enrolled,
        **_arm_of(decision),
        "enrol_bucket": decision.enrol_bucket,
        "split_bucket": decision.split_bucket,
        "revision": experiment.revision,
    }


def _served(register: Register, model: str, unit: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    own = register.of_model(model)
    kinds = {experiment.unit: unit for experiment in own}
    decision = assign(own, unit, {**kinds, **attributes})
    reason = {"reason": "killed"} if register.is_killed(model) else {}
    name = decision.experiment.name if decision.experiment is not None and decision.variant is not None else None
    return {"experiment": name, **_arm_of(decision), **reason}


def _arm_of(decision: Assignment) -> dict[str, Any]:
    variant = decision.variant
    return {
        "variant": variant.name if variant is not None else None,
        "version": variant.version if variant is not None else None,
        "reason": decision.reason.value,
    }


def _arm(counts: Counts, name: str) -> dict[str, Any]:
    total = ArmCounts()
    for arms in counts.values():
        if name in arms:
            total.add(arms[name])
    return {
        "requests": total.requests,
        "errors": total.errors,
        "fallbacks": total.fallbacks,
        "p50_ms": round(quantile_ms(total.latency, 0.5), 3),
        "p99_ms": round(quantile_ms(total.latency, 0.99), 3),
    }
