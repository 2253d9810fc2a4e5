"""A named array in the raw form of the Open Inference Protocol v2.

Raw elements are little-endian and row-major; a BOOL is the byte 0 or 1; a BYTES element is a 32-bit length followed by
that many bytes.

Source: KServe open-inference-protocol, `inference_rest.md` and `binary_data_extension.md`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from struct import Struct as BinaryLayout
from typing import Any

import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE

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


def split_byte_elements(data: bytes | memoryview, name: str) -> list[bytes]:
    """Split the raw form of a BYTES tensor into its elements. Raises InferenceFormatError where a length overruns."""
    return [bytes(data[first:end]) for first, end in byte_element_spans(data, name)]


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


def byte_element_spans(data: bytes | memoryview, name: str) -> Iterator[tuple[int, int]]:
    """Yield where each element of a BYTES tensor's raw form begins and ends. Raises InferenceFormatError."""
    at, end = 0, len(data)
    while at < end:
        if end - at < _LENGTH.size:
            raise InferenceFormatError(f"tensor {name!r}: {end - at} bytes are left where a 4-byte length was expected")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > end - at:
            raise InferenceFormatError(f"tensor {name!r}: an element of {length} bytes, with {end - at} left")
        yield at, at + length
        at += length
