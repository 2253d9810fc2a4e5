"""Inference requests and responses of the Open Inference Protocol v2, in JSON and with the binary tensor extension.

A body is one JSON document, optionally followed by the raw bytes of the tensors that say `binary_data_size`, in the
order in which they are listed; a header then gives the length of the JSON. Raw elements are little-endian and
row-major; a BYTES element is a 32-bit length followed by that many bytes. In memory a tensor is always in that raw
form.

Nothing is allocated for a tensor before its declared shape, datatype and size agree with each other and with the
limits.

Source: KServe open-inference-protocol, `inference_rest.md` and `binary_data_extension.md`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from struct import Struct as BinaryLayout
from typing import Annotated, Any

import msgspec
import numpy as np

from contracts.datatypes import BYTES, DATATYPES, DTYPE_BY_DATATYPE, FLOATS

Parameter = str | bool | int | float
"""What a parameter may be: the protocol has no nested ones."""

TENSORS_MAX = 256
DIMENSIONS_MAX = 8
ELEMENTS_MAX = 1 << 28
"""Upper bound of a shape's product, so that no arithmetic and no allocation follows a hostile one."""

NAME_LENGTH_MAX = 256
PARAMETERS_MAX = 64
HEADER_BYTES_MAX = 8 * 1024 * 1024

_LENGTH = BinaryLayout("<I")


class InferenceFormatError(ValueError):
    """A body is not a valid inference request or response; the message names the part at fault."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array. `data` holds the raw elements (see the module)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def array(self) -> np.ndarray[Any, Any]:
        """View the elements as an array of `shape`; a BYTES tensor becomes an object array of bytes."""
        if self.datatype == BYTES:
            elements = np.empty(prod(self.shape), dtype=object)
            elements[:] = split_byte_elements(self.data, self.name)
            return elements.reshape(self.shape)
        return np.frombuffer(self.data, dtype=DTYPE_BY_DATATYPE[self.datatype]).reshape(self.shape)


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
        """The caller's remaining budget, from `parameters.timeout`; None where it sets none."""
        timeout = (self.parameters or {}).get("timeout")
        return timeout if isinstance(timeout, int) and not isinstance(timeout, bool) and timeout > 0 else None


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

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
_Dimension = Annotated[int, msgspec.Meta(ge=0, le=ELEMENTS_MAX)]
_Shape = Annotated[list[_Dimension], msgspec.Meta(max_length=DIMENSIONS_MAX)]
_Parameters = Annotated[dict[str, Any], msgspec.Meta(max_length=PARAMETERS_MAX)]


class _TensorJson(msgspec.Struct, omit_defaults=True):
    name: _Name
    datatype: str
    shape: _Shape
    parameters: _Parameters | None = None
    data: Any = None


class _OutputJson(msgspec.Struct, omit_defaults=True):
    name: _Name
    parameters: _Parameters | None = None


class _RequestJson(msgspec.Struct, omit_defaults=True):
    inputs: Annotated[list[_TensorJson], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    id: Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)] = ""
    parameters: _Parameters | None = None
    outputs: Annotated[list[_OutputJson], msgspec.Meta(max_length=TENSORS_MAX)] | None = None


class _ResponseJson(msgspec.Struct, omit_defaults=True):
    model_name: str
    outputs: Annotated[list[_TensorJson], msgspec.Meta(max_length=TENSORS_MAX)]
    model_version: str = ""
    id: str = ""
    parameters: _Parameters | None = None


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
    parameters = _checked_parameters(document.parameters, "the request")
    outputs = tuple(
        RequestedOutput(o.name, _flag(_checked_parameters(o.parameters, f"output {o.name!r}"), "binary_data", o.name))
        for o in document.outputs or ()
    )
    _refuse_repeats("output", [o.name for o in outputs])
    return InferenceRequest(
        inputs=_decode_tensors("input", document.inputs, body, header_length),
        outputs=outputs,
        id=document.id,
        parameters=parameters,
        binary_output=bool(_flag(parameters, "binary_data_output", "the request")),
    )


def encode_request(request: InferenceRequest) -> tuple[bytes, list[bytes | memoryview]]:
    """Encode a request with every tensor as raw bytes: the JSON part, and the tensors' bytes that follow it."""
    document = _RequestJson(
        inputs=[_binary_tensor(tensor) for tensor in request.inputs],
        id=request.id,
        parameters={**(request.parameters or {}), **({"binary_data_output": True} if request.binary_output else {})}
        or None,
        outputs=[_OutputJson(o.name, None if o.binary is None else {"binary_data": o.binary}) for o in request.outputs]
        or None,
    )
    return _encoder.encode(document), [tensor.data for tensor in request.inputs]


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
        outputs=_decode_tensors("output", document.outputs, body, header_length),
        id=document.id,
        parameters=_checked_parameters(document.parameters, "the response"),
    )


