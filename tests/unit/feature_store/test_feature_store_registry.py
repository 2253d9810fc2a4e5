import msgspec
import pytest

from feature_store.dtypes import Dtype
from feature_store.errors import CorruptRegistry
from feature_store.feature_views import Feature, FeatureView, NearCache
from feature_store.registered_view import RegisteredView
from feature_store.registry import parse_view
from feature_store.row_layout import SCHEMA_ID_MAX, Column
from feature_store.schema_evolution import IncompatibleViews, plan_change

RADIUS = Feature(name="radius", dtype=Dtype.FLOAT32, default=0.0)
TAGS = Feature(name="tags", dtype=Dtype.STRING)


def declared(*features: Feature, entity: str = "patient", max_age: str = "30d", description: str = "") -> FeatureView:
    return FeatureView(entity=entity, max_age=max_age, features=list(features), description=description)


def fields(**changed: object) -> dict[bytes, bytes]:
    """A view's hash in Redis as `apply` writes it, with fields changed; None takes one away."""
    whole: dict[str, object] = {
        "entity": "patient",
        "max_age_us": 2_592_000_000_000,
        "description": "",
        "defaults": '{"radius":0.0}',
        "schema_id": 1,
        "schema:1": '[{"name":"radius","dtype":"float32"},{"name":"tags","dtype":"string"}]',
        "revision": 3,
    }
    whole |= {name.replace("__", ":"): value for name, value in changed.items()}
    return {name.encode(): str(value).encode() for name, value in whole.items() if value is not None}


def registered(**changed: object) -> RegisteredView:
    return parse_view("v", fields(**changed))


def test_a_registered_view_has_every_schema_and_the_defaults():
    longer = '[{"name":"radius","dtype":"float32"},{"name":"half","dtype":"float16","length":2}]'
    view = registered(schema_id=2, schema__2=longer, defaults='{"half":[1,2]}')
    assert sorted(view.schemas) == [1, 2]
    assert (view.current.schema_id, [c.name for c in view.current.columns]) == (2, ["radius", "half"])
    assert (view.entity, view.max_age_us, view.revision) == ("patient", 2_592_000_000_000, 3)
    assert view.defaults == {"half": [1, 2]}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"entity": None}, "entity"),
        ({"max_age_us": "soon"}, "max_age_us"),
        ({"max_age_us": -1}, "max_age_us"),
        ({"max_age_us": 10**19}, "max_age_us"),
        ({"schema_id": 2}, "schema_id"),
        ({"schema_id": 65_536}, "schema_id"),
        ({"revision": 0}, "revision"),
        ({"schema__1": "[]"}, "schema:1"),
        ({"schema__1": "{"}, "schema:1"),
        ({"schema__1": '[{"name":"a","dtype":"float8"}]'}, "schema:1"),
        ({"schema__1": '[{"name":"a b","dtype":"bool"}]'}, "schema:1"),
        ({"schema__1": '[{"name":"a","dtype":"string","length":2}]'}, "schema:1"),
        ({"schema__1": '[{"name":"a","dtype":"bool","length":0}]'}, "schema:1"),
        ({"schema__1": '[{"name":"a","dtype":"bool"},{"name":"a","dtype":"bool"}]'}, "schema:1"),
        ({"schema__1": '[{"name":"a","dtype":"int64","length":16000}]'}, "schema:1"),
        ({"defaults": "[]"}, "defaults"),
        ({"defaults": '{"nothing":1}'}, "defaults"),
        ({"defaults": '{"radius":"x"}'}, "defaults"),
        ({"near_cache": "[]"}, "near_cache"),
        ({"near_cache": '{"max_age_us":-1}'}, "near_cache"),
        ({"near_cache": '{"stale_if_unavailable_us":604800000001}'}, "near_cache"),
    ],
)
def test_a_hash_that_apply_does_not_write_is_a_corrupt_registry_that_names_the_field(changed, field):
    with pytest.raises(CorruptRegistry) as caught:
        registered(**changed)
    assert (caught.value.view, caught.value.field) == ("v", field)


