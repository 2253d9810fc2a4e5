"""Tensors as they stand in a request's or response's JSON, with elements or with the size of their raw bytes.

Nothing is allocated for a tensor before its declared shape, datatype and size agree with each other and with the
limits.

Source: KServe open-inference-protocol, `inference_rest.md` and `binary_data_extension.md`.
"""

from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np

from contracts.datatypes import BOOL, BYTES, DATATYPES, DTYPE_BY_DATATYPE, FLOATS
from contracts.tensor import InferenceFormatError, Tensor, byte_element_spans, join_byte_elements, split_byte_elements

DIMENSIONS_MAX = 8
ELEMENTS_MAX = 1 << 28
"""Upper bound of a shape's product, so that no arithmetic and no allocation follows a hostile one."""

NAME_LENGTH_MAX = 256
PARAMETERS_MAX = 64

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
_Dimension = Annotated[int, msgspec.Meta(ge=0, le=ELEMENTS_MAX)]
_Shape = Annotated[list[_Dimension], msgspec.Meta(max_length=DIMENSIONS_MAX)]
Parameters = Annotated[dict[str, Any], msgspec.Meta(max_length=PARAMETERS_MAX)]


class TensorJson(msgspec.Struct, omit_defaults=True):
    """One tensor. `data` holds its elements; without it, `parameters.binary_data_size` counts its raw bytes."""

    name: Name
    datatype: str
    shape: _Shape
    parameters: Parameters | None = None
    data: Any = None


def decode_tensors(
    kind: str, listed: Sequence[TensorJson], body: bytes, header_length: int | None
) -> tuple[Tensor, ...]:
    """Check and decode the listed tensors; raw bytes begin at `header_length`. Every view is of `body` itself.

    kind: `input` or `output`, for messages. Raises InferenceFormatError, which names the tensor at fault.
    """
    refuse_repeats(kind, [tensor.name for tensor in listed])
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
            _check_raw(kind, entry, elements, data, said="binary_data_size says")
        tensors.append(Tensor(entry.name, entry.datatype, tuple(entry.shape), data))
    if at != len(body):
        raise InferenceFormatError(f"{len(body) - at} bytes follow the last declared {kind}")
    return tuple(tensors)


def raw_tensors(kind: str, listed: Sequence[TensorJson], contents: Sequence[bytes]) -> tuple[Tensor, ...]:
    """Check the listed tensors and join each to its raw bytes, which another transport than HTTP carried beside them.

    kind: `input` or `output`, for messages. Raises InferenceFormatError, which names the tensor at fault.
    """
    refuse_repeats(kind, [tensor.name for tensor in listed])
    if len(contents) != len(listed):
        raise InferenceFormatError(f"there are raw contents for {len(contents)} tensors, {len(listed)} are listed")
    tensors = []
    for entry, data in zip(listed, contents, strict=True):
        _check_raw(kind, entry, _checked_elements(kind, entry), data, said="its contents have")
        tensors.append(Tensor(entry.name, entry.datatype, tuple(entry.shape), data))
    return tuple(tensors)


def _checked_elements(kind: str, entry: TensorJson) -> int:
    if entry.datatype not in DATATYPES:
        raise InferenceFormatError(
            f"{kind} {entry.name!r}: unknown datatype {entry.datatype[:32]!r}; known: {', '.join(sorted(DATATYPES))}"
        )
    # At most 8 factors of at most 2**28 each: exact in Python. Zeros are left out of the bound, because numpy refuses a
    # shape whose other dimensions overflow even where the array is empty.
    if prod(dimension or 1 for dimension in entry.shape) > ELEMENTS_MAX:
        raise InferenceFormatError(f"{kind} {entry.name!r}: shape {entry.shape} has more than {ELEMENTS_MAX} elements")
    return prod(entry.shape)


