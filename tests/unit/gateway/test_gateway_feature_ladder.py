import asyncio
import struct
from collections.abc import Collection, Sequence

import pytest

from contracts.manifest import Input
from feature_store import (
    FeatureStatus,
    FeatureStoreUnavailable,
    NearCache,
    NearCachePolicy,
    PartlyUnread,
    RegisteredView,
    row_key,
)
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns
from gateway.errors import FeaturesMissing, FeaturesUnavailable
from gateway.feature_ladder import FeatureLadder, read_timeout_s
from gateway.feature_plan import FeaturePlan, plan_features
from gateway.feature_rows import FeatureAssembler, ModelRows
from gateway.predict_request import Instance, PredictRequest

NOW_US = 1_700_000_000_000_000
BOTH = NearCachePolicy(max_age_us=500_000, stale_if_unavailable_us=60_000_000)
FRESH_ONLY = NearCachePolicy(max_age_us=500_000)
STALE_ONLY = NearCachePolicy(stale_if_unavailable_us=60_000_000)
OFF = NearCachePolicy()
DEFAULT = -1.0
DOWN = FeatureStoreUnavailable("redis://down", "no answer within 50 ms")


def view(name: str, policy: NearCachePolicy) -> RegisteredView:
    return RegisteredView(
        name=name,
        entity=name,
        max_age_us=3_600_000_000,
        current_schema_id=1,
        schemas={1: place_columns(name, 1, [Column("x", Dtype.FLOAT32)])},
        defaults={"x": DEFAULT},
        near_cache=policy,
    )


class Store:
    """A store that the test takes away, and that remembers into the cache as a reader does."""

    def __init__(self, cache: NearCache) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.cache, self.now_s = cache, 1_000.0
        self.down: FeatureStoreUnavailable | None = None
        self.asked: list[bytes] = []

    async def fetch(self, keys: Sequence[bytes], remember: Collection[bytes] = ()) -> list[bytes | None]:
        self.asked += keys
        if self.down is not None:
            raise self.down
        for key in remember:
            self.cache.remember(key, self.rows.get(key), self.now_s)
        return [self.rows.get(key) for key in keys]


class Scene:
    """A model of two views, `user` and `item`, each of one feature."""

    def __init__(self, user: NearCachePolicy, item: NearCachePolicy = OFF, fails: str = "") -> None:
        views = {"user": view("user", user), "item": view("item", item)}
        self.plan: FeaturePlan = plan_features(
            (Input("x", "FP32", (-1, 2), ("user:x", "item:x")),), views, {fails: "fail"} if fails else {}, ()
        )
        self.cache = NearCache()
        self.store = Store(self.cache)
        self.ladder = FeatureLadder(self.store, self.cache, lambda: self.store.now_s)
        self.assembler = FeatureAssembler(self.ladder, lambda: NOW_US)
        self.layouts = {name: made.schemas[1] for name, made in views.items()}

    def write(self, name: str, entity: str, value: float, age_s: int = 0) -> None:
        at_us = NOW_US - age_s * 1_000_000
        row = self.layouts[name].encode({"x": value}, event_time_us=at_us, write_time_us=at_us)
        self.store.rows[row_key(name, entity)] = row

    def found(self, *entities: str) -> ModelRows:
        """Rows of one request: of user `u` and each of these items."""
        request = PredictRequest(entities={"user": "u"})
        request.instances = [Instance(entities={"item": entity}) for entity in entities or ("i",)]
        return asyncio.run(_awaited(self.assembler, self.plan, request))


async def _awaited(assembler: FeatureAssembler, plan: FeaturePlan, request: PredictRequest) -> ModelRows:
    return await assembler.rows(plan, request)


def fed(rows: ModelRows) -> list[float]:
    return list(struct.unpack(f"<{2 * rows.count}f", rows.inputs[0]))


def served(scene: Scene) -> Scene:
    """A scene after a first request, which read both rows."""
    scene.write("user", "u", 1.0)
    scene.write("item", "i", 2.0)
    assert fed(scene.found()) == [1.0, 2.0]
    scene.store.asked.clear()
    return scene


def test_a_plan_without_near_caches_remembers_nothing():
    scene = served(Scene(OFF))
    assert not scene.plan.near_cached
    assert len(scene.cache) == 0


def test_a_young_row_is_served_without_asking_and_an_older_one_is_asked_for_again():
    scene = served(Scene(BOTH, BOTH))
    scene.write("user", "u", 5.0)
    scene.store.now_s += 0.5
    assert fed(scene.found()) == [1.0, 2.0]
    assert scene.store.asked == []
    scene.store.now_s += 0.001
    rows = scene.found()
    assert fed(rows) == [5.0, 2.0]
    assert rows.degraded == ()
    assert (scene.cache.hits, scene.cache.misses) == (2, 4)


