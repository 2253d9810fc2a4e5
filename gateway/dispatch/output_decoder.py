"""A worker's answer → Python values by output, checked against the signature: workers are untrusted too."""

import sys
from math import isfinite
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE, FLOATS
from contracts.inference import InferenceResponse, Tensor, decode_response, split_byte_elements, tensor_of
from gateway.model_signature import ModelSignature

Outputs = list[list[Any]]
"""By output of the signature: one entry a row, a number, a string, or a list of them."""

LAYOUTS_MAX: Final = 2_048
"""Heads that are remembered: a worker writes one for each number of rows."""

LAYOUT_HEAD_BYTES_MAX: Final = 4_096

NATIVE_FORMATS: Final[dict[str, Literal["f", "d", "q"]]] = (
    {"FP32": "f", "FP64": "d", "INT64": "q"} if sys.byteorder == "little" else {}
)
"""The usual scores: a view of the bytes gives their values in half the time of an array."""

_FEW: Final = 64
"""Values up to which plain Python is faster than an array."""


class _Place(NamedTuple):
    """Where one output's raw elements lie behind the head."""

    start: int
    end: int
    datatype: str
    shape: tuple[int, ...]


class OutputDecoder:
    """Decodes answers of one model version.

    The head of a binary answer depends on the number of rows alone, so what was once read and checked is remembered by
    its bytes: reading JSON and building tensors cost 10 µs an answer, a look-up a tenth of one.
    """

    __slots__ = ("_layouts", "_outputs")

    def __init__(self, signature: ModelSignature) -> None:
        self._outputs = signature.outputs
        self._layouts: dict[bytes, tuple[int, int, tuple[_Place, ...]]] = {}

    def decode(self, body: bytes, header_length: int | None, rows: int) -> tuple[Outputs, bool]:
        """Return the values by output, and whether every number is finite.

        Raises ValueError where the answer is not the protocol's, or not of the signature's outputs, types and shapes.
        """
        if header_length is not None:
            known = self._layouts.get(body[:header_length])
            if known is not None and known[0] == rows and known[1] == len(body) - header_length:
                raw = memoryview(body)[header_length:]
                return _values([Tensor("", p.datatype, p.shape, raw[p.start : p.end]) for p in known[2]], rows)
        response = decode_response(body, header_length)
        tensors = self._checked(response, rows)
        if header_length is not None:
            self._remember(body, header_length, rows, response, tensors)
        return _values(tensors, rows)

    def _checked(self, response: InferenceResponse, rows: int) -> list[Tensor]:
        by_name = {tensor.name: tensor for tensor in response.outputs}
        tensors = []
        for expected in self._outputs:
            tensor = by_name.get(expected.source or expected.name)
            if tensor is None:
                raise ValueError(f"the answer lacks output {expected.source or expected.name!r}")
            if expected.column is not None:
                tensor = _narrowed(tensor, expected.column, rows)
            shape = (rows, *expected.shape[1:])
            fits = len(tensor.shape) == len(shape) and all(
                wanted in (-1, given) for wanted, given in zip(shape, tensor.shape, strict=True)
            )
            if tensor.datatype != expected.dtype or not fits:
                raise ValueError(
                    f"output {tensor.name!r} is {tensor.datatype} {list(tensor.shape)}, "
                    f"not {expected.dtype} {list(shape)}"
                )
            tensors.append(tensor)
        return tensors

    def _remember(
        self, body: bytes, header_length: int, rows: int, response: InferenceResponse, tensors: list[Tensor]
    ) -> None:
        # Only heads of which every tensor lies raw behind them, whole, at places that the head alone decides.
        if any(output.column is not None or output.source for output in self._outputs):
            return
        raw_bytes = len(body) - header_length
        sizes = [len(tensor.data) for tensor in response.outputs]
        fixed = all(tensor.datatype != BYTES for tensor in response.outputs)
        if (
            not fixed
            or sum(sizes) != raw_bytes
            or header_length > LAYOUT_HEAD_BYTES_MAX
            or len(self._layouts) >= LAYOUTS_MAX
        ):
            return
        starts = dict(zip((t.name for t in response.outputs), np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        places = tuple(_Place(starts[t.name], starts[t.name] + len(t.data), t.datatype, t.shape) for t in tensors)
        self._layouts[body[:header_length]] = (rows, raw_bytes, places)


def _narrowed(tensor: Tensor, column: int, rows: int) -> Tensor:
    # Servers other than ours send all columns of a matrix.
    if len(tensor.shape) != 2 or tensor.shape[0] != rows or column >= tensor.shape[1]:
        raise ValueError(f"output {tensor.name!r} has shape {list(tensor.shape)}: no column {column} of {rows} rows")
    return tensor_of(tensor.name, tensor.array()[:, column], tensor.datatype)


def _values(tensors: Any, rows: int) -> tuple[Outputs, bool]:
    outputs: Outputs = []
    finite = True
    for tensor in tensors:
        if tensor.datatype == BYTES:
            texts = [e.decode("utf-8", "replace") for e in split_byte_elements(tensor.data, tensor.name)]
            width = len(texts) // rows
            flat = len(tensor.shape) == 1
            outputs.append(texts if flat else [texts[i * width : (i + 1) * width] for i in range(rows)])
            continue
        if tensor.datatype in NATIVE_FORMATS and len(tensor.shape) == 1 and isinstance(tensor.data, memoryview):
            values = tensor.data.cast(NATIVE_FORMATS[tensor.datatype]).tolist()
            if finite and tensor.datatype != "INT64":
                finite = all(map(isfinite, values)) if len(values) <= _FEW else bool(np.isfinite(values).all())
            outputs.append(values)
            continue
        array = np.frombuffer(tensor.data, dtype=DTYPE_BY_DATATYPE[tensor.datatype])
        values = array.tolist()
        if tensor.datatype in FLOATS and finite:
            finite = all(map(isfinite, values)) if len(values) <= _FEW else bool(np.isfinite(array).all())
        if len(tensor.shape) > 1:
            values = array.reshape(tensor.shape).tolist()
        outputs.append(values)
    return outputs, finite
