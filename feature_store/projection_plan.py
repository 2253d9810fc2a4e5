"""How to take a model version's runs out of the rows of one schema: compiled once, then run for every row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import itemgetter, or_

import numpy as np

from feature_store.dtypes import ARRAY_TYPE, ELEMENT_BYTES, NATIVE_DATATYPE, Dtype
from feature_store.feature_status import FeatureStatus
from feature_store.row_layout import HEADER, PlacedColumn, RowLayout, string_bytes

Take = Callable[[bytes], bytes]
"""A row → some of its bytes, cast as they are wanted."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One wanted feature, whatever the schema. `default` is already in the wanted datatype."""

    feature: str
    datatype: str
    dtype: Dtype
    default: bytes


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell within one schema: its bit in the null bitmap (0: this schema lacks it) and how to take it alone."""

    cell: Cell
    bit: int
    take: Take


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run within one schema's rows. `take` is right for rows in which none of it is null.

    `cut` is the slice that `take` is, where it is no more than that. `mask` has the bits of all cells.
    """

    cells: tuple[PlannedCell, ...]
    take: Take
    cut: slice | None
    mask: int
    has_strings: bool
    patches: tuple[tuple[int, int, int, bytes], ...]
    """Bit, default, and where it goes, of every cell: means nothing in a run with strings, whose lengths differ."""

    def fill(self, raw: bytes, nulls: int) -> bytes:
        """Take the run with defaults in place of nulls. Raises CorruptRow."""
        if not nulls & self.mask:
            return self.take(raw)
        if self.has_strings:
            return b"".join([c.cell.default if c.bit & nulls else c.take(raw) for c in self.cells])
        run = bytearray(self.take(raw))
        for bit, start, stop, default in self.patches:
            if bit & nulls:
                run[start:stop] = default
        return bytes(run)


@dataclass(frozen=True, slots=True)
class Plan:
    """All runs within one schema's rows. `take` is right for rows without any null."""

    runs: tuple[PlannedRun, ...]
    take: Callable[[bytes], tuple[bytes, ...]]
    row_bytes_min: int
    row_bytes_max: int
    null_bytes: int
    fresh_status: FeatureStatus
    """Of a fresh row without a null: NULL where this schema lacks a wanted feature."""

    def fill(self, raw: bytes, nulls: int) -> tuple[bytes, ...]:
        """Take every run, with defaults. Raises CorruptRow."""
        return tuple([run.fill(raw, nulls) for run in self.runs])

    def nulls(self, raw: bytes) -> int:
        """The null bitmap as a number: bit i is declared feature i."""
        return int.from_bytes(raw[HEADER.size : HEADER.size + self.null_bytes], "little")

    def status(self, nulls: int) -> FeatureStatus:
        """The status of a fresh row: NULL where a wanted feature is null."""
        return FeatureStatus.NULL if any(nulls & run.mask for run in self.runs) else self.fresh_status

    def status_with(self, nulls: int, given: Mapping[str, bytes]) -> FeatureStatus:
        """The status of a fresh row of which some features are given: a null of theirs does not count."""
        wanting = (c for run in self.runs for c in run.cells if c.cell.feature not in given)
        is_null = any(c.bit == 0 or c.bit & nulls for c in wanting)
        return FeatureStatus.NULL if is_null else FeatureStatus.PRESENT


def compile_plan(layout: RowLayout, runs: Sequence[Sequence[Cell]]) -> Plan:
    """Plan the runs for the rows of one schema; a feature that it lacks is always its default."""
    columns = {column.name: column for column in layout.columns}
    planned = tuple(_planned_run(layout, columns, run) for run in runs)
    complete = all(cell.bit for run in planned for cell in run.cells)
    return Plan(
        runs=planned,
        take=_all_of(planned),
        row_bytes_min=layout.tail_offset,
        row_bytes_max=layout.row_bytes_max,
        null_bytes=layout.null_bytes,
        fresh_status=FeatureStatus.PRESENT if complete else FeatureStatus.NULL,
    )


def cast(packed: bytes, dtype: Dtype, datatype: str) -> bytes:
    """Cast a column's native bytes. A float64 beyond float32 becomes an infinity, as IEEE 754 has it."""
    native = NATIVE_DATATYPE[dtype]
    if native == datatype:
        return packed
    with np.errstate(over="ignore"):
        return np.frombuffer(packed, ARRAY_TYPE[native]).astype(ARRAY_TYPE[datatype]).tobytes()


def overlaid(piece: bytes, run: Sequence[Cell], given: Mapping[str, bytes]) -> bytes:
    """Put given values, in native bytes by feature, over a run's bytes."""
    if not any(cell.feature in given for cell in run):
        return piece
    parts: list[bytes] = []
    start = 0
    for cell in run:
        size = len(cell.default)
        if cell.dtype is Dtype.STRING:
            size = 4 + int.from_bytes(piece[start : start + 4], "little")
        packed = given.get(cell.feature)
        parts.append(piece[start : start + size] if packed is None else cast(packed, cell.dtype, cell.datatype))
        start += size
    return b"".join(parts)