def test_only_the_rows_that_are_not_young_are_asked_for():
    scene = served(Scene(BOTH, STALE_ONLY))
    assert fed(scene.found()) == [1.0, 2.0]
    assert scene.store.asked == [row_key("item", "i")]


def test_that_a_row_is_not_there_is_remembered_too():
    scene = Scene(BOTH, BOTH)
    scene.write("item", "i", 2.0)
    assert scene.found().degraded == ("feature_default:user",)
    scene.store.asked.clear()
    assert scene.found().degraded == ("feature_default:user",)
    assert scene.store.asked == []


def test_a_row_too_old_by_event_time_is_stale_also_out_of_memory():
    scene = Scene(BOTH)
    scene.write("user", "u", 1.0, age_s=3_601)
    scene.write("item", "i", 2.0)
    scene.found()
    rows = scene.found()
    assert rows.degraded == ("feature_stale:user",)
    assert rows.found[0][0].status is FeatureStatus.STALE


def test_without_redis_a_remembered_row_is_served_and_named_with_its_own_status_and_event_time():
    scene = served(Scene(STALE_ONLY, STALE_ONLY))
    scene.store.down = DOWN
    scene.store.now_s += 60.0
    rows = scene.found()
    assert fed(rows) == [1.0, 2.0]
    assert rows.degraded == ("feature_stale:user", "feature_stale:item")
    assert [(row.status, row.event_time_us) for row in rows.found[0]] == [(FeatureStatus.PRESENT, NOW_US)] * 2
    assert (scene.ladder.reads_failed, scene.cache.stale_served) == (1, 2)


def test_a_row_remembered_for_too_long_gives_way_to_the_defaults():
    scene = served(Scene(STALE_ONLY, BOTH))
    scene.store.down = DOWN
    scene.store.now_s += 60.001
    rows = scene.found()
    assert fed(rows) == [DEFAULT, DEFAULT]
    assert rows.degraded == ("feature_default:user", "feature_default:item")


def test_a_view_that_is_only_kept_young_is_not_served_stale():
    scene = served(Scene(FRESH_ONLY, FRESH_ONLY))
    scene.store.down = DOWN
    assert scene.found().degraded == ()
    scene.store.now_s += 0.6
    assert scene.found().degraded == ("feature_default:user", "feature_default:item")


def test_views_whose_rows_are_young_do_not_go_down_with_redis():
    scene = served(Scene(BOTH, OFF))
    scene.store.down = DOWN
    rows = scene.found()
    assert fed(rows) == [1.0, DEFAULT]
    assert rows.degraded == ("feature_default:item",)


def test_a_remembered_row_satisfies_a_view_that_has_to_be_there():
    scene = served(Scene(STALE_ONLY, OFF, fails="user"))
    scene.store.down = DOWN
    rows = scene.found()
    assert fed(rows) == [1.0, DEFAULT]
    assert rows.degraded == ("feature_stale:user", "feature_default:item")
    scene.store.now_s += 61.0
    with pytest.raises(FeaturesUnavailable, match="'user'"):
        scene.found()


def test_a_remembered_absence_does_not_satisfy_a_view_that_has_to_be_there():
    scene = Scene(BOTH, OFF, fails="user")
    scene.write("item", "i", 2.0)
    with pytest.raises(FeaturesMissing):
        scene.found()
    scene.store.down = DOWN
    with pytest.raises(FeaturesMissing):
        scene.found()
    scene.store.now_s += 0.6
    with pytest.raises(FeaturesUnavailable):
        scene.found()


def test_rows_of_the_shard_that_answers_are_fed_and_only_the_others_step_down():
    scene = served(Scene(STALE_ONLY, OFF))
    fresh = scene.store.rows[row_key("item", "i")]
    scene.store.down = PartlyUnread("redis", "connection reset", [None, fresh], frozenset({0}))
    rows = scene.found()
    assert fed(rows) == [1.0, 2.0]
    assert rows.degraded == ("feature_stale:user",)


def test_many_instances_step_down_key_by_key():
    scene = Scene(BOTH, STALE_ONLY)
    scene.write("user", "u", 1.0)
    scene.write("item", "i", 2.0)
    scene.write("item", "j", 3.0)
    scene.found("i", "j")
    scene.store.asked.clear()
    scene.store.down = DOWN
    rows = scene.found("i", "j", "never seen", "i")
    assert fed(rows) == [1.0, 2.0, 1.0, 3.0, 1.0, DEFAULT, 1.0, 2.0]
    assert rows.degraded == ("feature_stale:item", "feature_default:item")
    assert scene.store.asked == [row_key("item", entity) for entity in ("i", "j", "never seen")]


@pytest.mark.parametrize(
    ("deadlines_ms", "expected_s"), [([100], 0.05), ([60_000, 40], 0.02), ([1_000], 0.05), ([], 0.05)]
)
def test_a_read_may_take_half_of_the_smallest_deadline_and_no_more_than_its_limit(deadlines_ms, expected_s):
    assert read_timeout_s(deadlines_ms) == expected_s
