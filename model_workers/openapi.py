"""The worker's OpenAPI 3.1 document, written out: a worker image carries no framework that would make it."""

from collections.abc import Collection
from http import HTTPStatus
from typing import Any, Final

from contracts.inference_schemas import Schema, reference_to, whole_number
from model_workers.openapi_schemas import openapi_schemas

OPENAPI_PATH: Final = "/openapi.json"

_JSON, _BINARY, _TEXT = "application/json", "application/octet-stream", "text/plain"

_TEXT_SCHEMA: Final[Schema] = {"type": "string"}

_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_LENGTH_OF_JSON: Final = "Length in bytes of the JSON before the tensors' raw bytes"

_REFUSAL_BY_STATUS: Final[dict[int, str]] = {
    HTTPStatus.BAD_REQUEST: "The body is no request, or asks for what this model or port does not do",
    HTTPStatus.NOT_FOUND: "This model or version is not served here",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body, or its rows, are beyond what is ever taken",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "A content-encoding other than gzip, deflate or identity",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The model failed on these rows, or the worker on this request",
    HTTPStatus.SERVICE_UNAVAILABLE: "Loading, full, or leaving",
    HTTPStatus.GATEWAY_TIMEOUT: "`parameters.timeout` was spent before the rows reached the model",
}


def openapi_document(release: str, extensions: Collection[str]) -> dict[str, Any]:
    """Describe what one port of a worker answers, as OpenAPI 3.1.

    release: the worker's own version. extensions: as the port's `GET /v2` lists them. With `binary_tensor_data` it
    infers, with `model_repository` it loads and unloads.
    """
    infers, loads = "binary_tensor_data" in extensions, "model_repository" in extensions
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sekisho worker administration" if loads else "Sekisho worker",
            "summary": f"The Open Inference Protocol v2 with {', '.join(extensions)}",
            "version": release,
        },
        "paths": {
            **_server_paths(),
            **_model_paths("/v2/models/{model}", infers=infers),
            **_model_paths("/v2/models/{model}/versions/{version}", infers=infers),
            **(_repository_paths() if loads else {}),
        },
        "components": {"schemas": openapi_schemas(infers=infers, loads=loads)},
    }


# Paths
# ------------------------------------------------------------------------------------------------------------------


def _server_paths() -> dict[str, Any]:
    return {
        "/v2": {"get": _reading("The server's name, release and extensions", _answered("ServerMetadata"))},
        "/v2/health/live": {"get": _reading("The worker listens", _answered("Live"))},
        "/v2/health/ready": {"get": _reading("What can be loaded is loaded and warm", _ready_or_not("Ready"))},
        "/v2/models/stats": {"get": _reading("What all loaded versions did", _answered("Statistics"))},
        "/metrics": {"get": _reading("Prometheus metrics", {"200": _content("Text format", {_TEXT: _TEXT_SCHEMA})})},
        OPENAPI_PATH: {"get": _reading("This document", {"200": _content("OpenAPI 3.1", {_JSON: {"type": "object"}})})},
    }


