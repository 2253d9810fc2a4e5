"""Many columns of one type as one: how a tensor's rows lie in a stream of the log, until its Parquet file is made.

What a batch costs the gateway grows with its columns. A tensor's rows are one piece of memory as they are; to cut them
into columns is work for another process.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

PACKED_KEY = b"sekisho.packed"
"""Metadata of a packed field: what is in it, as JSON."""


class Packed(msgspec.Struct):
    """What a packed field holds: a column a name, in the order of a row's elements."""

    dtype: str
    """numpy's name of the elements, `<f4`."""

    names: list[str]


def packed_field(name: str, names: Sequence[str], dtype: np.dtype[Any]) -> pa.Field:
    """Make the field of a stream that holds those columns: each row's elements, as bytes one behind the other."""
    packed = msgspec.json.encode(Packed(dtype.str, list(names)))
    return pa.field(name, pa.binary(dtype.itemsize * len(names)), metadata={PACKED_KEY: packed})


def unpacked_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema that a stream's rows have once they are unpacked."""
    fields: list[pa.Field] = []
    for field in schema:
        packed = _packed(field)
        if packed is None:
            fields.append(field)
        else:
            kind = pa.from_numpy_dtype(packed.dtype)
            fields += [pa.field(name, kind) for name in packed.names]
    return pa.schema(fields, schema.metadata)


def unpacked(table: pa.Table) -> pa.Table:
    """Unpack every packed column of a stream's rows, in its place. All other columns stay where they are in memory."""
    columns: list[pa.ChunkedArray | pa.Array] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        packed = _packed(field)
        columns += [column] if packed is None else map(pa.array, _transposed(column, packed))
    return pa.Table.from_arrays(columns, schema=unpacked_schema(table.schema))


def _transposed(column: pa.ChunkedArray, packed: Packed) -> np.ndarray[Any, Any]:
    """Return the elements by name and row, each name's contiguous."""
    width = len(packed.names)
    elements = np.empty((width, len(column)), packed.dtype)
    filled = 0
    for chunk in column.chunks:
        first, count = chunk.offset * width, len(chunk) * width
        rows = np.frombuffer(chunk.buffers()[1], packed.dtype)[first : first + count].reshape(len(chunk), width)
        elements[:, filled : filled + len(chunk)] = rows.T
        filled += len(chunk)
    return elements


def _packed(field: pa.Field) -> Packed | None:
    packed = (field.metadata or {}).get(PACKED_KEY)
    return None if packed is None else msgspec.json.decode(packed, type=Packed)
