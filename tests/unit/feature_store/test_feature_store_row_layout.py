import json
import struct
from pathlib import Path

import numpy as np
import pytest

from feature_store.bulk_rows import ColumnValues, encode_rows
from feature_store.dtypes import Dtype
from feature_store.errors import CorruptRow, InvalidEntityId, RowTooLarge, UnknownFeature
from feature_store.feature_value import STRING_BYTES_MAX
from feature_store.row_keys import ENTITY_ID_BYTES_MAX, row_key, row_key_prefix
from feature_store.row_layout import ROW_BYTES_MAX, Column, RowLayout, place_columns

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "feature_rows_v1.json").read_text(encoding="utf-8"))


def layout_of(case: dict) -> RowLayout:
    columns = [Column(c["name"], Dtype(c["dtype"]), c.get("length")) for c in case["columns"]]
    return place_columns("golden", case["schema_id"], columns)


def encoded(layout: RowLayout, **values: object) -> bytes:
    return layout.encode(values, event_time_us=1, write_time_us=2)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["case"])
def test_a_row_has_the_published_bytes_and_reads_back(case):
    published = bytes.fromhex("".join(case["bytes"]))
    layout = layout_of(case)
    times = {"event_time_us": case["event_time_us"], "write_time_us": case["write_time_us"]}
    assert layout.encode(case["values"], **times) == published
    row = layout.decode(published)
    assert row.values == {column["name"]: case["values"].get(column["name"]) for column in case["columns"]}
    assert (row.schema_id, row.event_time_us, row.write_time_us) == (case["schema_id"], *times.values())


def test_a_view_of_one_dtype_is_one_contiguous_block_after_header_and_bitmap():
    layout = place_columns("v", 1, [Column(f"f{i}", Dtype.FLOAT32) for i in range(50)])
    assert [column.offset for column in layout.columns] == list(range(32, 32 + 200, 4))
    assert encoded(layout, **{f"f{i}": i for i in range(50)})[32:] == struct.pack("<50f", *range(50))


def test_columns_go_by_element_width_and_keep_their_declared_order_within_one():
    columns = [
        Column("a", Dtype.BOOL),
        Column("b", Dtype.INT32),
        Column("c", Dtype.FLOAT16, 3),
        Column("d", Dtype.STRING),
        Column("e", Dtype.FLOAT32, 2),
        Column("f", Dtype.INT64),
    ]
    placed = sorted(place_columns("v", 1, columns).columns, key=lambda column: column.offset)
    assert "".join(column.name for column in placed) == "dfbeca"


def test_the_bitmap_grows_by_eight_bytes_with_every_64_features():
    sizes = [place_columns("v", 1, [Column(f"f{i}", Dtype.BOOL) for i in range(n)]).null_bytes for n in (1, 64, 65)]
    assert sizes == [8, 8, 16]


def test_a_float_nan_is_null_and_an_unknown_feature_is_refused():
    layout = place_columns("v", 1, [Column("a", Dtype.FLOAT64)])
    assert layout.decode(encoded(layout, a=float("nan"))).values == {"a": None}
    with pytest.raises(UnknownFeature):
        encoded(layout, b=1.0)


def test_a_row_beyond_the_limit_is_refused_by_both_encoders_with_its_size():
    layout = place_columns("v", 1, [Column(name, Dtype.STRING) for name in "abc"])
    text = "x" * STRING_BYTES_MAX
    with pytest.raises(RowTooLarge) as caught:
        encoded(layout, a=text, b=text, c=text)
    assert caught.value.row_bytes == 24 + 8 + 24 + 3 * STRING_BYTES_MAX
    content = np.frombuffer(text.encode(), np.uint8)
    offsets = np.array([0, 0, len(text)])
    column = ColumnValues(content, np.array([False, False]), offsets)
    with pytest.raises(RowTooLarge) as caught:
        encode_rows(layout, dict.fromkeys("abc", column), np.zeros(2, np.int64), 0)
    assert (caught.value.row, caught.value.row_bytes_max) == (1, ROW_BYTES_MAX)


def test_a_bulk_batch_without_rows_is_no_rows():
    strings = place_columns("v", 1, [Column("a", Dtype.STRING)])
    column = ColumnValues(np.zeros(0, np.uint8), np.zeros(0, np.bool_), np.zeros(1, np.int64))
    assert encode_rows(strings, {"a": column}, np.zeros(0, np.int64), 0) == []


def test_text_and_numbers_under_a_null_are_not_stored():
    layout = place_columns("v", 1, [Column("a", Dtype.STRING), Column("b", Dtype.INT32)])
    text = ColumnValues(np.frombuffer(b"secret", np.uint8), np.array([True]), np.array([0, 6]))
    number = ColumnValues(np.array([7], np.int32), np.array([True]))
    (row,) = encode_rows(layout, {"a": text, "b": number}, np.array([1]), 2)
    assert row == encoded(layout)


def test_a_bulk_batch_with_an_unknown_feature_is_refused():
    layout = place_columns("v", 1, [Column("a", Dtype.FLOAT32)])
    with pytest.raises(UnknownFeature):
        encode_rows(layout, {"b": ColumnValues(np.zeros(1), np.zeros(1, np.bool_))}, np.zeros(1, np.int64), 0)


@pytest.mark.parametrize(
    ("at", "byte", "says"),
    [
        (0, 0xF4, "begins with f401"),
        (1, 2, "begins with f502"),
        (2, 9, "schema id 9"),
        (4, 2, "unknown flags"),
        (4, 1, "bitmap and flags disagree"),
        (24, 1, "bitmap and flags disagree"),
        (24, 4, "bitmap and flags disagree"),
        (32, 9, "points outside the row"),
        (40, 2, "neither true nor false"),
        (41, 0xFF, "not UTF-8 at byte 0"),
    ],
)
def test_a_changed_byte_that_no_writer_makes_is_a_corrupt_row(at, byte, says):
    layout = place_columns("v", 1, [Column("flag", Dtype.BOOL), Column("text", Dtype.STRING)])
    row = bytearray(encoded(layout, flag=True, text="ab"))
    row[at] = byte
    with pytest.raises(CorruptRow, match=says):
        layout.decode(bytes(row))


def test_a_null_of_a_feature_that_does_not_exist_is_a_corrupt_row():
    layout = place_columns("v", 1, [Column("flag", Dtype.BOOL)])
    row = bytearray(encoded(layout, flag=True))
    row[4], row[24] = 1, 2
    with pytest.raises(CorruptRow, match="bitmap and flags disagree"):
        layout.decode(bytes(row))


def test_a_stored_nan_is_a_corrupt_row():
    layout = place_columns("v", 1, [Column("a", Dtype.FLOAT32)])
    row = encoded(layout, a=1.0)[:-4] + struct.pack("<f", float("nan"))
    with pytest.raises(CorruptRow, match="not finite"):
        layout.decode(row)


def test_a_key_is_the_prefix_and_the_id_in_utf8():
    assert row_key("patient_mean", "p7é") == b"sekisho:row:patient_mean:p7\xc3\xa9"
    assert row_key_prefix("patient_mean") == b"sekisho:row:patient_mean:"
    assert row_key("v", "x" * ENTITY_ID_BYTES_MAX).endswith(b"x" * ENTITY_ID_BYTES_MAX)


@pytest.mark.parametrize("entity_id", ["", "x" * (ENTITY_ID_BYTES_MAX + 1), "é" * 129, "\udc80"])
def test_an_id_that_is_empty_too_long_or_no_utf8_is_refused(entity_id):
    with pytest.raises(InvalidEntityId):
        row_key("v", entity_id)
