"""Tensors as the kit makes and reads them: flat values of the protocol's datatypes, in JSON and as raw bytes.

Source: KServe open-inference-protocol, `inference_rest.md`; Triton, `extension_binary_data.md`.
"""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, Final

FORMAT_BY_DATATYPE: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""Little-endian `struct` formats; BYTES has none."""

BYTES: Final = "BYTES"
DATATYPES: Final = frozenset(FORMAT_BY_DATATYPE) | {BYTES}
FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
LARGEST_FLOAT: Final = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": 1.7976931348623157e308}
FREE_DIMENSION: Final = 3
"""What a dimension that is -1, other than the first, becomes in generated inputs."""


class RawFormError(ValueError):
    """Raw bytes are not what the datatype and the shape ask for."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as a model's metadata describes it; -1 is a free dimension, and the first one counts rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor with its elements, flat and row-major; BYTES elements are text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]

    def flat(self) -> dict[str, Any]:
        """Describe it in JSON with one flat list."""
        return {**self._described(), "data": self.values}

    def nested(self) -> dict[str, Any]:
        """Describe it in JSON with lists nested as the shape says."""
        return {**self._described(), "data": _nested(self.values, self.shape)}

    def raw(self) -> dict[str, Any]:
        """Describe it in JSON as raw bytes that follow."""
        return {**self._described(), "parameters": {"binary_data_size": len(raw_form(self.datatype, self.values))}}

    def _described(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def generated(spec: TensorSpec, rows: int) -> Tensor:
    """Make a tensor of small valid values."""
    shape = tuple(_dimension(size, at, rows) for at, size in enumerate(spec.shape))
    return Tensor(spec.name, spec.datatype, shape, [_small(spec.datatype, i) for i in range(prod(shape))])


def extremes(datatype: str) -> list[Any]:
    """The smallest and the largest value of a datatype, and texts of unusual characters."""
    if datatype == "BOOL":
        return [False, True]
    if datatype == BYTES:
        return ["", 'a"b\\c\n', "関所 é", "x" * 300]
    if datatype in FLOATS:
        return [-LARGEST_FLOAT[datatype], LARGEST_FLOAT[datatype], 0.0]
    bits = int("".join(c for c in datatype if c.isdigit()))
    return [0, (1 << bits) - 1] if datatype.startswith("U") else [-(1 << bits - 1), (1 << bits - 1) - 1]


def with_values(tensor: Tensor, values: list[Any]) -> Tensor:
    """Give the tensor other values, repeated as often as it has elements."""
    return Tensor(
        tensor.name,
        tensor.datatype,
        tensor.shape,
        [values[i % len(values)] for i in range(len(tensor.values))],
    )


def raw_form(datatype: str, values: list[Any]) -> bytes:
    """Encode elements as raw bytes."""
    if datatype == BYTES:
        return b"".join(struct.pack("<I", len(text)) + text for text in (value.encode() for value in values))
    return struct.pack(f"<{len(values)}{FORMAT_BY_DATATYPE[datatype]}", *values)


def from_raw_form(datatype: str, data: bytes) -> list[Any]:
    """Decode raw bytes. Raises RawFormError."""
    if datatype == BYTES:
        return _texts(data)
    size = struct.calcsize(f"<{FORMAT_BY_DATATYPE[datatype]}")
    if len(data) % size:
        raise RawFormError(f"{len(data)} bytes are no whole number of {datatype}")
    return list(struct.unpack(f"<{len(data) // size}{FORMAT_BY_DATATYPE[datatype]}", data))


def flattened(data: Any) -> list[Any]:
    """Give the elements of JSON data in order, whatever its nesting."""
    if not isinstance(data, list):
        return [data]
    return [element for part in data for element in (flattened(part) if isinstance(part, list) else [part])]


def _texts(data: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(data):
        if len(data) - at < 4:
            raise RawFormError("the bytes end inside an element's length")
        (length,) = struct.unpack_from("<I", data, at)
        if length > len(data) - at - 4:
            raise RawFormError("the bytes end inside an element")
        texts.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return texts


def _dimension(size: int, at: int, rows: int) -> int:
    if size >= 0:
        return size
    return rows if at == 0 else FREE_DIMENSION


def _small(datatype: str, i: int) -> Any:
    if datatype == "BOOL":
        return i % 2 == 0
    if datatype == BYTES:
        return f"a{i % 7}"
    return (i % 50) * 0.25 if datatype in FLOATS else i % 50


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return values[0]
    step = prod(shape[1:])
    return [_nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])] if shape[1:] else values
