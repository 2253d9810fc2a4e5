import json
from pathlib import Path
from typing import Any

import pytest

from feature_store import CorruptRegistry, NearCachePolicy, RegisteredView, decode_views, encode_views
from feature_store.dtypes import Dtype
from feature_store.registry import VIEWS_MAX
from feature_store.row_layout import Column, place_columns
from feature_store.views_snapshot import SNAPSHOT_BYTES_MAX

GOLDEN = Path(__file__).parents[2] / "golden" / "feature_views_v1.json"
RADIUS, TAGS = Column("radius", Dtype.FLOAT32), Column("tags", Dtype.STRING)
EMBEDDING = Column("embedding", Dtype.FLOAT16, 4)
VIEWS = {
    "user_profile": RegisteredView(
        name="user_profile",
        entity="user",
        max_age_us=86_400_000_000,
        current_schema_id=1,
        schemas={1: place_columns("user_profile", 1, [Column("age", Dtype.INT32)])},
        defaults={},
    ),
    "patient_mean": RegisteredView(
        name="patient_mean",
        entity="patient",
        max_age_us=2_592_000_000_000,
        current_schema_id=2,
        schemas={
            1: place_columns("patient_mean", 1, [RADIUS, TAGS]),
            2: place_columns("patient_mean", 2, [RADIUS, TAGS, EMBEDDING]),
        },
        defaults={"radius": 0.5, "tags": "é", "embedding": [0, 0, 1, 0]},
        description="of the last visit",
        revision=3,
        near_cache=NearCachePolicy(max_age_us=500_000, stale_if_unavailable_us=600_000_000),
    ),
}


def changed(**fields: Any) -> bytes:
    """The golden snapshot with fields of `patient_mean` changed."""
    snapshot = json.loads(GOLDEN.read_bytes())
    snapshot["views"]["patient_mean"] |= fields
    return json.dumps(snapshot).encode()


def test_what_was_encoded_is_decoded_and_is_the_golden_file_byte_for_byte():
    assert encode_views(VIEWS) + b"\n" == GOLDEN.read_bytes()
    assert decode_views(GOLDEN.read_bytes()) == VIEWS


def test_no_views_are_a_snapshot_too():
    assert decode_views(encode_views({})) == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schema_id": 9}, "schema_id"),
        ({"max_age_us": -1}, "max_age_us"),
        ({"max_age_us": 10**30}, "max_age_us"),
        ({"revision": 0}, "revision"),
        ({"defaults": {"radius": "much"}}, "defaults"),
        ({"defaults": []}, "defaults"),
        ({"schemas": {"2": []}}, "schema:2"),
        ({"schemas": {"2": [{"name": "a", "dtype": "float8"}]}}, "schema:2"),
        ({"near_cache": {"max_age_us": -1}}, "near_cache"),
        ({"near_cache": {"max_age_us": 10**15}}, "near_cache"),
        ({"near_cache": {"kept": True}}, "near_cache"),
        ({"schemas": {"0": []}}, "snapshot"),
        ({"schemas": {"one": []}}, "snapshot"),
        ({"entity": None}, "snapshot"),
        ({"owner": "me"}, "snapshot"),
    ],
)
def test_a_snapshot_that_was_not_encoded_here_is_refused_and_the_field_named(fields, field):
    with pytest.raises(CorruptRegistry) as caught:
        decode_views(changed(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"kind":"views","version":2,"views":{}}',
        b'{"kind":"routes","version":1,"views":{}}',
        b'{"kind":"views","version":1,"views":{"a b":' + json.dumps({}).encode() + b"}}",
        b'{"kind":"views","version":1,"views":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b" " * (SNAPSHOT_BYTES_MAX + 1),
    ],
)
def test_bytes_that_are_no_snapshot_of_this_version_are_refused(encoded):
    with pytest.raises(CorruptRegistry):
        decode_views(encoded)


def test_deep_nesting_inside_a_view_is_refused_and_never_a_traceback():
    deep = b'{"radius":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    whole = changed(defaults="DEEP").replace(b'"DEEP"', deep)
    with pytest.raises(CorruptRegistry):
        decode_views(whole)


def test_more_views_than_a_registry_may_list_are_refused():
    view = json.loads(GOLDEN.read_bytes())["views"]["user_profile"]
    snapshot = {"kind": "views", "version": 1, "views": {f"v{n}": view for n in range(VIEWS_MAX + 1)}}
    with pytest.raises(CorruptRegistry, match="views"):
        decode_views(json.dumps(snapshot).encode())


@pytest.mark.parametrize("cut", range(0, 650, 13))
def test_a_snapshot_cut_short_is_refused(cut):
    with pytest.raises(CorruptRegistry):
        decode_views(GOLDEN.read_bytes()[:cut])
