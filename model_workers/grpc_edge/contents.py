"""Typed tensor contents, one repeated field for each kind of number, to raw elements and back.

Source: KServe open-inference-protocol, `inference_grpc.md`, "Tensor Data".
"""

from typing import Any, Final

import numpy as np

from contracts.datatypes import BOOL, BYTES, DTYPE_BY_DATATYPE
from contracts.inference import InferenceFormatError, Tensor, join_byte_elements, split_byte_elements

FIELD_BY_DATATYPE: Final = {
    BOOL: "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field that holds a datatype's elements. FP16 has none: it travels raw only."""

_DTYPE_BY_FIELD: Final = {
    "bool_contents": np.dtype("?"),
    "int_contents": np.dtype("<i4"),
    "int64_contents": np.dtype("<i8"),
    "uint_contents": np.dtype("<u4"),
    "uint64_contents": np.dtype("<u8"),
    "fp32_contents": np.dtype("<f4"),
    "fp64_contents": np.dtype("<f8"),
}


def raw_elements(name: str, datatype: str, contents: Any) -> bytes:
    """Give the raw form of an input's `InferTensorContents`. What is empty, or of an unknown datatype, gives no bytes.

    Raises InferenceFormatError where another field than the datatype's is filled, or a number is out of its range.
    """
    filled = [field.name for field, _ in contents.ListFields()]
    if not filled:
        return b""
    field = FIELD_BY_DATATYPE.get(datatype)
    if field is None or filled != [field]:
        takes = field or "raw_input_contents, and no typed field"
        raise InferenceFormatError(
            f"input {name[:64]!r} of {datatype[:32]} takes {takes}; {', '.join(filled)} is given"
        )
    values = getattr(contents, field)
    if datatype == BYTES:
        return join_byte_elements(values)
    wide = np.array(values, dtype=_DTYPE_BY_FIELD[field])
    elements = wide.astype(DTYPE_BY_DATATYPE[datatype], copy=False)
    # INT8 and its like travel in 32 bits. Numbers of the field's own width need no look; a NaN would not equal itself.
    if elements.dtype != wide.dtype and not np.array_equal(elements, wide):
        raise InferenceFormatError(f"input {name[:64]!r}: a value is out of the range of {datatype}")
    return elements.tobytes()


def fill_contents(contents: Any, tensor: Tensor) -> None:
    """Write a tensor's elements to an `InferTensorContents`. The datatype must be one of `FIELD_BY_DATATYPE`."""
    field = getattr(contents, FIELD_BY_DATATYPE[tensor.datatype])
    if tensor.datatype == BYTES:
        field.extend(split_byte_elements(tensor.data, tensor.name))
    else:
        field.extend(np.frombuffer(tensor.data, dtype=DTYPE_BY_DATATYPE[tensor.datatype]).tolist())
