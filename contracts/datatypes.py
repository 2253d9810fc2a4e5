"""The tensor datatypes of the Open Inference Protocol v2 and their little-endian numpy forms."""

from typing import Any, Final

import numpy as np

DTYPE_BY_DATATYPE: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Every datatype of fixed width. BYTES, whose elements vary in length, has none."""

BOOL: Final = "BOOL"
BYTES: Final = "BYTES"
DATATYPES: Final = frozenset(DTYPE_BY_DATATYPE) | {BYTES}
FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Name the datatype of a numpy array. Raises ValueError where the protocol has none for it."""
    if dtype.kind in "OSU":
        return BYTES
    for name, known in DTYPE_BY_DATATYPE.items():
        if dtype == known or dtype.newbyteorder("<") == known:
            return name
    raise ValueError(f"no tensor datatype for {dtype}")
