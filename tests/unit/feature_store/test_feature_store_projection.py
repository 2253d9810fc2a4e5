import math
import struct

import pytest

from feature_store import FeatureStatus, Projection, RegisteredView, Wanted
from feature_store.dtypes import DATATYPES_OF, Dtype
from feature_store.errors import IncompatibleDatatype, NoDefault, UnknownFeature, WrongFeatureValue
from feature_store.row_layout import ROW_BYTES_MAX, Column, place_columns

NOW_US = 1_800_000_000_000_000
MAX_AGE_US = 1_000_000


def view(*columns: Column, defaults: dict[str, object] | None = None, older: int = 0) -> RegisteredView:
    """A view whose schema 1 has the first `older` columns, where that is not 0, and whose current one has all."""
    schemas = {1: place_columns("v", 1, columns[: older or None])}
    if older:
        schemas[2] = place_columns("v", 2, columns)
    return RegisteredView(
        name="v",
        entity="e",
        max_age_us=MAX_AGE_US,
        current_schema_id=max(schemas),
        schemas=schemas,
        defaults=defaults or {},
    )


def row(of: RegisteredView, schema_id: int | None = None, age_us: int = 0, **values: object) -> bytes:
    layout = of.schemas[schema_id or of.current_schema_id]
    return layout.encode(values, event_time_us=NOW_US - age_us, write_time_us=NOW_US)


def wanted(names: str, datatype: str) -> list[Wanted]:
    return [Wanted(name, datatype) for name in names]


def floats(*names: str) -> list[Column]:
    return [Column(name, Dtype.FLOAT32) for name in names]


def test_neighbouring_columns_come_as_the_rows_own_bytes():
    four = view(*floats(*"abcd"))
    got = Projection(four, [wanted("bc", "FP32"), wanted("d", "FP32")]).project(row(four, a=1, b=2, c=3, d=4), NOW_US)
    assert got.pieces == (struct.pack("<2f", 2, 3), struct.pack("<f", 4))
    assert (got.status, got.event_time_us, got.fault) == (FeatureStatus.PRESENT, NOW_US, None)


def test_columns_wanted_in_another_order_come_in_that_order():
    four = view(*floats(*"abcd"))
    got = Projection(four, [wanted("dab", "FP32")]).project(row(four, a=1, b=2, c=3, d=4), NOW_US)
    assert got.pieces == (struct.pack("<3f", 4, 1, 2),)


def test_a_run_may_mix_dtypes_and_lists():
    mixed = view(
        Column("flag", Dtype.BOOL),
        Column("count", Dtype.INT64),
        Column("half", Dtype.FLOAT16, 2),
        Column("x", Dtype.FLOAT32),
    )
    run = [Wanted(name, "FP32") for name in ("flag", "half", "x", "count")]
    got = Projection(mixed, [run]).project(row(mixed, flag=True, half=[0.5, -2], x=3, count=7), NOW_US)
    assert got.pieces == (struct.pack("<5f", 1, 0.5, -2, 3, 7),)


VALUES = {
    Dtype.FLOAT16: [1.5, -2.0],
    Dtype.FLOAT32: 0.1,
    Dtype.FLOAT64: 0.1,
    Dtype.INT32: -(2**31),
    Dtype.INT64: 2**53,
    Dtype.BOOL: True,
    Dtype.STRING: "関所",
    Dtype.TIMESTAMP: NOW_US,
}
CODES = {"FP16": "e", "FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q", "BOOL": "?"}


@pytest.mark.parametrize(("dtype", "datatype"), [(d, t) for d, allowed in DATATYPES_OF.items() for t in allowed])
def test_every_allowed_widening_gives_the_element_that_struct_packs(dtype, datatype):
    one = view(Column("a", dtype, 2 if dtype is Dtype.FLOAT16 else None), defaults={"a": VALUES[dtype]})
    (piece,) = Projection(one, [wanted("a", datatype)]).project(row(one, a=VALUES[dtype]), NOW_US).pieces
    stored = one.current.decode(row(one, a=VALUES[dtype])).values["a"]
    if datatype == "BYTES":
        assert piece == b"\x06\x00\x00\x00" + "関所".encode()
    else:
        elements = stored if isinstance(stored, list) else [stored]
        assert piece == struct.pack(f"<{len(elements)}{CODES[datatype]}", *elements)


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        (dtype, datatype)
        for dtype, allowed in DATATYPES_OF.items()
        for datatype in ("FP16", "FP32", "FP64", "INT32", "INT64", "BOOL", "BYTES", "UINT8")
        if datatype not in allowed
    ],
)
def test_every_other_datatype_is_refused_at_construction_with_both_types(dtype, datatype):
    one = view(Column("a", dtype, 2 if dtype is Dtype.FLOAT16 else None))
    with pytest.raises(IncompatibleDatatype) as caught:
        Projection(one, [wanted("a", datatype)])
    error = caught.value
    assert (error.view, error.feature, error.dtype, error.datatype) == ("v", "a", dtype, datatype)