def encode_response(response: InferenceResponse, binary: Iterable[str] = ()) -> tuple[bytes, list[bytes | memoryview]]:
    """Encode a response with the outputs named in `binary` as raw bytes and the others as flat JSON arrays.

    Returns the JSON part and the bytes that follow it. A NaN or an infinity, which JSON cannot say, becomes null.
    """
    raw = frozenset(binary)
    document = _ResponseJson(
        model_name=response.model_name,
        model_version=response.model_version,
        id=response.id,
        parameters=response.parameters or None,
        outputs=[_binary_tensor(t) if t.name in raw else _json_tensor(t) for t in response.outputs],
    )
    return _encoder.encode(document), [t.data for t in response.outputs if t.name in raw]


# Parts
# -----------------------------------------------------------------------------------------------------------------


def split_byte_elements(data: bytes | memoryview, name: str) -> list[bytes]:
    """Split the raw form of a BYTES tensor into its elements. Raises InferenceFormatError where a length overruns."""
    elements = []
    at, end = 0, len(data)
    while at < end:
        if end - at < _LENGTH.size:
            raise InferenceFormatError(f"tensor {name!r}: {end - at} bytes are left where a 4-byte length was expected")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > end - at:
            raise InferenceFormatError(f"tensor {name!r}: an element of {length} bytes, with {end - at} left")
        elements.append(bytes(data[at : at + length]))
        at += length
    return elements


def join_byte_elements(elements: Iterable[bytes]) -> bytes:
    """Make the raw form of a BYTES tensor."""
    return b"".join(chain.from_iterable((_LENGTH.pack(len(e)), e) for e in elements))


def tensor_of(name: str, array: np.ndarray[Any, Any], datatype: str) -> Tensor:
    """Make a tensor of an array; an object array of str or bytes becomes BYTES."""
    if datatype == BYTES:
        data = join_byte_elements(e if isinstance(e, bytes) else str(e).encode() for e in array.ravel())
    else:
        data = np.ascontiguousarray(array, dtype=DTYPE_BY_DATATYPE[datatype]).tobytes()
    return Tensor(name, datatype, tuple(array.shape), data)


def _decode_json(decoder: Any, body: bytes, header_length: int | None) -> Any:
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise InferenceFormatError(f"the JSON part is said to have {length} bytes, the whole body has {len(body)}")
    if length > HEADER_BYTES_MAX:
        raise InferenceFormatError(f"the JSON part has {length} bytes; at most {HEADER_BYTES_MAX} are read")
    try:
        return decoder.decode(body if length == len(body) else memoryview(body)[:length])
    except msgspec.MsgspecError as error:
        raise InferenceFormatError(str(error)) from error
    except UnicodeDecodeError as error:
        raise InferenceFormatError("the JSON part is not UTF-8") from error
    except RecursionError as error:
        raise InferenceFormatError("the JSON part is nested too deeply") from error


def _decode_tensors(
    kind: str, listed: Sequence[_TensorJson], body: bytes, header_length: int | None
) -> tuple[Tensor, ...]:
    _refuse_repeats(kind, [tensor.name for tensor in listed])
    at = len(body) if header_length is None else header_length
    view = memoryview(body)
    tensors = []
    for entry in listed:
        elements = _checked_elements(kind, entry)
        size = _binary_size(entry)
        if size is None:
            data: bytes | memoryview = _json_to_raw(kind, entry, elements)
        else:
            if entry.data is not None:
                raise InferenceFormatError(f"{kind} {entry.name!r} has both `data` and `binary_data_size`")
            if size > len(body) - at:
                raise InferenceFormatError(
                    f"{kind} {entry.name!r}: {size} bytes are declared, {len(body) - at} are left in the body"
                )
            data = view[at : at + size]
            at += size
            _check_raw(kind, entry, elements, data)
        tensors.append(Tensor(entry.name, entry.datatype, tuple(entry.shape), data))
    if at != len(body):
        raise InferenceFormatError(f"{len(body) - at} bytes follow the last declared {kind}")
    return tuple(tensors)


def _checked_elements(kind: str, entry: _TensorJson) -> int:
    if entry.datatype not in DATATYPES:
        raise InferenceFormatError(
            f"{kind} {entry.name!r}: unknown datatype {entry.datatype[:32]!r}; known: {', '.join(sorted(DATATYPES))}"
        )
    elements = prod(entry.shape)  # at most 8 factors of at most 2**28 each: exact in Python
    if elements > ELEMENTS_MAX:
        raise InferenceFormatError(f"{kind} {entry.name!r}: shape {entry.shape} has more than {ELEMENTS_MAX} elements")
    return elements


