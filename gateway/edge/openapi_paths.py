"""The OpenAPI description of the data port's routes that are not FastAPI's; who reads the document need not know."""

from typing import Any, Final

import msgspec

from contracts.inference_schemas import SCHEMAS, Schema, description_schemas, inference_schemas, reference_to
from gateway.edge import inference_route, outcomes_route, predict_route, problem
from gateway.predict_request import PredictAnswer, PredictRequest

_KEY: Final[list[dict[str, list[str]]]] = [{"key": []}, {}]
"""A key; or none, on a gateway that has no keys."""

_JSON, _BINARY, _PROBLEM = "application/json", "application/octet-stream", "application/problem+json"


def add_bare_routes(document: dict[str, Any]) -> None:
    """Add them, and the schemas that they refer to."""
    document["paths"].update({**_predict_paths(), **_inference_paths()})
    messages = [PredictRequest, PredictAnswer, outcomes_route.Outcome]
    _, components = msgspec.json.schema_components(messages, ref_template=f"{SCHEMAS}{{name}}")
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `sk_…`"}}
    schemas = parts.setdefault("schemas", {})
    schemas.update({**components, **description_schemas(), **inference_schemas()})


def _predict_paths() -> dict[str, Any]:
    refusals = _refusals({_PROBLEM: {}}, "A problem document (RFC 9457)")
    predict = {
        "summary": "Score one or many instances",
        "security": _KEY,
        "parameters": [_in_path("model"), *_HEADERS],
        "requestBody": {"required": True, "content": _content(reference_to("PredictRequest"))},
        "responses": {"200": _answered(reference_to("PredictAnswer")), **refusals},
    }
    outcome = reference_to("Outcome")
    either: Schema = {"oneOf": [outcome, {"type": "array", "items": outcome, "minItems": 1}]}
    accepted: Schema = {"type": "object", "properties": {"accepted": {"type": "integer"}}}
    outcomes = {
        "summary": "Tell what happened after predictions",
        "security": _KEY,
        "requestBody": {"required": True, "content": _content(either)},
        "responses": {"202": _answered(accepted), **refusals},
    }
    return {predict_route.ROUTE: {"post": predict}, outcomes_route.PATH: {"post": outcomes}}


def _inference_paths() -> dict[str, Any]:
    refusals = _refusals({_JSON: {"schema": reference_to("Error")}}, "The protocol's error")
    asked = {
        "required": True,
        "description": "May come compressed with gzip or deflate",
        # What is raw has no schema in OpenAPI 3.1; the JSON before it is an InferenceRequest.
        "content": {**_content(reference_to("InferenceRequest")), _BINARY: {}},
    }
    answered = _answered(reference_to("InferenceResponse"))
    answered["content"][_BINARY] = {"schema": {"type": "string", "format": "binary"}}

    def reading(summary: str, schema: str, *names: str, ready: bool = False) -> dict[str, Any]:
        unready = {"503": _answered(reference_to(schema))} if ready else {}
        responses = {"200": _answered(reference_to(schema)), **refusals, **unready}
        return {"get": {"summary": summary, "parameters": [_in_path(name) for name in names], "responses": responses}}

    def inferring(summary: str, *names: str) -> dict[str, Any]:
        parameters = [*map(_in_path, names), *_HEADERS]
        responses = {"200": answered, **refusals}
        return {
            "post": {
                "summary": summary,
                "security": _KEY,
                "parameters": parameters,
                "requestBody": asked,
                "responses": responses,
            },
        }

    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return {
        "/v2": reading("The server's name, release and extensions", "ServerMetadata"),
        "/v2/health/live": reading("The gateway listens", "Live"),
        "/v2/health/ready": reading("Every model's default version can answer", "Ready", ready=True),
        model: reading("The default version's tensors", "ModelMetadata", "model"),
        version: reading("A version's tensors", "ModelMetadata", "model", "version"),
        f"{model}/ready": reading("Whether the model can answer", "ModelReady", "model", ready=True),
        f"{version}/ready": reading("Whether the version can answer", "ModelReady", "model", "version", ready=True),
        inference_route.ROUTE: inferring("Score rows through the split", "model"),
        inference_route.VERSION_ROUTE: inferring("Score rows by one version", "model", "version"),
    }


def _header(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


_HEADERS = (
    _header("x-request-id", {"type": "string"}),
    _header("x-request-timeout-ms", {"type": "integer", "minimum": 1}),
    _header("x-priority", {"type": "string", "enum": ["critical", "default", "sheddable"]}),
    _header("x-sekisho-variant", {"type": "string"}),
)


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _content(schema: Schema) -> dict[str, Any]:
    return {_JSON: {"schema": schema}}


def _answered(schema: Schema) -> dict[str, Any]:
    return {"description": "Answered", "content": _content(schema)}


def _refusals(content: dict[str, Any], description: str) -> dict[str, Any]:
    statuses = sorted({*problem.STATUS_BY_ERROR.values(), 431})
    return {str(status): {"description": description, "content": content} for status in statuses}
