from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from feature_store.arrow_columns import WrongColumn, entity_ids, event_times_us, feature_values
from feature_store.dtypes import Dtype
from feature_store.feature_value import STRING_BYTES_MAX
from feature_store.row_layout import Column, PlacedColumn, place_columns
from feature_store.row_writer import EVENT_TIME_US_MAX

FIRST_ROW = 101


def placed(dtype: Dtype, length: int | None = None) -> PlacedColumn:
    return place_columns("v", 1, [Column("a", dtype, length)]).columns[0]


def converted(dtype: Dtype, data: pa.Array, length: int | None = None) -> list[object]:
    """The values with None for nulls."""
    column = feature_values(placed(dtype, length), data, FIRST_ROW)
    return [None if null else value for value, null in zip(column.values.tolist(), column.null, strict=True)]


@pytest.mark.parametrize(
    ("dtype", "data", "values"),
    [
        (Dtype.FLOAT32, pa.array([1.5, None, float("nan")]), [1.5, None, None]),
        (Dtype.FLOAT32, pa.array([2**24 + 1]), [2.0**24]),
        (Dtype.FLOAT64, pa.array([7, None], pa.int8()), [7.0, None]),
        (Dtype.INT32, pa.array([1.0, float("nan"), None]), [1, None, None]),
        (Dtype.INT32, pa.array([-5, None], pa.int64()), [-5, None]),
        (Dtype.INT64, pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        (Dtype.BOOL, pa.array([True, None, False]), [True, None, False]),
        (Dtype.TIMESTAMP, pa.array([datetime(2026, 1, 1, tzinfo=UTC), None]), [1_767_225_600_000_000, None]),
        (Dtype.TIMESTAMP, pa.array([date(2026, 1, 1)]), [1_767_225_600_000_000]),
        (Dtype.TIMESTAMP, pa.array(["2026-01-01 00:00:00", None]), [1_767_225_600_000_000, None]),
        (Dtype.FLOAT64, pa.array([None, None]), [None, None]),
        (Dtype.INT64, pa.array([5, 6, 5]).dictionary_encode(), [5, 6, 5]),
    ],
)
def test_a_column_converts_where_no_value_changes_but_by_a_floats_rounding(dtype, data, values):
    assert converted(dtype, data) == values


@pytest.mark.parametrize(
    ("dtype", "data", "row"),
    [
        (Dtype.INT32, pa.array([1, 2, 2**31]), 103),
        (Dtype.INT32, pa.array([1.0, 1.5]), 102),
        (Dtype.INT64, pa.array([2**63], pa.uint64()), 101),
        (Dtype.FLOAT32, pa.array([1.0, 1e39]), 102),
        (Dtype.FLOAT64, pa.array([0.0, float("-inf")]), 102),
        (Dtype.FLOAT64, pa.array([2**53 + 1]), 101),
        (Dtype.STRING, pa.array(["", "x" * (STRING_BYTES_MAX + 1)]), 102),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_row(dtype, data, row):
    with pytest.raises(WrongColumn) as caught:
        feature_values(placed(dtype), data, FIRST_ROW)
    assert (caught.value.column, caught.value.row) == ("a", row)


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        (Dtype.FLOAT32, pa.array(["1.5"])),
        (Dtype.FLOAT32, pa.array([True])),
        (Dtype.BOOL, pa.array([1])),
        (Dtype.STRING, pa.array([1])),
        (Dtype.TIMESTAMP, pa.array([1.0])),
        (Dtype.INT64, pa.array([datetime(2026, 1, 1, tzinfo=UTC)])),
        (Dtype.FLOAT64, pa.array([Decimal("1.5")])),
        (Dtype.STRING, pa.Array.from_buffers(pa.string(), 1, [*pa.array(["a"]).buffers()[:2], pa.py_buffer(b"\xff")])),
    ],
)
def test_a_column_of_another_kind_is_refused_as_a_whole(dtype, data):
    with pytest.raises(WrongColumn) as caught:
        feature_values(placed(dtype), data, FIRST_ROW)
    assert caught.value.row is None


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 2), pa.list_(pa.int8())]
)
def test_lists_of_any_arrow_kind_convert(kind):
    values = feature_values(placed(Dtype.FLOAT16, 2), pa.array([[0, 0], [1, 2], None, [3, 4]], kind).slice(1), 1)
    assert values.values.dtype == np.float16
    assert values.values.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert values.null.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ([[1.0, 2.0], [1.0]], "a list of 1 values where 2 were declared"),
        ([[1.0, 2.0], [1.0, None]], "its elements may not"),
        ([None, [1.0, float("nan")]], "not a finite float16"),
        ([[1.0, 2.0], [1.0, 70_000.0]], "not a finite float16"),
    ],
)
def test_a_wrong_list_is_refused_with_its_row(lists, says):
    with pytest.raises(WrongColumn, match=says) as caught:
        feature_values(placed(Dtype.FLOAT16, 2), pa.array(lists), FIRST_ROW)
    assert caught.value.row == 102


def test_a_scalar_where_a_list_was_declared_is_refused():
    with pytest.raises(WrongColumn, match="expected lists of 2 float32"):
        feature_values(placed(Dtype.FLOAT32, 2), pa.array([1.0]), FIRST_ROW)


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (pa.array(["007", "é"]), [b"007", b"\xc3\xa9"]),
        (pa.array([7, -8]), [b"7", b"-8"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), [b"a", b"b", b"a"]),
    ],
)
def test_entity_ids_are_text_or_integers(data, ids):
    assert entity_ids("patient", data, FIRST_ROW) == ids


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (pa.array(["a", None]), 102),
        (pa.array(["a", ""]), 102),
        (pa.array(["é" * 129]), 101),
        (pa.array([1.0]), None),
        (pa.array([True]), None),
    ],
)
def test_an_entity_id_that_is_none_is_refused_with_its_row(data, row):
    with pytest.raises(WrongColumn) as caught:
        entity_ids("patient", data, FIRST_ROW)
    assert (caught.value.column, caught.value.row) == ("patient", row)


@pytest.mark.parametrize(
    "data",
    [
        pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("s", "Asia/Tokyo")),
        pa.array([datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)], pa.timestamp("ms")),
        pa.array([1_767_225_600_000_000_999], pa.timestamp("ns")),
        pa.array([date(2026, 1, 1)]),
        pa.array([1_767_225_600_000_000]),
        pa.array(["1767225600000000"]),
        pa.array(["2026-01-01T00:00:00Z"]),
        pa.array(["2026-01-01T09:00:00+09:00"]),
        pa.array(["2026-01-01 00:00:00"]),
        pa.array(["2026-01-01"]),
    ],
)
def test_an_event_time_is_read_from_any_usual_form(data):
    assert event_times_us("event_time", data, FIRST_ROW).tolist() == [1_767_225_600_000_000]


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (pa.array([1, None]), 102),
        (pa.array([-1]), 101),
        (pa.array([0, EVENT_TIME_US_MAX + 1]), 102),
        (pa.array(["yesterday"]), None),
        (pa.array([1.5]), None),
    ],
)
def test_an_event_time_that_is_none_is_refused(data, row):
    with pytest.raises(WrongColumn) as caught:
        event_times_us("event_time", data, FIRST_ROW)
    assert caught.value.row == row
