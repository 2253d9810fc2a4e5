"""Inference requests and responses of the Open Inference Protocol v2, in JSON and with the binary tensor extension.

A body is one JSON document, optionally followed by the raw bytes of the tensors that say `binary_data_size`, in the
order in which they are listed; a header then gives the length of the JSON.

Source: KServe open-inference-protocol, `inference_rest.md` and `binary_data_extension.md`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from contracts.headers import INFERENCE_HEADER_CONTENT_LENGTH
from contracts.tensor import InferenceFormatError, Tensor, join_byte_elements, split_byte_elements, tensor_of
from contracts.tensor_json import (
    DIMENSIONS_MAX,
    ELEMENTS_MAX,
    NAME_LENGTH_MAX,
    PARAMETERS_MAX,
    Name,
    Parameters,
    TensorJson,
    binary_tensor,
    decode_tensors,
    json_tensor,
    raw_tensors,
    refuse_repeats,
)

__all__ = [
    "DIMENSIONS_MAX",
    "ELEMENTS_MAX",
    "HEADER_BYTES_MAX",
    "NAME_LENGTH_MAX",
    "PARAMETERS_MAX",
    "PRIORITY_DEFAULT",
    "PRIORITY_FIRST",
    "PRIORITY_LAST",
    "TENSORS_MAX",
    "TIMEOUT_US_MAX",
    "InferenceFormatError",
    "InferenceRequest",
    "InferenceResponse",
    "Parameter",
    "RequestedOutput",
    "Tensor",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "join_byte_elements",
    "json_length",
    "request_of",
    "split_byte_elements",
    "tensor_of",
]

Parameter = str | bool | int | float
"""What a parameter may be: the protocol has no nested ones."""

LENGTH_DIGITS_MAX = 12
"""Of a length in a header: 12 digits are more than any body, and int() of millions of digits takes minutes."""

TENSORS_MAX = 256
HEADER_BYTES_MAX = 8 * 1024 * 1024

PRIORITY_FIRST = 1
PRIORITY_DEFAULT = 2
PRIORITY_LAST = 3

TIMEOUT_US_MAX = 24 * 60 * 60 * 1_000_000
"""A longer `parameters.timeout` counts as a day, so that no sum of times overflows anywhere."""


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the caller asks for, and whether it wants it as raw bytes (None: not said)."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """A decoded request. No requested outputs means all of them."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    parameters: dict[str, Parameter] | None = None
    binary_output: bool = False

    @property
    def timeout_us(self) -> int | None:
        """The caller's remaining budget, from `parameters.timeout`; None where it sets none (0 is none)."""
        timeout = (self.parameters or {}).get("timeout")
        if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0:
            return None
        return min(timeout, TIMEOUT_US_MAX)

    @property
    def priority(self) -> int:
        """What the rows are worth beside others that wait, from `parameters.priority`: 1 is first, 3 last.

        0 and what is not said mean 2; anything above 3 means 3. Source: Triton's scheduling policy extension.
        """
        priority = (self.parameters or {}).get("priority")
        if not isinstance(priority, int) or isinstance(priority, bool) or priority <= 0:
            return PRIORITY_DEFAULT
        return min(priority, PRIORITY_LAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResponse:
    """A decoded response."""

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    parameters: dict[str, Parameter] | None = None


# The JSON documents, as they stand on the wire
# -------------------------------------------------------------------------


class _OutputJson(msgspec.Struct, omit_defaults=True):
    name: Name
    parameters: Parameters | None = None


class _RequestJson(msgspec.Struct, omit_defaults=True):
    inputs: Annotated[list[TensorJson], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    id: Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)] = ""
    parameters: Parameters | None = None
    outputs: Annotated[list[_OutputJson], msgspec.Meta(max_length=TENSORS_MAX)] | None = None


class _ResponseJson(msgspec.Struct, omit_defaults=True):
    model_name: str
    outputs: Annotated[list[TensorJson], msgspec.Meta(max_length=TENSORS_MAX)]
    model_version: str = ""
    id: str = ""
    parameters: Parameters | None = None


_request_decoder = msgspec.json.Decoder(_RequestJson)
_response_decoder = msgspec.json.Decoder(_ResponseJson)
_encoder = msgspec.json.Encoder()


# Requests
# --------------------------------------------------------------------------------------------------------------


def decode_request(body: bytes, header_length: int | None) -> InferenceRequest:
    """Decode a request body. `header_length` is the JSON part's length in bytes; None: the body is all JSON.

    Raises InferenceFormatError, which names the tensor at fault.
    """
    document: _RequestJson = _decode_json(_request_decoder, body, header_length)
    return _request(document, decode_tensors("input", document.inputs, body, header_length))


def request_of(document: dict[str, Any], contents: Sequence[bytes]) -> InferenceRequest:
    """Check and make a request that another transport than HTTP carried, just as strictly as a body of JSON.

    document: what a body of JSON would hold, without the tensors' elements. contents: raw bytes, one of each input.
    Raises InferenceFormatError, which names the tensor at fault.
    """
    try:
        checked = msgspec.convert(document, _RequestJson)
    except msgspec.ValidationError as error:
        raise InferenceFormatError(str(error)) from error
    return _request(checked, raw_tensors("input", checked.inputs, contents))


