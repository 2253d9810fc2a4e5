"""Packs whole columns into rows with numpy: no Python loop runs per feature and row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.dtypes import ARRAY_TYPE, NATIVE_DATATYPE, Dtype
from feature_store.errors import RowTooLarge, UnknownFeature
from feature_store.row_layout import HAS_NULL, HEADER, LAYOUT_VERSION, MAGIC, ROW_BYTES_MAX, PlacedColumn, RowLayout

_HEADER_FIELDS = (
    ("magic", "u1", 0),
    ("layout", "u1", 1),
    ("schema_id", "<u2", 2),
    ("flags", "<u4", 4),
    ("event_time_us", "<i8", 8),
    ("write_time_us", "<i8", 16),
)


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """One feature of many rows. `null` (rows,) marks the nulls; values under them are ignored.

    Fixed-width: `values` (rows,), or (rows, length) for a list, is of the column's own type and finite. Strings:
    `values` is UTF-8 bytes (uint8) and row i is `values[offsets[i]:offsets[i + 1]]`, as in Arrow.
    """

    values: NDArray[Any]
    null: NDArray[np.bool_]
    offsets: NDArray[np.int64] | None = None


def encode_rows(
    layout: RowLayout, columns: Mapping[str, ColumnValues], event_time_us: NDArray[np.int64], write_time_us: int
) -> list[bytes]:
    """Pack the rows of a batch, byte for byte as `RowLayout.encode` does. A column that is absent is null.

    event_time_us (rows,). Raises UnknownFeature, and RowTooLarge with the row.
    """
    for name in columns.keys() - {column.name for column in layout.columns}:
        raise UnknownFeature(layout.view, name)
    rows = len(event_time_us)
    records = np.zeros(rows, _record_type(layout))
    null = np.ones((rows, len(layout.columns)), np.bool_)
    strings = []
    for column in layout.columns:
        given = columns.get(column.name)
        if given is None:
            continue
        null[:, column.index] = given.null
        if column.dtype is Dtype.STRING:
            strings.append((column, _Strings.of(given)))
        else:
            mask = given.null if column.length is None else given.null[:, None]
            records[f"column{column.index}"] = np.where(mask, given.values.dtype.type(0), given.values)
    records["magic"], records["layout"], records["schema_id"] = MAGIC, LAYOUT_VERSION, layout.schema_id
    records["flags"] = np.where(null.any(axis=1), HAS_NULL, 0)
    records["event_time_us"], records["write_time_us"] = event_time_us, write_time_us
    bits = np.packbits(null, axis=1, bitorder="little")
    records["null"][:, : bits.shape[1]] = bits
    return _with_tails(layout, records, strings) if strings else _sliced(records.tobytes(), layout.tail_offset)


@dataclass(frozen=True, slots=True)
class _Strings:
    """A string column with nulls made empty: row i is `text[starts[i]:starts[i] + lengths[i]]`."""

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    null: NDArray[np.bool_]

    @classmethod
    def of(cls, column: ColumnValues) -> "_Strings":
        assert column.offsets is not None
        lengths = np.where(column.null, 0, np.diff(column.offsets))
        return cls(column.values, column.offsets[:-1], lengths, column.null)


def _record_type(layout: RowLayout) -> np.dtype[Any]:
    fields: list[tuple[str, Any, int]] = [*_HEADER_FIELDS, ("null", ("u1", (layout.null_bytes,)), HEADER.size)]
    fields += [(f"column{c.index}", _element_type(c), c.offset) for c in layout.columns]
    names, formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.tail_offset})


def _element_type(column: PlacedColumn) -> Any:
    if column.dtype is Dtype.STRING:
        return ("<u4", (2,))
    element = ARRAY_TYPE[NATIVE_DATATYPE[column.dtype]]
    return element if column.length is None else (element, (column.length,))


def _sliced(buffer: bytes, row_bytes: int) -> list[bytes]:
    return [buffer[start : start + row_bytes] for start in range(0, len(buffer), row_bytes)]


def _with_tails(
    layout: RowLayout, records: NDArray[Any], strings: Sequence[tuple[PlacedColumn, _Strings]]
) -> list[bytes]:
    rows, fixed = len(records), layout.tail_offset
    tail_bytes = np.zeros(rows, np.int64)
    for column, string in strings:
        slots = records[f"column{column.index}"]
        slots[:, 0], slots[:, 1] = np.where(string.null, 0, tail_bytes), string.lengths
        tail_bytes += string.lengths
    too_large = np.flatnonzero(fixed + tail_bytes > ROW_BYTES_MAX)
    if len(too_large):
        row = int(too_large[0])
        raise RowTooLarge(layout.view, row, fixed + int(tail_bytes[row]), ROW_BYTES_MAX)
    stops = np.cumsum(fixed + tail_bytes)
    starts = stops - fixed - tail_bytes
    buffer = np.zeros(int(stops[-1]) if rows else 0, np.uint8)
    buffer[starts[:, None] + np.arange(fixed)] = records.view(np.uint8).reshape(rows, fixed)
    at = starts + fixed
    for _column, string in strings:
        _copy_texts(string, buffer, at)
        at += string.lengths
    packed = buffer.tobytes()
    return [packed[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def _copy_texts(string: _Strings, buffer: NDArray[np.uint8], at: NDArray[np.int64]) -> None:
    # Every byte of every text at once: `within` counts 0, 1, 2… anew in each row.
    total = int(string.lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(string.lengths) - string.lengths, string.lengths)
    buffer[np.repeat(at, string.lengths) + within] = string.text[np.repeat(string.starts, string.lengths) + within]