def test_an_unknown_feature_is_refused_at_construction():
    with pytest.raises(UnknownFeature) as caught:
        Projection(view(*floats("a")), [wanted("b", "FP32")])
    assert (caught.value.view, caught.value.feature) == ("v", "b")


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [(Dtype.INT32, "INT64"), (Dtype.BOOL, "BOOL"), (Dtype.STRING, "BYTES"), (Dtype.TIMESTAMP, "INT64")],
)
def test_a_feature_without_default_is_refused_where_its_datatype_has_no_nan(dtype, datatype):
    with pytest.raises(NoDefault):
        Projection(view(Column("a", dtype)), [wanted("a", datatype)])
    Projection(view(Column("a", dtype), defaults={"a": VALUES[dtype]}), [wanted("a", datatype)])


def test_a_null_takes_the_default_or_else_nan_and_the_status_is_null():
    three = view(*floats("a", "b", "c"), defaults={"b": 7})
    got = Projection(three, [wanted("abc", "FP32")]).project(row(three, a=1), NOW_US)
    first, default, nan = struct.unpack("<3f", got.pieces[0])
    assert (first, default, math.isnan(nan)) == (1, 7, True)
    assert got.status is FeatureStatus.NULL


def test_a_null_that_no_run_wants_leaves_the_row_present():
    two = view(*floats("a", "b"))
    got = Projection(two, [wanted("a", "FP32")]).project(row(two, a=1), NOW_US)
    assert (got.pieces, got.status) == ((struct.pack("<f", 1),), FeatureStatus.PRESENT)


def test_a_null_string_takes_its_default_between_its_neighbours():
    three = view(*(Column(name, Dtype.STRING) for name in "abc"), defaults={"a": "A", "b": "", "c": "C"})
    got = Projection(three, [wanted("abc", "BYTES")]).project(row(three, a="x", c="zz"), NOW_US)
    assert got.pieces == (b"\x01\0\0\0x" + b"\0\0\0\0" + b"\x02\0\0\0zz",)


def test_a_row_of_an_older_schema_takes_defaults_for_later_features_and_is_null():
    grown = view(*floats("a", "b"), defaults={"b": 5}, older=1)
    projection = Projection(grown, [wanted("ab", "FP32")])
    old = projection.project(row(grown, 1, a=1), NOW_US)
    assert (old.pieces, old.status) == ((struct.pack("<2f", 1, 5),), FeatureStatus.NULL)
    assert projection.project(row(grown, 2, a=1, b=2), NOW_US).status is FeatureStatus.PRESENT
    only_a = Projection(grown, [wanted("a", "FP32")]).project(row(grown, 1, a=1), NOW_US)
    assert only_a.status is FeatureStatus.PRESENT


def test_a_row_is_stale_only_beyond_its_views_age_and_its_values_are_used():
    one = view(*floats("a"))
    projection = Projection(one, [wanted("a", "FP32")])
    at_limit = projection.project(row(one, age_us=MAX_AGE_US, a=1), NOW_US)
    beyond = projection.project(row(one, age_us=MAX_AGE_US + 1, a=1), NOW_US)
    assert (at_limit.status, beyond.status) == (FeatureStatus.PRESENT, FeatureStatus.STALE)
    assert beyond.pieces == (struct.pack("<f", 1),)
    assert beyond.event_time_us == NOW_US - MAX_AGE_US - 1
    assert projection.project(row(one, age_us=MAX_AGE_US + 1), NOW_US).status is FeatureStatus.STALE


def test_no_row_is_all_defaults_and_missing():
    two = view(Column("a", Dtype.FLOAT32), Column("b", Dtype.STRING), defaults={"a": 3, "b": "x"})
    got = Projection(two, [wanted("a", "FP64"), wanted("b", "BYTES")]).project(None, NOW_US)
    assert got.pieces == (struct.pack("<d", 3), b"\x01\0\0\0x")
    assert (got.status, got.event_time_us, got.fault) == (FeatureStatus.MISSING, None, None)