def _binary_size(entry: TensorJson) -> int | None:
    if entry.parameters is None or "binary_data_size" not in entry.parameters:
        return None
    size = entry.parameters["binary_data_size"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        # Of what is no number only the type is told: the repr of a deeply nested list would recurse as deeply.
        shown = size if isinstance(size, int) else type(size).__name__
        raise InferenceFormatError(
            f"tensor {entry.name!r}: binary_data_size must be a whole number of bytes, 0 or more, not {shown}"
        )
    return size


def _check_raw(kind: str, entry: TensorJson, elements: int, data: bytes | memoryview, *, said: str) -> None:
    if entry.datatype == BYTES:
        found = sum(1 for _ in byte_element_spans(data, entry.name))
        if found != elements:
            raise InferenceFormatError(
                f"{kind} {entry.name!r}: shape {entry.shape} asks for {elements} elements, its bytes hold {found}"
            )
        return
    expected = elements * DTYPE_BY_DATATYPE[entry.datatype].itemsize
    if len(data) != expected:
        raise InferenceFormatError(
            f"{kind} {entry.name!r}: shape {entry.shape} of {entry.datatype} takes {expected} bytes, {said} {len(data)}"
        )
    # numpy and the runtimes take a BOOL for a C++ bool, of which any other byte is undefined behaviour.
    if entry.datatype == BOOL and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise InferenceFormatError(f"{kind} {entry.name!r}: a BOOL is the byte 0 or 1")


def _json_to_raw(kind: str, entry: TensorJson, elements: int) -> bytes:
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
    if entry.datatype in FLOATS and np.isinf(array).any():
        raise InferenceFormatError(f"{kind} {entry.name!r}: a value is out of the range of {entry.datatype}")
    return array.tobytes()


def _flattened(entry: TensorJson) -> list[Any]:
    # Flat, or nested exactly as the shape says: `[[1, 2, 3], [4, 5, 6]]` for shape [3, 2] has no one meaning.
    flat: list[Any] = entry.data
    if not entry.shape or not any(isinstance(item, list) for item in flat):
        return flat
    fits = len(flat) == entry.shape[0]
    for size in entry.shape[1:]:
        fits = fits and all(isinstance(item, list) and len(item) == size for item in flat)
        if not fits:
            break
        flat = list(chain.from_iterable(flat))
    if not fits:
        raise InferenceFormatError(f"tensor {entry.name!r}: `data` is neither flat nor nested as shape {entry.shape}")
    return flat


def _integers(bits: int, *, signed: bool) -> Any:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    # msgspec's bounds are signed 64-bit numbers; the one type that goes above them is checked by numpy later.
    return list[int] if high >= 1 << 63 else list[Annotated[int, msgspec.Meta(ge=low, le=high)]]


_ELEMENTS_BY_DATATYPE: dict[str, Any] = {
    "BOOL": list[bool],
    **{f"INT{bits}": _integers(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integers(bits, signed=False) for bits in (8, 16, 32, 64)},
    "FP16": list[float | None],
    "FP32": list[float | None],
    "FP64": list[float | None],
    BYTES: list[str],
}


def binary_tensor(tensor: Tensor) -> TensorJson:
    """Describe a tensor whose raw bytes follow the JSON."""
    return TensorJson(tensor.name, tensor.datatype, list(tensor.shape), {"binary_data_size": len(tensor.data)})


def json_tensor(tensor: Tensor) -> TensorJson:
    """Describe a tensor with its elements as one flat list. Bytes that are not UTF-8 become U+FFFD."""
    if tensor.datatype == BYTES:
        flat: list[Any] = [e.decode("utf-8", "replace") for e in split_byte_elements(tensor.data, tensor.name)]
    else:
        flat = np.frombuffer(tensor.data, dtype=DTYPE_BY_DATATYPE[tensor.datatype]).tolist()
    return TensorJson(tensor.name, tensor.datatype, list(tensor.shape), None, flat)


def refuse_repeats(kind: str, names: list[str]) -> None:
    """Raise InferenceFormatError where a name stands twice."""
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InferenceFormatError(f"{kind} {repeated!r} is listed more than once")