def _model_paths(path: str, *, infers: bool) -> dict[str, Any]:
    named = _path_parameters(path)
    whose = "A version's" if len(named) > 1 else "The highest loaded version's"
    whose_work = "a version" if len(named) > 1 else "a model's loaded versions"
    unknown = _refusals(HTTPStatus.NOT_FOUND)
    unready = _refusals(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
    operations = {
        "": {"get": _reading(f"{whose} inputs, outputs and platform", _answered("ModelMetadata") | unready)},
        "/ready": {"get": _reading(f"{whose} readiness", _ready_or_not("ModelReady") | unknown)},
        "/manifest": {"get": _reading(f"{whose} manifest.json, byte for byte", _answered("Manifest") | unready)},
        "/stats": {"get": _reading(f"What {whose_work} did", _answered("Statistics") | unready)},
    }
    if infers:
        operations["/infer"] = {"post": _inference(f"{whose} outputs for some rows")}
    return {f"{path}{action}": {"parameters": named, **operation} for action, operation in operations.items()}


def _repository_paths() -> dict[str, Any]:
    listed = {"200": _content("Every version", {_JSON: {"type": "array", "items": reference_to("IndexEntry")}})}
    refused = _refusals(HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    unready = _refusals(HTTPStatus.SERVICE_UNAVAILABLE)
    index = {"summary": "Look at the repository, and list its versions and the served ones"}
    asked = {"requestBody": _optional_json("IndexRequest"), "responses": listed | refused | unready}
    paths: dict[str, Any] = {
        "/v2/repository/index": {"get": index | {"responses": listed | refused | unready}, "post": index | asked}
    }
    done = {"200": _content("Done", {_JSON: {"type": "object"}})}
    answers = done | refused | unready | _refusals(HTTPStatus.NOT_FOUND)
    for path in ("/v2/repository/models/{model}", "/v2/repository/models/{model}/versions/{version}"):
        named = _path_parameters(path)
        for operation in ("load", "unload"):
            summary = f"{operation.capitalize()} {'a version' if len(named) > 1 else 'a model'}"
            post = {"summary": summary, "requestBody": _optional_json("OperationRequest"), "responses": answers}
            paths[f"{path}/{operation}"] = {"parameters": named, "post": post}
    return paths


def _optional_json(schema: str) -> dict[str, Any]:
    return {"required": False, "content": {_JSON: {"schema": reference_to(schema)}}}


def _reading(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {**_no_http(), **responses}}


def _inference(summary: str) -> dict[str, Any]:
    answers = {_JSON: reference_to("InferenceResponse"), _BINARY: {"type": "string", "format": "binary"}}
    answered = _content("The outputs; as octets where raw bytes follow the JSON", answers)
    answered["headers"] = {_HEADER_LENGTH: {"description": _LENGTH_OF_JSON, "schema": whole_number(0)}}
    return {
        "summary": summary,
        "parameters": [
            {
                "name": _HEADER_LENGTH,
                "in": "header",
                "required": False,
                "description": f"{_LENGTH_OF_JSON}; left out where all of the body is JSON",
                "schema": whole_number(0),
            }
        ],
        "requestBody": {
            "required": True,
            "description": "May come chunked, and compressed with gzip or deflate",
            "content": {
                _JSON: {"schema": reference_to("InferenceRequest")},
                # What is raw has no schema in OpenAPI 3.1; the JSON before it is an InferenceRequest.
                _BINARY: {},
            },
        },
        "responses": {"200": answered, **_refusals(*_REFUSAL_BY_STATUS)},
    }


def _path_parameters(path: str) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    names = [name for name in ("model", "version") if f"{{{name}}}" in path]
    return [{"name": name, "in": "path", "required": True, "schema": text} for name in names]


# Responses
# --------------------------------------------------------------------------------------------------------------


def _content(description: str, schemas: dict[str, Schema]) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def _answered(schema: str) -> dict[str, Any]:
    return {"200": _content("Answered", {_JSON: reference_to(schema)})}


def _ready_or_not(schema: str) -> dict[str, Any]:
    either = {_JSON: {"anyOf": [reference_to(schema), reference_to("Error")]}}
    return {**_answered(schema), "503": _content("Not ready: loading, failed to load, or leaving", either)}


def _refusals(*statuses: int) -> dict[str, Any]:
    responses = {}
    for status in statuses:
        responses[str(int(status))] = _content(_REFUSAL_BY_STATUS[status], {_JSON: reference_to("Error")})
    return responses


def _no_http() -> dict[str, Any]:
    error = {_JSON: reference_to("Error")}
    return {
        "400": _content("What came is no HTTP", error),
        "408": _content("It did not arrive in time", error),
        "431": _content("The head is too large", error),
        "503": _content("Too many connections", error),
    }
