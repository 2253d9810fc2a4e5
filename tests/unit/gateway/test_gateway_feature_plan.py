import struct

import pytest

from contracts.manifest import Input
from feature_store import FeatureStatus, RegisteredView
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns
from gateway.errors import MissingFeature, WrongFeatureType
from gateway.feature_plan import FeaturePlan, PlanError, plan_features


def view(name: str, entity: str, *columns: Column) -> RegisteredView:
    return RegisteredView(
        name=name,
        entity=entity,
        max_age_us=1_000_000,
        current_schema_id=1,
        schemas={1: place_columns(name, 1, columns)},
        defaults={column.name: 0.5 for column in columns if column.dtype is Dtype.FLOAT32 and not column.length},
    )


VIEWS = {
    "user": view(
        *("user", "user", Column("age", Dtype.FLOAT32), Column("spent", Dtype.FLOAT32)),
        Column("taste", Dtype.FLOAT32, 3),
        Column("name", Dtype.STRING),
    ),
    "item": view("item", "item", Column("price", Dtype.FLOAT32)),
}


def plan(*inputs: Input, overrides: tuple[str, ...] = (), on_missing: dict[str, str] | None = None) -> FeaturePlan:
    return plan_features(inputs, VIEWS, on_missing or {}, overrides)


def test_columns_of_several_sources_keep_the_order_of_the_model():
    made = plan(Input("x", "FP32", (-1, 5), ("user:age", "item:price", "request:hour", "user:spent", "request:day")))
    assert [v.name for v in made.views] == ["user", "item"]
    user, item, request = range(3)
    assert made.inputs[0].order == ((user, 0), (item, 0), (request, 0), (user, 1), (request, 1))
    assert made.entities == {"user", "item"}
    assert made.request_features == {"hour": "FP32", "day": "FP32"}
    assert [name for name, _ in made.columns[0]] == [
        "user.age",
        "item.price",
        "request.hour",
        "user.spent",
        "request.day",
    ]


def test_a_list_takes_as_many_columns_as_it_is_long():
    made = plan(Input("x", "FP32", (-1, 4), ("user:taste", "user:age")))
    assert [name for name, _ in made.columns[0]] == ["user.taste.0", "user.taste.1", "user.taste.2", "user.age"]


def test_request_features_are_packed_run_by_run_as_their_inputs_want_them():
    made = plan(Input("x", "FP32", (-1, 2), ("request:a", "request:b")), Input("n", "INT64", (-1,), ("request:c",)))
    assert made.request_pieces({"a": 1, "b": 2.5, "c": 3}, "features") == (
        struct.pack("<2f", 1, 2.5),
        struct.pack("<q", 3),
    )


def test_a_request_feature_that_is_missing_or_wrong_is_named():
    made = plan(Input("n", "INT64", (-1,), ("request:c",)))
    with pytest.raises(MissingFeature) as missing:
        made.request_pieces({}, "instances[3].features")
    assert missing.value.field == "instances[3].features.c"
    with pytest.raises(WrongFeatureType) as wrong:
        made.request_pieces({"c": 0.5}, "features")
    assert wrong.value.field == "features.c"


def test_only_what_the_route_names_and_the_version_eats_may_be_replaced():
    made = plan(Input("x", "FP32", (-1, 2), ("user:age", "item:price")), overrides=("user:age", "user:spent", "x:y"))
    assert made.overridable == {"user:age": (0, "age")}


def test_what_is_missing_is_a_default_unless_the_route_says_fail():
    made = plan(Input("x", "FP32", (-1, 2), ("user:age", "item:price")), on_missing={"item": "fail"})
    assert [v.fail_when_missing for v in made.views] == [False, True]
    assert made.views[0].degraded_by_status[FeatureStatus.MISSING] == "feature_default:user"
    assert made.views[0].degraded_by_status[FeatureStatus.STALE] == "feature_stale:user"
    assert made.views[0].degraded_by_status[FeatureStatus.PRESENT] == ""


def one(datatype: str, *features: str, shape: tuple[int, ...] = (-1,)) -> Input:
    return Input("x", datatype, shape, features)


WRONG = {
    "a view that is not registered": (one("FP32", "nothing:a"), "'nothing' is not registered.*item, user"),
    "a feature that the view lacks": (one("FP32", "user:height"), "height"),
    "a feature of another kind": (one("INT64", "user:age"), "age"),
    "text as a number": (one("FP32", "user:name"), "name"),
    "a null that nothing stands for": (one("BYTES", "user:name"), "default"),
    "fewer features than columns": (one("FP32", "user:age", "user:spent", shape=(-1, 3)), "2 columns"),
    "more features than columns": (one("FP32", "user:age", "user:spent"), "2 columns"),
    "no features": (one("FP32", shape=(-1, 3)), "no features"),
    "a shape that features cannot fill": (one("FP32", "user:age", shape=(-1, 2, 2)), "shape"),
    "a shape of any width": (one("FP32", "user:age", shape=(-1, -1)), "shape"),
    "a request feature that no JSON value is packed as": (one("UINT8", "request:a"), "UINT8"),
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_manifest_that_the_store_cannot_serve_is_refused_with_the_reason(claim):
    model_input, expected = WRONG[claim]
    with pytest.raises(PlanError, match=expected):
        plan(model_input)
