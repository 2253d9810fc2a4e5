"""The types a feature may have, their widths in a row, and the tensor datatypes that each may be fed as."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Dtype(StrEnum):
    """A feature's declared type. float16 exists only as the element of a list; timestamp is µs since 1970 in UTC."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    STRING = "string"
    TIMESTAMP = "timestamp"


FLOATS = frozenset({Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64})

ELEMENT_BYTES: Mapping[Dtype, int] = MappingProxyType(
    {
        Dtype.FLOAT16: 2,
        Dtype.FLOAT32: 4,
        Dtype.FLOAT64: 8,
        Dtype.INT32: 4,
        Dtype.INT64: 8,
        Dtype.BOOL: 1,
        Dtype.STRING: 8,  # a slot: where in the tail, and how long
        Dtype.TIMESTAMP: 8,
    }
)

NATIVE_DATATYPE: Mapping[Dtype, str] = MappingProxyType(
    {
        Dtype.FLOAT16: "FP16",
        Dtype.FLOAT32: "FP32",
        Dtype.FLOAT64: "FP64",
        Dtype.INT32: "INT32",
        Dtype.INT64: "INT64",
        Dtype.BOOL: "BOOL",
        Dtype.STRING: "BYTES",
        Dtype.TIMESTAMP: "INT64",
    }
)
"""The Open Inference Protocol datatype whose little-endian elements are the row's own bytes (but for BYTES)."""

DATATYPES_OF: Mapping[Dtype, tuple[str, ...]] = MappingProxyType(
    {
        Dtype.FLOAT16: ("FP16", "FP32"),
        Dtype.FLOAT32: ("FP32", "FP64"),
        Dtype.FLOAT64: ("FP64", "FP32"),  # FP32 rounds, and a value beyond its range becomes an infinity (IEEE 754)
        Dtype.INT32: ("INT32", "INT64", "FP32", "FP64"),
        Dtype.INT64: ("INT64", "FP64", "FP32"),
        Dtype.BOOL: ("BOOL", "INT32", "INT64", "FP32", "FP64"),
        Dtype.STRING: ("BYTES",),
        Dtype.TIMESTAMP: ("INT64", "FP64"),
    }
)
"""What each dtype may be fed as, its own datatype first."""

ARRAY_TYPE: Mapping[str, str] = MappingProxyType(
    {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8", "BOOL": "|b1"}
)
"""numpy's name for a tensor datatype's little-endian element. BYTES has none: its elements differ in length."""
