"""The JSON Schemas of the worker's OpenAPI document.

Limits are the decoder's own constants. What a schema cannot say (a name stands once, elements are as many as the shape
has, and of its datatype) the decoder refuses with 400.
"""

from typing import Any, Final

import msgspec

from contracts.datatypes import DATATYPES
from contracts.inference import (
    DIMENSIONS_MAX,
    ELEMENTS_MAX,
    NAME_LENGTH_MAX,
    PARAMETERS_MAX,
    PRIORITY_LAST,
    TENSORS_MAX,
    TIMEOUT_US_MAX,
)
from contracts.manifest import Manifest
from model_workers.repository_index import LOADING, READY, UNAVAILABLE, UNLOADING

_SCHEMAS: Final = "#/components/schemas/"

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}


def reference_to(schema: str) -> Schema:
    """Refer to one of the document's schemas by its name."""
    return {"$ref": f"{_SCHEMAS}{schema}"}


def whole_number(least: int, most: int | None = None) -> Schema:
    """Describe an integer from `least` to `most`, both allowed; None: no upper bound."""
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def openapi_schemas(*, infers: bool, loads: bool) -> dict[str, Schema]:
    """Make the document's `components/schemas`, for a port that infers, or loads and unloads."""
    _, of_manifest = msgspec.json.schema_components([Manifest], ref_template=f"{_SCHEMAS}{{name}}")
    inference = {
        **_request_schemas(),
        "InferenceResponse": _object(
            ("model_name", "model_version", "outputs"),
            model_name=_TEXT,
            model_version=_TEXT,
            id=_TEXT,
            outputs={"type": "array", "items": _tensor()},
        ),
        "Shape": {"type": "array", "items": whole_number(0, ELEMENTS_MAX), "maxItems": DIMENSIONS_MAX},
        "Elements": {
            "description": "Flat, row by row, or nested as the shape says. `null` is NaN, in float tensors only",
            "type": "array",
            "items": {"anyOf": [{"type": ["number", "boolean", "string", "null"]}, reference_to("Elements")]},
        },
    }
    return {
        **of_manifest,
        **_description_schemas(),
        **_statistics_schemas(),
        **(inference if infers else {}),
        **(_repository_schemas() if loads else {}),
    }


def _request_schemas() -> dict[str, Schema]:
    request_parameters = _parameters(
        {
            "timeout": {
                "description": "Remaining budget in µs; 0 is none, and a day the most that counts",
                **whole_number(0, TIMEOUT_US_MAX),
            },
            "priority": {
                "description": "What the rows are worth beside others that wait: 1 is first; 0 means 2",
                **whole_number(0, PRIORITY_LAST),
            },
            "binary_data_output": {"description": "Outputs as raw bytes", "type": "boolean"},
        }
    )
    return {
        "InferenceRequest": _object(
            ("inputs",),
            inputs={"type": "array", "items": reference_to("InputTensor"), "minItems": 1, "maxItems": TENSORS_MAX},
            outputs={"type": "array", "items": reference_to("RequestedOutput"), "maxItems": TENSORS_MAX},
            id={"type": "string", "maxLength": NAME_LENGTH_MAX},
            parameters=request_parameters,
        ),
        "InputTensor": {
            **_tensor(),
            "description": "Holds `data`, or says with `binary_data_size` how many of the raw bytes are its own",
            "oneOf": [
                {"required": ["data"], "properties": {"parameters": {"properties": {"binary_data_size": False}}}},
                {
                    "required": ["parameters"],
                    "properties": {"data": False, "parameters": {"required": ["binary_data_size"]}},
                },
            ],
        },
        "RequestedOutput": _object(
            ("name",), name=_name(), parameters=_parameters({"binary_data": {"type": "boolean"}})
        ),
    }


def _description_schemas() -> dict[str, Schema]:
    texts = {"type": "array", "items": _TEXT}
    tensors = {"type": "array", "items": reference_to("TensorMetadata")}
    return {
        "ServerMetadata": _object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=texts),
        "Live": _object(("live",), live=_FLAG),
        "Ready": _object(("ready",), ready=_FLAG),
        "ModelReady": _object(("name", "version", "ready"), name=_TEXT, version=_TEXT, ready=_FLAG),
        "ModelMetadata": _object(
            ("name", "versions", "platform", "inputs", "outputs"),
            name=_TEXT,
            versions=texts,
            platform=_TEXT,
            inputs=tensors,
            outputs=tensors,
        ),
        "TensorMetadata": _object(
            ("name", "datatype", "shape"),
            name=_TEXT,
            datatype=_datatype(),
            shape={"description": "-1 is any", "type": "array", "items": {"type": "integer", "minimum": -1}},
        ),
        "Error": _object(("error",), error=_TEXT),
    }


def _repository_schemas() -> dict[str, Schema]:
    state = {"type": "string", "enum": [READY, LOADING, UNLOADING, UNAVAILABLE]}
    version = {"description": "One version, for clients whose paths cannot name it", "type": "string", "minLength": 1}
    return {
        "IndexRequest": _object((), ready={"description": "Only what answers", "type": "boolean"}),
        "IndexEntry": _object(
            ("name", "version", "state", "reason"), name=_TEXT, version=_TEXT, state=state, reason=_TEXT
        ),
        "OperationRequest": _object((), parameters={"type": "object", "properties": {"version": version}}),
    }


def _statistics_schemas() -> dict[str, Schema]:
    counter = whole_number(0)
    duration = _object(("count", "ns"), count=counter, ns=counter)
    durations = ("compute_input", "compute_infer", "compute_output")
    of_request = ("success", "fail", "queue", *durations, "cache_hit", "cache_miss")
    batch = _object(("batch_size", *durations), batch_size=whole_number(1), **dict.fromkeys(durations, duration))
    return {
        "Statistics": _object(
            ("model_stats",), model_stats={"type": "array", "items": reference_to("VersionStatistics")}
        ),
        "VersionStatistics": _object(
            (
                "name",
                "version",
                "last_inference",
                "inference_count",
                "execution_count",
                "inference_stats",
                "batch_stats",
            ),
            name=_TEXT,
            version=_TEXT,
            last_inference={"description": "In ms since the epoch; 0 is never", **counter},
            inference_count={"description": "Rows", **counter},
            execution_count=counter,
            inference_stats=_object(of_request, **dict.fromkeys(of_request, duration)),
            batch_stats={"type": "array", "items": batch},
        ),
    }


def _tensor() -> Schema:
    return _object(
        ("name", "datatype", "shape"),
        name=_name(),
        datatype=_datatype(),
        shape=reference_to("Shape"),
        parameters=_parameters({"binary_data_size": whole_number(0)}),
        data=reference_to("Elements"),
    )


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _parameters(known: dict[str, Schema]) -> Schema:
    value = {"type": ["string", "number", "boolean"]}
    return {"type": "object", "properties": known, "additionalProperties": value, "maxProperties": PARAMETERS_MAX}


def _name() -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}


def _datatype() -> Schema:
    return {"type": "string", "enum": sorted(DATATYPES)}