def test_bytes_that_are_no_utf8_are_a_corrupt_registry():
    with pytest.raises(CorruptRegistry):
        parse_view("v", fields() | {b"entity": b"\xff"})
    with pytest.raises(CorruptRegistry):
        parse_view("v", fields() | {b"schema:1": b"\xff"})
    with pytest.raises(CorruptRegistry):
        parse_view("a\n", fields())


def test_a_new_view_begins_at_schema_1():
    change = plan_change("v", declared(RADIUS, TAGS), None)
    assert (change.kind, change.schema_id, change.revision) == ("new", 1, 1)
    assert change.columns == (Column("radius", Dtype.FLOAT32), Column("tags", Dtype.STRING))
    assert change.defaults == {"radius": 0.0}


@pytest.mark.parametrize("features", [(RADIUS, TAGS), (TAGS, RADIUS)])
def test_the_same_features_in_any_order_change_nothing(features):
    change = plan_change("v", declared(*features), registered())
    assert (change.kind, change.schema_id, change.revision, change.details) == ("unchanged", 1, 3, ())


def test_a_new_feature_comes_last_under_a_new_schema_id():
    change = plan_change("v", declared(Feature(name="age", dtype=Dtype.INT32), RADIUS, TAGS), registered())
    assert (change.kind, change.schema_id, change.revision) == ("changed", 2, 4)
    assert [column.name for column in change.columns] == ["radius", "tags", "age"]
    assert change.details == ("new feature age int32",)


def test_age_default_and_description_change_without_a_new_schema_id():
    other = Feature(name="radius", dtype=Dtype.FLOAT32)
    change = plan_change("v", declared(other, TAGS, max_age="1h", description="new"), registered())
    assert (change.kind, change.schema_id, change.revision) == ("changed", 1, 4)
    assert change.details == ("max_age 2592000 s → 3600 s", "default of radius 0.0 → none", "description")


@pytest.mark.parametrize(
    ("view", "feature", "old", "new"),
    [
        (declared(Feature(name="radius", dtype=Dtype.FLOAT64), TAGS), "radius", "float32", "float64"),
        (declared(Feature(name="radius", dtype=Dtype.FLOAT32, length=2), TAGS), "radius", "float32", "float32[2]"),
        (declared(RADIUS), "tags", "string", "nothing"),
        (declared(RADIUS, TAGS, entity="visit"), "", "patient", "visit"),
    ],
)
def test_what_stored_rows_cannot_follow_is_refused_with_old_and_new(view, feature, old, new):
    with pytest.raises(IncompatibleViews) as caught:
        plan_change("v", view, registered())
    (conflict,) = caught.value.conflicts
    assert (conflict.view, conflict.feature, conflict.old, conflict.new) == ("v", feature, old, new)


def test_when_schema_ids_run_out_a_new_feature_is_refused():
    schema = fields()[b"schema:1"].decode()
    full = registered(schema_id=SCHEMA_ID_MAX, **{f"schema__{SCHEMA_ID_MAX}": schema})
    with pytest.raises(IncompatibleViews, match="no schema ids left"):
        plan_change("v", declared(RADIUS, TAGS, Feature(name="age", dtype=Dtype.INT32)), full)
    assert plan_change("v", declared(RADIUS, TAGS), full).kind == "unchanged"


def test_a_schema_is_stored_in_few_words():
    assert msgspec.json.encode([Column("a", Dtype.FLOAT32)]) == b'[{"name":"a","dtype":"float32"}]'


def test_a_view_registered_before_near_caches_has_none_and_declaring_one_only_grows_the_revision():
    before = registered(schema__1='[{"name":"radius","dtype":"float32"}]')
    assert not before.near_cache
    view = FeatureView(
        entity="patient", max_age="30d", features=[RADIUS], near_cache=NearCache(stale_if_unavailable="10m")
    )
    change = plan_change("v", view, before)
    assert (change.kind, change.schema_id, change.revision) == ("changed", 1, before.revision + 1)
    assert change.details == ("near_cache off → 0 ms, 600000 ms if unavailable",)
