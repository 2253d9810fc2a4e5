"""The packed row: one Redis value per (view, entity), laid out once per schema. docs/features.md shows every byte.

    header 24 │ null bitmap, padded to 8 │ columns: elements of 8, 4, 2, 1 bytes │ tail: the strings' UTF-8

Everything is little-endian. Columns go by element width, widest first, so that each is aligned and a view of one dtype
is one contiguous block, which a reader takes with a single slice.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from feature_store.dtypes import ELEMENT_BYTES, FLOATS, NATIVE_DATATYPE, Dtype
from feature_store.errors import CorruptRow, RowTooLarge, UnknownFeature
from feature_store.feature_value import pack_value

MAGIC = 0xF5
LAYOUT_VERSION = 1
HEADER = struct.Struct("<BBHIqq")
"""magic, layout version, schema id, flags, event time (µs), write time (µs)."""

STRING_SLOT = struct.Struct("<II")
"""Offset into the tail, byte length."""

HAS_NULL = 1
"""Flag bit 0: at least one feature is null. The other bits are zero."""

SCHEMA_ID_MAX = 2**16 - 1
ROW_BYTES_MAX = 64 * 1024
"""Largest row that is written, and that a reader takes for a row."""

_STRUCT_CODE = {
    Dtype.FLOAT16: "e",
    Dtype.FLOAT32: "f",
    Dtype.FLOAT64: "d",
    Dtype.INT32: "i",
    Dtype.INT64: "q",
    Dtype.BOOL: "B",
    Dtype.TIMESTAMP: "q",
}


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A feature as a schema knows it: this is what the registry stores. `length` makes it a fixed-size list."""

    name: str
    dtype: Dtype
    length: int | None = None

    @property
    def type_name(self) -> str:
        """The type in one word: `float32`, or `float16[64]` for a list."""
        return self.dtype.value if self.length is None else f"{self.dtype.value}[{self.length}]"

    @property
    def column_bytes(self) -> int:
        """Bytes in the fixed part of a row."""
        return ELEMENT_BYTES[self.dtype] * (self.length or 1)


@dataclass(frozen=True, slots=True)
class PlacedColumn:
    """A column with its place: `index` (its bit in the null bitmap) is the declared order, `offset` is in the row."""

    name: str
    dtype: Dtype
    length: int | None
    index: int
    offset: int
    column_bytes: int