def _request(document: _RequestJson, inputs: tuple[Tensor, ...]) -> InferenceRequest:
    parameters = _checked_parameters(document.parameters, "the request")
    for key in ("timeout", "priority"):
        _check_whole_number(parameters, key)
    outputs = tuple(
        RequestedOutput(o.name, _flag(_checked_parameters(o.parameters, f"output {o.name!r}"), "binary_data", o.name))
        for o in document.outputs or ()
    )
    refuse_repeats("output", [o.name for o in outputs])
    return InferenceRequest(
        inputs=inputs,
        outputs=outputs,
        id=document.id,
        parameters=parameters,
        binary_output=bool(_flag(parameters, "binary_data_output", "the request")),
    )


def encode_request(request: InferenceRequest, *, binary: bool = True) -> tuple[bytes, list[bytes | memoryview]]:
    """Encode a request: the JSON part, and the tensors' bytes that follow it.

    binary: False for a server without the binary extension, to which the tensors go in the JSON part.
    """
    describe = binary_tensor if binary else json_tensor
    document = _RequestJson(
        inputs=[describe(tensor) for tensor in request.inputs],
        id=request.id,
        parameters={**(request.parameters or {}), **({"binary_data_output": True} if request.binary_output else {})}
        or None,
        outputs=[_OutputJson(o.name, None if o.binary is None else {"binary_data": o.binary}) for o in request.outputs]
        or None,
    )
    return _encoder.encode(document), [tensor.data for tensor in request.inputs] if binary else []


# Responses
# -------------------------------------------------------------------------------------------------------------


def decode_response(body: bytes, header_length: int | None) -> InferenceResponse:
    """Decode a response body; a worker's answer is checked as strictly as a caller's request.

    Raises InferenceFormatError.
    """
    document: _ResponseJson = _decode_json(_response_decoder, body, header_length)
    return InferenceResponse(
        model_name=document.model_name,
        model_version=document.model_version,
        outputs=decode_tensors("output", document.outputs, body, header_length),
        id=document.id,
        parameters=_checked_parameters(document.parameters, "the response"),
    )


def encode_response(response: InferenceResponse, binary: Iterable[str] = ()) -> tuple[bytes, list[bytes | memoryview]]:
    """Encode a response with the outputs named in `binary` as raw bytes and the others as flat JSON arrays.

    Returns the JSON part and the bytes that follow it. What JSON cannot say is replaced: a NaN or an infinity by null,
    bytes that are not UTF-8 by U+FFFD.
    """
    raw = frozenset(binary)
    document = _ResponseJson(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters=response.parameters or None,
        outputs=[binary_tensor(t) if t.name in raw else json_tensor(t) for t in response.outputs],
    )
    return _encoder.encode(document), [t.data for t in response.outputs if t.name in raw]


def json_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the length of a body's JSON part as its headers say it, names in lower case; None: it is all JSON.

    Raises InferenceFormatError.
    """
    given = list(dict.fromkeys(value for name, value in headers if name == INFERENCE_HEADER_CONTENT_LENGTH))
    if not given:
        return None
    if len(given) > 1 or not given[0].isdigit() or len(given[0]) > LENGTH_DIGITS_MAX:
        shown = b", ".join(given)[:32].decode("latin-1")
        raise InferenceFormatError(
            f"header {INFERENCE_HEADER_CONTENT_LENGTH.decode()} must be one whole number of bytes, not {shown!r}"
        )
    return int(given[0])


# Parts
# -----------------------------------------------------------------------------------------------------------------


def _decode_json(decoder: Any, body: bytes, header_length: int | None) -> Any:
    length = len(body) if header_length is None else header_length
    if length < 0:
        raise InferenceFormatError(f"the JSON part is said to have {length} bytes")
    if length > len(body):
        raise InferenceFormatError(f"the JSON part is said to have {length} bytes, the whole body has {len(body)}")
    if length > HEADER_BYTES_MAX:
        raise InferenceFormatError(f"the JSON part has {length} bytes; at most {HEADER_BYTES_MAX} are read")
    try:
        return decoder.decode(body if length == len(body) else memoryview(body)[:length])
    except msgspec.MsgspecError as error:
        part = body[:length]
        hint = "; JSON has no NaN: send null, or raw bytes" if b"NaN" in part or b"Infinity" in part else ""
        raise InferenceFormatError(f"{error}{hint}") from error
    except UnicodeDecodeError as error:
        raise InferenceFormatError("the JSON part is not UTF-8") from error
    except RecursionError as error:
        raise InferenceFormatError("the JSON part is nested too deeply") from error


def _checked_parameters(parameters: dict[str, Any] | None, where: str) -> dict[str, Parameter] | None:
    for key, value in (parameters or {}).items():
        if not isinstance(value, str | bool | int | float):
            raise InferenceFormatError(f"parameter {key[:64]!r} of {where} must be a string, a number or a boolean")
    return parameters


def _check_whole_number(parameters: dict[str, Parameter] | None, key: str) -> None:
    value = (parameters or {}).get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InferenceFormatError(f"parameter {key!r} of the request must be a whole number, 0 or more")


def _flag(parameters: dict[str, Parameter] | None, key: str, where: str) -> bool | None:
    value = (parameters or {}).get(key)
    if value is not None and not isinstance(value, bool):
        raise InferenceFormatError(f"parameter {key!r} of {where} must be true or false")
    return value
