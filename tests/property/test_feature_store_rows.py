import contextlib
import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import FeatureStatus, Projection, RegisteredView, Wanted
from feature_store.arrow_columns import ARROW_TYPE, feature_values
from feature_store.bulk_rows import encode_rows
from feature_store.dtypes import DATATYPES_OF, Dtype
from feature_store.errors import CorruptRow
from feature_store.row_layout import Column, RowLayout, place_columns

TIMES = st.integers(-(2**63), 2**63 - 1)
ELEMENTS: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.FLOAT16: st.floats(width=16, allow_nan=False, allow_infinity=False),
    Dtype.FLOAT32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.BOOL: st.booleans(),
    # Code points of one to four bytes. All of Unicode would first build Hypothesis's table of it, for seconds.
    Dtype.STRING: st.text("a\0é関\U0001f600", max_size=20),
    Dtype.TIMESTAMP: TIMES,
}
DEFAULTS: dict[Dtype, object] = {**dict.fromkeys(Dtype, 1), Dtype.BOOL: True, Dtype.STRING: "none"}
CODES = {"FP16": "e", "FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "BOOL": "?"}


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Column, ...]:
    columns = []
    for index in range(draw(st.integers(1, 12))):
        dtype = draw(st.sampled_from(Dtype))
        lengths = st.integers(1, 5) if dtype is Dtype.FLOAT16 else st.none() | st.integers(1, 5)
        length = None if dtype is Dtype.STRING else draw(lengths)
        columns.append(Column(f"f{index}", dtype, length))
    return tuple(columns)


def values_of(columns: tuple[Column, ...]) -> st.SearchStrategy[dict[str, object]]:
    def of(column: Column) -> st.SearchStrategy[object]:
        element = ELEMENTS[column.dtype]
        if column.length is None:
            return st.none() | element
        return st.none() | st.lists(element, min_size=column.length, max_size=column.length)

    return st.fixed_dictionaries({column.name: of(column) for column in columns})


def layout_of(columns: tuple[Column, ...]) -> RowLayout:
    return place_columns("v", 7, columns)


@settings(deadline=None)  # the first example imports; machines are shared
@given(st.data(), schemas(), TIMES, TIMES)
def test_a_row_reads_back_as_it_was_written(data, columns, event_time_us, write_time_us):
    layout = layout_of(columns)
    values = data.draw(values_of(columns))
    row = layout.decode(layout.encode(values, event_time_us=event_time_us, write_time_us=write_time_us))
    assert row.values == values
    assert (row.event_time_us, row.write_time_us) == (event_time_us, write_time_us)


@settings(deadline=None)  # the first example imports; machines are shared
@given(st.data(), schemas(), TIMES)
def test_the_bulk_encoder_makes_the_bytes_of_the_scalar_one(data, columns, write_time_us):
    layout = layout_of(columns)
    rows = data.draw(st.lists(st.tuples(values_of(columns), TIMES), max_size=6))
    batch = {}
    for column in layout.columns:
        element = ARROW_TYPE[column.dtype]
        kind = element if column.length is None else pa.list_(element)
        whole = pa.array([None, *(values[column.name] for values, _time in rows)], kind)
        batch[column.name] = feature_values(column, whole.slice(1), 1)  # a slice: offsets must not count from 0
    times = np.array([time for _values, time in rows], np.int64)
    bulk = encode_rows(layout, batch, times, write_time_us)
    assert bulk == [layout.encode(values, event_time_us=t, write_time_us=write_time_us) for values, t in rows]


@settings(deadline=None)  # the first example imports; machines are shared
@given(schemas(), st.binary(max_size=200))
def test_arbitrary_bytes_are_a_corrupt_row_and_nothing_else(columns, raw):
    layout = layout_of(columns)
    try:
        layout.decode(raw)
    except CorruptRow:
        return
    assert raw[:2] == b"\xf5\x01"


@settings(deadline=None)  # the first example imports; machines are shared
@given(st.data(), schemas())
def test_a_truncated_or_mutated_row_decodes_or_is_corrupt_and_projects_without_raising(data, columns):
    layout = layout_of(columns)
    raw = bytearray(layout.encode(data.draw(values_of(columns)), event_time_us=0, write_time_us=0))
    for _change in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    spoiled = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(CorruptRow):
        layout.decode(spoiled)
    projection, _wanted = projection_of(data, columns)
    got = projection.project(spoiled, 0)
    assert got.status is not FeatureStatus.MISSING or got.pieces == projection.project(None, 0).pieces


def projection_of(data: st.DataObject, columns: tuple[Column, ...]) -> tuple[Projection, list[list[Wanted]]]:
    dtypes = {column.name: column.dtype for column in columns}
    defaults = {c.name: DEFAULTS[c.dtype] if c.length is None else [DEFAULTS[c.dtype]] * c.length for c in columns}
    names = data.draw(st.lists(st.sampled_from(sorted(dtypes)), max_size=8))
    runs: list[list[Wanted]] = [[]]
    for name in names:
        if data.draw(st.booleans()):
            runs.append([])
        runs[-1].append(Wanted(name, data.draw(st.sampled_from(DATATYPES_OF[dtypes[name]]))))
    view = RegisteredView(
        name="v", entity="e", max_age_us=10, current_schema_id=7, schemas={7: layout_of(columns)}, defaults=defaults
    )
    return Projection(view, runs), runs


def element_bytes(value: object, datatype: str) -> bytes:
    if isinstance(value, list):
        return b"".join(element_bytes(element, datatype) for element in value)
    if isinstance(value, str):
        return struct.pack("<I", len(value.encode())) + value.encode()
    try:
        return struct.pack("<" + CODES[datatype], value)
    except OverflowError:
        assert isinstance(value, float)
        return struct.pack("<f", math.copysign(math.inf, value))


@settings(deadline=None)  # the first example imports; machines are shared
@given(st.data(), schemas())
def test_a_projection_gives_what_decoding_and_packing_each_value_would(data, columns):
    projection, runs = projection_of(data, columns)
    layout = layout_of(columns)
    values = data.draw(values_of(columns))
    given_values = data.draw(values_of(columns))
    overrides = {name: value for name, value in given_values.items() if value is not None and data.draw(st.booleans())}
    raw = layout.encode(values, event_time_us=0, write_time_us=0)

    def expected(chosen: dict[str, object]) -> tuple[tuple[bytes, ...], FeatureStatus]:
        filled = {name: projection_default(columns, name) if v is None else v for name, v in chosen.items()}
        pieces = tuple(b"".join(element_bytes(filled[w.feature], w.datatype) for w in run) for run in runs)
        null = any(chosen[wanted.feature] is None for run in runs for wanted in run)
        return pieces, FeatureStatus.NULL if null else FeatureStatus.PRESENT

    plain = projection.project(raw, 10)
    assert (plain.pieces, plain.status) == expected(values)
    overridden = projection.project_with(raw, 10, overrides)
    assert (overridden.pieces, overridden.status) == expected(values | overrides)
    assert projection.project(raw, 11).status is FeatureStatus.STALE


def projection_default(columns: tuple[Column, ...], name: str) -> object:
    (column,) = (column for column in columns if column.name == name)
    return DEFAULTS[column.dtype] if column.length is None else [DEFAULTS[column.dtype]] * column.length
