"""OFREP, OpenFeature's remote evaluation protocol: which variant would a unit get?

`POST /ofrep/v1/evaluate/flags/{experiment}`. A flag is an experiment, its value the model version of the arm, its
variant the arm's name. The answer is that of serving: a unit that another experiment of the model takes is not in this
one. Asking assigns nothing and logs nothing.

Source: OpenFeature Remote Evaluation Protocol 0.2, OpenAPI document, `evaluateFlag`.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from experiments import Assignment, Experiment, Reason, assign
from experiments.register import Register
from feature_store import InvalidEntityId, entity_id_bytes
from gateway.access.gate import AccessGate
from gateway.access.keys_file import Scope
from gateway.configuration.catalogue import Catalogue
from gateway.edge.change_requests import json_body, refusals
from gateway.edge.http_exchange import decode_json
from gateway.errors import InvalidRequest, MalformedRequest, UnsupportedMediaType

PATH: Final = "/ofrep/v1/evaluate/flags/{flag}"
BODY_BYTES_MAX: Final = 64 * 1024
KEY_CHARACTERS_SHOWN: Final = 128

REASON_BY_DECISION: Final = {
    Reason.SPLIT: "SPLIT",
    Reason.OVERRIDE: "TARGETING_MATCH",
    Reason.WINNER: "STATIC",
    Reason.NOT_RUNNING: "DISABLED",
}
"""OpenFeature's words; every other decision is DEFAULT."""


_CONTEXT: Final = {"type": "object", "properties": {"context": {"type": "object"}}}
_REFUSED: Final[dict[str, Any]] = {
    "description": "OFREP's own form",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["key", "errorCode"],
                "properties": {name: {"type": "string"} for name in ("key", "errorCode", "errorDetails")},
            }
        }
    },
}


class Evaluation(msgspec.Struct, frozen=True):
    """What an OFREP client asks: the context of one evaluation."""

    context: dict[str, Any] = {}


class Refused(Exception):
    """An evaluation that failed, as OFREP says it."""

    def __init__(self, status: int, code: str, details: str) -> None:
        super().__init__(details)
        self.status, self.code, self.details = status, code, details


def add_ofrep_route(
    app: FastAPI, catalogue: Catalogue, experiments: Callable[[], Register], access: AccessGate | None
) -> None:
    """Add it. experiments: those in force. access: None where there are no keys."""
    decoder = msgspec.json.Decoder(Evaluation)

    @app.post(
        PATH,
        summary="Which variant would a unit get? (OpenFeature Remote Evaluation Protocol)",
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _CONTEXT}}}},
        responses={**refusals(401, 403, 413, 429, 503), 400: _REFUSED, 404: _REFUSED},
    )
    async def evaluate(flag: str, request: Request) -> Response:
        key = flag[:KEY_CHARACTERS_SHOWN]
        try:
            register = experiments()
            entry = register.entries.get(flag)
            experiment = None if entry is None else entry.experiment
            if access is not None:
                model = None if experiment is None else experiment.model
                access.admit(dict(request.scope["headers"]), (Scope.PREDICT, Scope.EXPERIMENT), model)
            answer = _answer(register, experiment, await _context(request, decoder), catalogue)
        except Refused as refused:
            told = {"key": key, "errorCode": refused.code, "errorDetails": refused.details}
            return _json(told, refused.status)
        return _json({"key": key, **answer}, 200)


async def _context(request: Request, decoder: Any) -> dict[str, Any]:
    try:
        body = await json_body(request)
        if len(body) > BODY_BYTES_MAX:
            raise Refused(400, "INVALID_CONTEXT", f"the body has more than {BODY_BYTES_MAX} bytes")
        context: dict[str, Any] = decode_json(decoder, body).context
    except (MalformedRequest, UnsupportedMediaType) as error:
        raise Refused(400, "PARSE_ERROR", error.detail) from None
    except InvalidRequest as error:
        raise Refused(400, "INVALID_CONTEXT", error.detail) from None
    return context


def _answer(
    register: Register, experiment: Experiment | None, context: dict[str, Any], catalogue: Catalogue
) -> dict[str, Any]:
    if experiment is None:
        raise Refused(404, "FLAG_NOT_FOUND", "there is no experiment of that name")
    unit = context.get("targetingKey")
    if isinstance(unit, int) and not isinstance(unit, bool):
        unit = str(unit)  # a number is the same unit as its digits
    if not isinstance(unit, str) or not unit:
        raise Refused(400, "TARGETING_KEY_MISSING", f"targetingKey is to be the {experiment.unit}'s id")
    try:
        entity_id_bytes(unit)
    except InvalidEntityId as error:
        raise Refused(400, "INVALID_CONTEXT", f"targetingKey: {error}") from None
    told = {name: value for name, value in context.items() if name != "targetingKey" and value is not None}
    attributes = {experiment.unit: unit, **told}
    served = catalogue.models.get(experiment.model)
    default = served.route.default_version if served is not None else None
    metadata: dict[str, Any] = {
        "model": experiment.model,
        "revision": experiment.revision,
        "epoch": experiment.epoch,
    }
    if register.is_killed(experiment.model):
        return _default(default, "DISABLED", {**metadata, "decision": "killed"})
    decision = assign(register.of_model(experiment.model), unit, attributes)
    if decision.experiment is None or decision.experiment.name != experiment.name:
        # Another one takes the unit, or was looked at last: what this one would say of it, without the variant.
        alone = assign((experiment,), unit, attributes)
        decision = alone if alone.variant is None else Assignment(experiment, None, Reason.OTHER_SLOT)
    reason = REASON_BY_DECISION.get(decision.reason, "DEFAULT")
    metadata["decision"] = decision.reason.value
    if decision.variant is None:
        return _default(default, reason, metadata)
    return {
        "value": decision.variant.version,
        "variant": decision.variant.name,
        "reason": reason,
        "metadata": metadata,
    }


def _default(version: str | None, reason: str, metadata: dict[str, Any]) -> dict[str, Any]:
    # Without a value a client takes the default of its own code.
    told = {} if version is None else {"value": version}
    return {**told, "variant": "default", "reason": reason, "metadata": metadata}


def _json(content: dict[str, Any], status: int) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