class RowHeader(NamedTuple):
    """The first 24 bytes of a row."""

    schema_id: int
    flags: int
    event_time_us: int
    write_time_us: int


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """A row as Python values by feature name; None is null."""

    schema_id: int
    event_time_us: int
    write_time_us: int
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where everything is in the rows of one schema of one view. Make it with `place_columns`."""

    view: str
    schema_id: int
    columns: tuple[PlacedColumn, ...]
    """In declared order."""
    null_bytes: int
    """Bytes of the null bitmap with its padding."""
    tail_offset: int
    """Bytes before the tail: the whole row, where the view has no string."""
    has_strings: bool

    @property
    def row_bytes_max(self) -> int:
        """The longest a row can be: exactly `tail_offset` without strings."""
        return ROW_BYTES_MAX if self.has_strings else self.tail_offset

    def encode(self, values: Mapping[str, object], *, event_time_us: int, write_time_us: int) -> bytes:
        """Pack one row. A feature that is absent, None or a float NaN is null.

        Raises UnknownFeature, WrongFeatureValue, or RowTooLarge.
        """
        for name in values.keys() - {column.name for column in self.columns}:
            raise UnknownFeature(self.view, name)
        row, tail, nulls = bytearray(self.tail_offset), bytearray(), 0
        for column in self.columns:
            value = values.get(column.name)
            if value is None or (column.dtype in FLOATS and isinstance(value, float) and math.isnan(value)):
                nulls |= 1 << column.index
                continue
            packed = pack_value(column.name, value, NATIVE_DATATYPE[column.dtype], column.length)
            if column.dtype is Dtype.STRING:
                text = packed[4:]
                packed = STRING_SLOT.pack(len(tail), len(text))
                tail += text
            row[column.offset : column.offset + column.column_bytes] = packed
        flags = HAS_NULL if nulls else 0
        HEADER.pack_into(row, 0, MAGIC, LAYOUT_VERSION, self.schema_id, flags, event_time_us, write_time_us)
        row[HEADER.size : HEADER.size + self.null_bytes] = nulls.to_bytes(self.null_bytes, "little")
        if len(row) + len(tail) > ROW_BYTES_MAX:
            raise RowTooLarge(self.view, 0, len(row) + len(tail), ROW_BYTES_MAX)
        return bytes(row + tail)

    def decode(self, raw: bytes) -> DecodedRow:
        """Unpack every feature. Raises CorruptRow for any bytes that `encode` of this schema cannot have made."""
        header = read_header(self.view, raw)
        if header.schema_id != self.schema_id:
            raise CorruptRow(self.view, f"schema id {header.schema_id} where {self.schema_id} was expected")
        if not self.tail_offset <= len(raw) <= self.row_bytes_max:
            raise CorruptRow(self.view, f"{len(raw)} bytes where {self.tail_offset} were expected")
        nulls = int.from_bytes(raw[HEADER.size : HEADER.size + self.null_bytes], "little")
        if nulls >> len(self.columns) or bool(nulls) != bool(header.flags & HAS_NULL):
            raise CorruptRow(self.view, "null bitmap and flags disagree")
        values = {c.name: None if nulls >> c.index & 1 else self._value(c, raw) for c in self.columns}
        return DecodedRow(header.schema_id, header.event_time_us, header.write_time_us, values)

    def _value(self, column: PlacedColumn, raw: bytes) -> object:
        if column.dtype is Dtype.STRING:
            return string_bytes(self, column, raw).decode()
        elements: tuple[object, ...] = struct.unpack_from(
            f"<{column.length or 1}{_STRUCT_CODE[column.dtype]}", raw, column.offset
        )
        if column.dtype is Dtype.BOOL:
            if not set(elements) <= {0, 1}:
                raise CorruptRow(self.view, f"{column.name} holds a byte that is neither true nor false")
            elements = tuple(map(bool, elements))
        elif column.dtype in FLOATS and not all(math.isfinite(x) for x in elements if isinstance(x, float)):
            raise CorruptRow(self.view, f"{column.name} holds a number that is not finite")
        return elements[0] if column.length is None else list(elements)


def place_columns(view: str, schema_id: int, columns: Sequence[Column]) -> RowLayout:
    """Lay a schema out: element widths descending, stable in declared order. Raises RowTooLarge."""
    null_bytes = (len(columns) + 63) // 64 * 8
    offset = HEADER.size + null_bytes
    placed: dict[int, PlacedColumn] = {}
    for index, column in sorted(enumerate(columns), key=lambda item: -ELEMENT_BYTES[item[1].dtype]):
        size = column.column_bytes
        placed[index] = PlacedColumn(column.name, column.dtype, column.length, index, offset, size)
        offset += size
    if offset > ROW_BYTES_MAX:
        raise RowTooLarge(view, 0, offset, ROW_BYTES_MAX)
    in_order = tuple(placed[index] for index in range(len(columns)))
    has_strings = any(column.dtype is Dtype.STRING for column in columns)
    return RowLayout(view, schema_id, in_order, null_bytes, offset, has_strings)


def read_header(view: str, raw: bytes) -> RowHeader:
    """Read what comes before the columns. Raises CorruptRow unless the bytes begin as a row of this version does."""
    if not HEADER.size <= len(raw) <= ROW_BYTES_MAX:
        raise CorruptRow(view, f"{len(raw)} bytes; a row has {HEADER.size} to {ROW_BYTES_MAX}")
    magic, layout_version, schema_id, flags, event_time_us, write_time_us = HEADER.unpack_from(raw)
    if magic != MAGIC or layout_version != LAYOUT_VERSION:
        raise CorruptRow(view, f"begins with {raw[:2].hex()}, not {MAGIC:02x}{LAYOUT_VERSION:02x}")
    if flags & ~HAS_NULL:
        raise CorruptRow(view, f"unknown flags {flags:#x}")
    return RowHeader(schema_id, flags, event_time_us, write_time_us)


def string_bytes(layout: RowLayout, column: PlacedColumn, raw: bytes) -> bytes:
    """Take one string's UTF-8 out of the tail. Raises CorruptRow unless its slot points inside, at valid UTF-8."""
    start, size = STRING_SLOT.unpack_from(raw, column.offset)
    text = raw[layout.tail_offset + start : layout.tail_offset + start + size]
    if len(text) != size:
        raise CorruptRow(layout.view, f"{column.name} points outside the row")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise CorruptRow(layout.view, f"{column.name} is not UTF-8 at byte {error.start}") from error
    return text
