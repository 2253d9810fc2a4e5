"""The protocol's documents as JSON Schemas, for the OpenAPI pages of those who speak it.

Limits are the decoder's own constants. What a schema cannot say (a name stands once, elements are as many as the shape
has, and of its datatype) the decoder refuses.
"""

from typing import Any, Final

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

SCHEMAS: Final = "#/components/schemas/"

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}


def reference_to(schema: str) -> Schema:
    """Refer to one of the document's schemas by its name."""
    return {"$ref": f"{SCHEMAS}{schema}"}


def whole_number(least: int, most: int | None = None) -> Schema:
    """Describe an integer from `least` to `most`, both allowed; None: no upper bound."""
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def object_of(required: tuple[str, ...], **properties: Schema) -> Schema:
    """Describe an object."""
    return {"type": "object", "required": list(required), "properties": properties}


def inference_schemas() -> dict[str, Schema]:
    """Describe inference requests and responses, by name."""
    return {
        **_request_schemas(),
        "InferenceResponse": object_of(
            ("model_name", "model_version", "outputs"),
            model_name=TEXT,
            model_version=TEXT,
            id=TEXT,
            parameters=_parameters({}),
            outputs={"type": "array", "items": _tensor()},
        ),
        "Shape": {"type": "array", "items": whole_number(0, ELEMENTS_MAX), "maxItems": DIMENSIONS_MAX},
        "Elements": {
            "description": "Flat, row by row, or nested as the shape says. `null` is NaN, in float tensors only",
            "type": "array",
            "items": {"anyOf": [{"type": ["number", "boolean", "string", "null"]}, reference_to("Elements")]},
        },
    }


def description_schemas() -> dict[str, Schema]:
    """Describe what a server tells of itself and its models, and its errors, by name."""
    texts = {"type": "array", "items": TEXT}
    tensors = {"type": "array", "items": reference_to("TensorMetadata")}
    return {
        "ServerMetadata": object_of(("name", "version", "extensions"), name=TEXT, version=TEXT, extensions=texts),
        "Live": object_of(("live",), live=FLAG),
        "Ready": object_of(("ready",), ready=FLAG),
        "ModelReady": object_of(("name", "version", "ready"), name=TEXT, version=TEXT, ready=FLAG),
        "ModelMetadata": object_of(
            ("name", "versions", "platform", "inputs", "outputs"),
            name=TEXT,
            versions=texts,
            platform=TEXT,
            inputs=tensors,
            outputs=tensors,
        ),
        "TensorMetadata": object_of(
            ("name", "datatype", "shape"),
            name=TEXT,
            datatype=_datatype(),
            shape={"description": "-1 is any", "type": "array", "items": {"type": "integer", "minimum": -1}},
        ),
        "Error": object_of(("error",), error=TEXT),
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
        "InferenceRequest": object_of(
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
        "RequestedOutput": object_of(
            ("name",), name=_name(), parameters=_parameters({"binary_data": {"type": "boolean"}})
        ),
    }


def _tensor() -> Schema:
    return object_of(
        ("name", "datatype", "shape"),
        name=_name(),
        datatype=_datatype(),
        shape=reference_to("Shape"),
        parameters=_parameters({"binary_data_size": whole_number(0)}),
        data=reference_to("Elements"),
    )


def _parameters(known: dict[str, Schema]) -> Schema:
    value = {"type": ["string", "number", "boolean"]}
    return {"type": "object", "properties": known, "additionalProperties": value, "maxProperties": PARAMETERS_MAX}


def _name() -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}


def _datatype() -> Schema:
    return {"type": "string", "enum": sorted(DATATYPES)}
