"""A request of many instances: each row is the one that its instance would have alone."""

import asyncio
import struct
from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st

from contracts.manifest import Input
from feature_store import NearCache, RegisteredView
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns
from gateway import feature_rows
from gateway.errors import GatewayError, TooManyInstances
from gateway.feature_ladder import FeatureLadder
from gateway.feature_plan import FeaturePlan, plan_features
from gateway.feature_rows import FeatureAssembler, ModelRows
from gateway.predict_request import Instance, PredictRequest

NOW_US = 1_700_000_000_000_000
USERS, ITEMS = ("u0", "u1", "ü2"), ("i0", "i1")


def view(name: str, entity: str, *columns: str) -> RegisteredView:
    placed = place_columns(name, 1, [Column(column, Dtype.FLOAT32) for column in columns])
    defaults = dict.fromkeys(columns, 0.25)
    return RegisteredView(
        name=name, entity=entity, max_age_us=10_000_000, current_schema_id=1, schemas={1: placed}, defaults=defaults
    )


VIEWS = {"user": view("user", "user", "age", "spent"), "item": view("item", "item", "price")}


def plan(*features: str, fails: bool) -> FeaturePlan:
    model_input = Input("x", "FP32", (-1, len(features)), features)
    other = Input("y", "FP32", (-1, 1), ("item:price",))
    return plan_features((model_input, other), VIEWS, {"item": "fail"} if fails else {}, ["user:age"])


class Store:
    """Rows of the users and items, some of them old, some of them not there."""

    def __init__(self, kept: dict[bytes, bytes]) -> None:
        self._kept = kept

    async def fetch(self, keys: Sequence[bytes], remember: Collection[bytes] = ()) -> list[bytes | None]:
        assert len(set(keys)) == len(keys), "a key is read once"
        return [self._kept.get(key) for key in keys]


def assembler_of(kept: dict[bytes, bytes]) -> FeatureAssembler:
    return FeatureAssembler(FeatureLadder(Store(kept), NearCache(), lambda: 0.0), lambda: NOW_US)


def stored(missing: set[str], old: set[str]) -> dict[bytes, bytes]:
    rows = {}
    for kind, ids in (("user", USERS), ("item", ITEMS)):
        layout = VIEWS[kind].schemas[1]
        for number, entity in enumerate(ids):
            if entity not in missing:
                values = {column.name: number + 0.5 for column in layout.columns}
                at_us = NOW_US - (20_000_000 if entity in old else 0)
                key = b"sekisho:row:%b:%b" % (kind.encode(), entity.encode())
                rows[key] = layout.encode(values, event_time_us=at_us, write_time_us=at_us)
    return rows


def outcome(assembler: FeatureAssembler, made: FeaturePlan, request: PredictRequest) -> ModelRows | GatewayError:
    async def ask() -> ModelRows:
        return await assembler.rows(made, request)

    try:
        return asyncio.run(ask())
    except GatewayError as error:
        return error


def entities(required: bool = False) -> st.SearchStrategy[dict[str, str]]:
    kinds = {"user": st.sampled_from(USERS), "item": st.sampled_from((*ITEMS, "x" * 257))}
    return st.fixed_dictionaries(kinds) if required else st.fixed_dictionaries({}, optional=kinds)


VALUES = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(["no number"]))
FEATURES = st.fixed_dictionaries({}, optional={"hour": VALUES, "user:age": VALUES})


@given(
    shared=st.tuples(entities(), FEATURES),
    instances=st.lists(st.builds(Instance, entities=entities(), features=FEATURES), min_size=2, max_size=6),
    features=st.sampled_from([("user:age", "item:price", "user:spent"), ("item:price", "request:hour", "user:age")]),
    missing=st.sets(st.sampled_from((*USERS, *ITEMS)), max_size=2),
    old=st.sets(st.sampled_from((*USERS, *ITEMS)), max_size=2),
    fails=st.booleans(),
)
def test_each_row_of_many_is_the_one_that_its_instance_has_alone(shared, instances, features, missing, old, fails):
    made = plan(*features, fails=fails)
    assembler = assembler_of(stored(missing, old))
    alone = [
        outcome(
            assembler, made, PredictRequest(entities={**shared[0], **i.entities}, features={**shared[1], **i.features})
        )
        for i in instances
    ]
    together = outcome(assembler, made, PredictRequest(instances=instances, entities=shared[0], features=shared[1]))
    if isinstance(together, GatewayError):
        assert any(type(each) is type(together) for each in alone)
        return
    rows = [each for each in alone if isinstance(each, ModelRows)]
    assert len(rows) == len(instances)
    assert together.count == len(instances)
    assert together.inputs == tuple(b"".join(parts) for parts in zip(*(row.inputs for row in rows), strict=True))
    assert together.found == [row.found[0] for row in rows]
    assert set(together.degraded) == {name for row in rows for name in row.degraded}


def test_a_feature_that_the_request_replaces_is_replaced_in_its_own_row_only():
    made = plan("user:age", "item:price", "user:spent", fails=False)
    assembler = assembler_of(stored(set(), set()))
    user_and_item = {"user": "u1", "item": "i1"}
    many = [Instance(entities={}, features={"user:age": 40.0}), Instance()]
    rows = outcome(assembler, made, PredictRequest(instances=many, entities=user_and_item))
    assert isinstance(rows, ModelRows)
    assert struct.unpack("<6f", rows.inputs[0]) == (40.0, 1.5, 1.5, 1.5, 1.5, 1.5)


def test_rows_that_share_a_long_text_are_bounded_before_they_are_joined(monkeypatch):
    monkeypatch.setattr(feature_rows, "ROWS_BYTES_MAX", 1_000)
    text = plan_features((Input("t", "BYTES", (-1,), ("request:word",)),), VIEWS, {}, [])
    assembler = assembler_of({})
    shared = {"word": "x" * 96}  # and 4 bytes that say how long it is
    fits = outcome(assembler, text, PredictRequest(instances=[Instance()] * 10, features=shared))
    assert isinstance(fits, ModelRows)
    refused = outcome(assembler, text, PredictRequest(instances=[Instance()] * 11, features=shared))
    assert isinstance(refused, TooManyInstances)
    assert refused.field == "instances"