def _binary_size(entry: _TensorJson) -> int | None:
    if entry.parameters is None or "binary_data_size" not in entry.parameters:
        return None
    size = entry.parameters["binary_data_size"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InferenceFormatError(
            f"tensor {entry.name!r}: binary_data_size must be a whole number of bytes, not {str(size)[:32]!r}"
        )
    return size


def _check_raw(kind: str, entry: _TensorJson, elements: int, data: memoryview) -> None:
    if entry.datatype == BYTES:
        found = len(split_byte_elements(data, entry.name))
        if found != elements:
            raise InferenceFormatError(
                f"{kind} {entry.name!r}: shape {entry.shape} asks for {elements} elements, its bytes hold {found}"
            )
        return
    expected = elements * DTYPE_BY_DATATYPE[entry.datatype].itemsize
    if len(data) != expected:
        raise InferenceFormatError(
            f"{kind} {entry.name!r}: shape {entry.shape} of {entry.datatype} takes {expected} bytes, "
            f"binary_data_size says {len(data)}"
        )


def _json_to_raw(kind: str, entry: _TensorJson, elements: int) -> bytes:
    if not isinstance(entry.data, list):
        raise InferenceFormatError(f"{kind} {entry.name!r} has neither a `data` list nor `binary_data_size`")
    flat = _flattened(entry)
    if len(flat) != elements:
        raise InferenceFormatError(
            f"{kind} {entry.name!r}: shape {entry.shape} asks for {elements} elements, `data` holds {len(flat)}"
        )
    try:
        values = msgspec.convert(flat, _ELEMENTS_BY_DATATYPE[entry.datatype])
    except msgspec.ValidationError as error:
        raise InferenceFormatError(f"{kind} {entry.name!r} of {entry.datatype}: {error}") from error
    if entry.datatype == BYTES:
        return join_byte_elements(value.encode() for value in values)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=DTYPE_BY_DATATYPE[entry.datatype])
    except OverflowError as error:
        raise InferenceFormatError(f"{kind} {entry.name!r}: a value is out of the range of {entry.datatype}") from error
    if entry.datatype in FLOATS and not np.isfinite(array).all():
        raise InferenceFormatError(f"{kind} {entry.name!r}: a value is out of the range of {entry.datatype}")
    return array.tobytes()


def _flattened(entry: _TensorJson) -> list[Any]:
    # Flat or nested as deep as the shape, never in between: `[[1, 2], 3]` has no one meaning.
    flat: list[Any] = entry.data
    for _ in range(len(entry.shape) - 1):
        nested = sum(isinstance(item, list) for item in flat)
        if nested == 0:
            break
        if nested != len(flat) or len({len(item) for item in flat}) > 1:
            raise InferenceFormatError(f"tensor {entry.name!r}: `data` is ragged")
        flat = list(chain.from_iterable(flat))
    return flat


def _integers(bits: int, *, signed: bool) -> Any:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    # msgspec's bounds are signed 64-bit numbers; the one type that goes above them is checked by numpy later.
    return list[int] if high >= 1 << 63 else list[Annotated[int, msgspec.Meta(ge=low, le=high)]]


_ELEMENTS_BY_DATATYPE: dict[str, Any] = {
    "BOOL": list[bool],
    **{f"INT{bits}": _integers(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integers(bits, signed=False) for bits in (8, 16, 32, 64)},
    "FP16": list[float],
    "FP32": list[float],
    "FP64": list[float],
    BYTES: list[str],
}


def _binary_tensor(tensor: Tensor) -> _TensorJson:
    return _TensorJson(tensor.name, tensor.datatype, list(tensor.shape), {"binary_data_size": len(tensor.data)})


def _json_tensor(tensor: Tensor) -> _TensorJson:
    if tensor.datatype == BYTES:
        flat: list[Any] = [e.decode("utf-8", "replace") for e in split_byte_elements(tensor.data, tensor.name)]
    else:
        flat = np.frombuffer(tensor.data, dtype=DTYPE_BY_DATATYPE[tensor.datatype]).tolist()
    return _TensorJson(tensor.name, tensor.datatype, list(tensor.shape), None, flat)


def _checked_parameters(parameters: dict[str, Any] | None, where: str) -> dict[str, Parameter] | None:
    for key, value in (parameters or {}).items():
        if not isinstance(value, str | bool | int | float):
            raise InferenceFormatError(f"parameter {key[:64]!r} of {where} must be a string, a number or a boolean")
    return parameters


def _flag(parameters: dict[str, Parameter] | None, key: str, where: str) -> bool | None:
    value = (parameters or {}).get(key)
    if value is not None and not isinstance(value, bool):
        raise InferenceFormatError(f"parameter {key!r} of {where} must be true or false")
    return value


def _refuse_repeats(kind: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InferenceFormatError(f"{kind} {repeated!r} is listed more than once")