def spoiled(raw: bytes, at: int, byte: int) -> bytes:
    return raw[:at] + bytes([byte]) + raw[at + 1 :]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda raw: b"", "corrupt"),
        (lambda raw: raw[:15], "corrupt"),
        (lambda raw: raw[:30], "corrupt"),
        (lambda raw: raw + b"\0" * ROW_BYTES_MAX, "corrupt"),
        (lambda raw: spoiled(raw, 0, 0), "corrupt"),
        (lambda raw: spoiled(raw, 1, 2), "corrupt"),
        (lambda raw: spoiled(raw, 4, 2), "corrupt"),
        (lambda raw: spoiled(raw, 2, 200), "unknown_schema"),
        (lambda raw: spoiled(raw, 32, 99), "corrupt"),
        (lambda raw: raw[:-1] + b"\xff", "corrupt"),
    ],
)
def test_bytes_that_are_no_row_are_missing_with_the_fault_that_says_why(change, fault):
    two = view(Column("a", Dtype.FLOAT32), Column("b", Dtype.STRING), defaults={"b": ""})
    projection = Projection(two, [wanted("a", "FP32"), wanted("b", "BYTES")])
    got = projection.project(change(row(two, a=1, b="yes")), NOW_US)
    assert (got.status, got.fault, got.event_time_us) == (FeatureStatus.MISSING, fault, None)
    assert got.pieces == projection.project(None, NOW_US).pieces


def test_a_row_without_strings_must_have_its_exact_length():
    one = view(*floats("a"))
    projection = Projection(one, [wanted("a", "FP32")])
    assert projection.project(row(one, a=1) + b"\0", NOW_US).fault == "corrupt"
    assert projection.project(row(one, a=1)[:-1], NOW_US).fault == "corrupt"


def test_a_float64_beyond_float32_becomes_an_infinity():
    one = view(Column("a", Dtype.FLOAT64))
    (piece,) = Projection(one, [wanted("a", "FP32")]).project(row(one, a=1e300), NOW_US).pieces
    assert piece == struct.pack("<f", math.inf)


def test_a_value_of_the_request_wins_over_the_stored_one():
    mixed = view(Column("a", Dtype.FLOAT32), Column("s", Dtype.STRING), Column("b", Dtype.INT32), defaults={"s": ""})
    projection = Projection(mixed, [[Wanted("a", "FP64"), Wanted("b", "FP64")], [Wanted("s", "BYTES")]])
    stored = row(mixed, a=1, s="stored", b=2)
    got = projection.project_with(stored, NOW_US, {"b": 9, "s": "é", "unheard_of": 1})
    assert got.pieces == (struct.pack("<2d", 1, 9), b"\x02\0\0\0\xc3\xa9")
    assert projection.project_with(stored, NOW_US, {}) == projection.project(stored, NOW_US)


def test_a_value_of_the_request_is_checked_against_the_declared_dtype_and_not_the_wanted_one():
    one = view(Column("b", Dtype.INT32))
    with pytest.raises(WrongFeatureValue) as caught:
        Projection(one, [wanted("b", "FP32")]).project_with(None, NOW_US, {"b": 1.5})
    assert (caught.value.feature, caught.value.expected) == ("b", "an integer (INT32)")


def test_a_null_that_the_request_gives_does_not_count_as_null():
    grown = view(*floats("a", "b", "c"), older=2)
    projection = Projection(grown, [wanted("abc", "FP32")])
    assert projection.project_with(row(grown, 2, a=1, c=3), NOW_US, {"b": 2}).status is FeatureStatus.PRESENT
    assert projection.project_with(row(grown, 2, a=1), NOW_US, {"b": 2}).status is FeatureStatus.NULL
    assert projection.project_with(row(grown, 1, a=1, b=2), NOW_US, {"c": 2}).status is FeatureStatus.PRESENT
    assert projection.project_with(row(grown, 1, a=1, b=2), NOW_US, {"b": 2}).status is FeatureStatus.NULL
    aged = row(grown, 2, age_us=MAX_AGE_US + 1, a=1)
    assert projection.project_with(aged, NOW_US, {"b": 2}).status is FeatureStatus.STALE


def test_values_of_the_request_go_over_defaults_where_there_is_no_row():
    two = view(*floats("a", "b"), defaults={"a": 1, "b": 2})
    got = Projection(two, [wanted("ab", "FP32")]).project_with(b"junk", NOW_US, {"b": 9})
    assert (got.pieces, got.status, got.fault) == ((struct.pack("<2f", 1, 9),), FeatureStatus.MISSING, "corrupt")


def test_a_projection_knows_which_features_it_takes():
    assert Projection(view(*floats("a", "b", "c")), [wanted("ab", "FP32"), wanted("b", "FP64")]).wanted == {"a", "b"}