def _planned_run(layout: RowLayout, columns: Mapping[str, PlacedColumn], run: Sequence[Cell]) -> PlannedRun:
    cells: list[PlannedCell] = []
    patches: list[tuple[int, int, int, bytes]] = []
    start = 0
    for cell in run:
        bit = 1 << columns[cell.feature].index if cell.feature in columns else 0
        cells.append(PlannedCell(cell, bit, _take_group(layout, [cell], columns)))
        stop = start + len(cell.default)
        patches.append((bit, start, stop, cell.default))
        start = stop
    groups = list(_groups(run, columns))
    takes = [_take_group(layout, group, columns) for group in groups]
    return PlannedRun(
        cells=tuple(cells),
        take=takes[0] if len(takes) == 1 else _joined(takes),
        cut=_cut(groups[0], columns) if len(groups) == 1 else None,
        mask=reduce(or_, (cell.bit for cell in cells), 0),
        has_strings=any(cell.dtype is Dtype.STRING for cell in run),
        patches=tuple(patches),
    )


def _groups(run: Sequence[Cell], columns: Mapping[str, PlacedColumn]) -> Iterable[list[Cell]]:
    # Neighbours that one operation can take: the same dtype and datatype, wherever in the row they are.
    group: list[Cell] = []
    for cell in run:
        alone = cell.dtype is Dtype.STRING or cell.feature not in columns
        if group and (alone or group[-1].feature not in columns or _kind(group[-1]) != _kind(cell)):
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _kind(cell: Cell) -> tuple[Dtype, str]:
    return cell.dtype, cell.datatype


def _cut(group: Sequence[Cell], columns: Mapping[str, PlacedColumn]) -> slice | None:
    # The slice of the row that a group is, where its columns are side by side and wanted as they are stored.
    cast_needed = group[0].dtype is Dtype.STRING or NATIVE_DATATYPE[group[0].dtype] != group[0].datatype
    if cast_needed or group[0].feature not in columns:
        return None
    placed = [columns[cell.feature] for cell in group]
    if not _side_by_side(placed):
        return None
    return slice(placed[0].offset, placed[-1].offset + placed[-1].column_bytes)


def _side_by_side(placed: Sequence[PlacedColumn]) -> bool:
    return all(right.offset == left.offset + left.column_bytes for left, right in pairwise(placed))


def _take_group(layout: RowLayout, group: Sequence[Cell], columns: Mapping[str, PlacedColumn]) -> Take:
    first = columns.get(group[0].feature)
    if first is None:
        return _constant(b"".join([cell.default for cell in group]))
    if first.dtype is Dtype.STRING:
        return _take_string(layout, first)
    cut = _cut(group, columns)
    if cut is not None:
        return itemgetter(cut)
    placed = [columns[cell.feature] for cell in group]
    return (_take_cast if _side_by_side(placed) else _take_gathered)(placed, group[0].datatype)


def _take_cast(placed: Sequence[PlacedColumn], datatype: str) -> Take:
    source, target = np.dtype(ARRAY_TYPE[NATIVE_DATATYPE[placed[0].dtype]]), np.dtype(ARRAY_TYPE[datatype])
    offset, count = placed[0].offset, sum(column.column_bytes for column in placed) // source.itemsize
    frombuffer = np.frombuffer

    def take(raw: bytes) -> bytes:
        with np.errstate(over="ignore"):
            return frombuffer(raw, source, count, offset).astype(target).tobytes()

    return take


def _take_gathered(placed: Sequence[PlacedColumn], datatype: str) -> Take:
    width = ELEMENT_BYTES[placed[0].dtype]
    source, target = np.dtype(ARRAY_TYPE[NATIVE_DATATYPE[placed[0].dtype]]), np.dtype(ARRAY_TYPE[datatype])
    origin = min(column.offset for column in placed)
    count = max(column.offset + column.column_bytes - origin for column in placed) // width
    # Columns of one width are all a multiple of it apart, so that each is a whole number of elements from the first.
    indices = np.concatenate(
        [np.arange(column.column_bytes // width) + (column.offset - origin) // width for column in placed]
    )

    def take(raw: bytes) -> bytes:
        with np.errstate(over="ignore"):
            return np.frombuffer(raw, source, count, origin).take(indices).astype(target).tobytes()

    return take


def _take_string(layout: RowLayout, column: PlacedColumn) -> Take:
    def take(raw: bytes) -> bytes:
        text = string_bytes(layout, column, raw)
        return len(text).to_bytes(4, "little") + text

    return take


def _constant(value: bytes) -> Take:
    return lambda _raw: value


def _joined(takes: Sequence[Take]) -> Take:
    return lambda raw: b"".join([take(raw) for take in takes])


def _all_of(runs: Sequence[PlannedRun]) -> Callable[[bytes], tuple[bytes, ...]]:
    cuts = [run.cut for run in runs if run.cut is not None]
    takes = [run.take for run in runs]
    if len(runs) == 1:
        only = takes[0]
        return lambda raw: (only(raw),)
    if len(cuts) == len(runs) > 1:
        return itemgetter(*cuts)  # one call for all of the slices; it answers a tuple only for two or more
    return lambda raw: tuple([take(raw) for take in takes])
