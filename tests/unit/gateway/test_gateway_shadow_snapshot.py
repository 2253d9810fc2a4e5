"""What a request has read of the store is read once: whichever version scores later gets the same."""

import struct
from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.manifest import Input
from feature_store import FeatureStoreUnavailable, NearCache, NearCachePolicy, PartlyUnread, RegisteredView, row_key
from feature_store.dtypes import Dtype
from feature_store.row_layout import Column, place_columns
from gateway.errors import FeaturesUnavailable
from gateway.feature_ladder import FeatureLadder
from gateway.feature_plan import plan_features
from gateway.feature_rows import FeatureAssembler
from gateway.predict_request import Instance, PredictRequest
from gateway.row_sources import StoredRows
from tests.unit.gateway.gateway_fakes import in_loop

NOW_US = 1_700_000_000_000_000
DEFAULT = -1.0
DOWN = FeatureStoreUnavailable("redis://down", "no answer within 50 ms")
OFF = NearCachePolicy()
REMEMBERED = NearCachePolicy(max_age_us=500_000, stale_if_unavailable_us=60_000_000)


class Reader:
    """A store whose rows the test changes, and that remembers into the near cache as a reader does."""

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
    """Views `user`, `item` and `shop`. Version `one` reads user and item, version `two` user, item and shop."""

    def __init__(self, policy: NearCachePolicy = OFF, fails: str = "") -> None:
        views = {
            name: RegisteredView(
                name=name,
                entity=name,
                max_age_us=3_600_000_000,
                current_schema_id=1,
                schemas={1: place_columns(name, 1, [Column("x", Dtype.FLOAT32)])},
                defaults={"x": DEFAULT},
                near_cache=policy,
            )
            for name in ("user", "item", "shop")
        }
        on_missing = {fails: "fail"} if fails else {}

        def version(*features: str) -> Any:
            plan = plan_features((Input("x", "FP32", (-1, len(features)), features),), views, on_missing, ())
            return SimpleNamespace(plan=plan)

        self.one, self.two = version("user:x", "item:x"), version("user:x", "item:x", "shop:x")
        self.cache = NearCache()
        self.reader = Reader(self.cache)
        ladder = FeatureLadder(self.reader, self.cache, lambda: self.reader.now_s)
        self.assembler = FeatureAssembler(ladder, lambda: NOW_US)
        self._layouts = {name: view.schemas[1] for name, view in views.items()}
        self.write(1.0)

    def write(self, value: float) -> None:
        """Give every entity that is asked for here a value."""
        for kind, ids in (("user", "u"), ("item", "ij"), ("shop", "s")):
            for entity in ids:
                row = self._layouts[kind].encode({"x": value}, event_time_us=NOW_US, write_time_us=NOW_US)
                self.reader.rows[row_key(kind, entity)] = row

    def source(self, *items: str) -> StoredRows:
        """A request of one item, or of several instances, whose readings are kept."""
        shared = {"user": "u", "shop": "s"}
        request = PredictRequest(entities={**shared, "item": "i"})
        if items:
            request = PredictRequest(entities=shared, instances=[Instance(entities={"item": item}) for item in items])
        source = StoredRows(self.assembler, request)
        source.keep()
        return source


async def fed(source: StoredRows, version: Any) -> tuple[list[float], tuple[str, ...]]:
    """Return what a version is fed, row after row, and what is degraded."""
    rows = await source.rows(version)
    (data,) = rows.inputs
    return list(struct.unpack(f"<{len(data) // 4}f", data)), rows.degraded


SHAPES = pytest.mark.parametrize("items", [(), ("i",), ("i", "j", "i")], ids=["alone", "one instance", "many"])
CACHES = pytest.mark.parametrize("policy", [OFF, REMEMBERED], ids=["no near cache", "near cache"])


@SHAPES
@CACHES
def test_a_version_that_scores_later_is_fed_the_rows_as_they_were(items, policy):
    @in_loop
    async def scenario() -> None:
        scene = Scene(policy)
        source = scene.source(*items)
        first = await fed(source, scene.one)
        scene.write(2.0)
        scene.reader.now_s += 3_600
        asked = len(scene.reader.asked)
        assert await fed(source, scene.one) == first == ([1.0] * 2 * max(1, len(items)), ())
        assert len(scene.reader.asked) == asked, "nothing is read again"

    scenario()


@SHAPES
@CACHES
def test_a_version_that_needs_more_reads_only_what_is_missing(items, policy):
    @in_loop
    async def scenario() -> None:
        scene = Scene(policy)
        source = scene.source(*items)
        await fed(source, scene.one)
        scene.write(2.0)
        scene.reader.asked.clear()
        values, degraded = await fed(source, scene.two)
        assert (values, degraded) == ([1.0, 1.0, 2.0] * max(1, len(items)), ())
        assert scene.reader.asked == [row_key("shop", "s")]

    scenario()


@SHAPES
def test_what_could_not_be_read_is_the_declared_default_for_every_version_even_when_the_store_is_back(items):
    @in_loop
    async def scenario() -> None:
        scene = Scene()
        source = scene.source(*items)
        scene.reader.down = DOWN
        values, degraded = await fed(source, scene.one)
        assert set(values) == {DEFAULT}
        assert sorted(degraded) == ["feature_default:item", "feature_default:user"]
        scene.reader.down = None
        assert await fed(source, scene.one) == (values, degraded)
        later, degraded = await fed(source, scene.two)
        assert later == [DEFAULT, DEFAULT, 1.0] * max(1, len(items))
        assert sorted(degraded) == ["feature_default:item", "feature_default:user"]

    scenario()


@SHAPES
def test_what_was_remembered_because_the_store_was_away_is_said_of_every_version_that_is_fed_it(items):
    @in_loop
    async def scenario() -> None:
        scene = Scene(REMEMBERED)
        await fed(scene.source(*items), scene.one)
        scene.reader.now_s += 30
        scene.reader.down = DOWN
        source = scene.source(*items)
        first = await fed(source, scene.one)
        assert sorted(first[1]) == ["feature_stale:item", "feature_stale:user"]
        assert await fed(source, scene.one) == first
        values, degraded = await fed(source, scene.two)
        assert values == [1.0, 1.0, DEFAULT] * max(1, len(items))
        assert sorted(degraded) == ["feature_default:shop", "feature_stale:item", "feature_stale:user"]

    scenario()


@in_loop
async def test_a_fallback_of_a_view_that_a_version_does_not_read_is_not_said_of_it():
    scene = Scene(REMEMBERED)
    await fed(scene.source(), scene.two)
    scene.reader.now_s += 30
    scene.reader.down = DOWN
    source = scene.source()
    assert "feature_stale:shop" in (await fed(source, scene.two))[1]
    assert sorted((await fed(source, scene.one))[1]) == ["feature_stale:item", "feature_stale:user"]


@in_loop
async def test_rows_of_a_part_of_the_store_that_answers_are_kept_and_those_of_the_rest_are_not_there():
    scene = Scene()
    source = scene.source()
    user, item = row_key("user", "u"), row_key("item", "i")
    scene.reader.down = PartlyUnread("redis://part", "down", [scene.reader.rows[user], None], frozenset({1}))
    assert await fed(source, scene.one) == ([1.0, DEFAULT], ("feature_default:item",))
    scene.reader.down = None
    scene.write(2.0)
    assert await fed(source, scene.one) == ([1.0, DEFAULT], ("feature_default:item",))
    assert item in scene.reader.asked


@in_loop
async def test_a_view_that_must_be_there_fails_each_version_that_needs_it_until_it_can_be_read():
    scene = Scene(fails="shop")
    source = scene.source()
    await fed(source, scene.one)
    scene.reader.down = DOWN
    for _ in range(2):
        with pytest.raises(FeaturesUnavailable):
            await fed(source, scene.two)
    scene.reader.down = None
    scene.write(2.0)
    assert await fed(source, scene.two) == ([1.0, 1.0, 2.0], ())


@in_loop
async def test_without_a_snapshot_each_version_reads_for_itself():
    scene = Scene()
    source = StoredRows(scene.assembler, PredictRequest(entities={"user": "u", "item": "i"}))
    assert await fed(source, scene.one) == ([1.0, 1.0], ())
    scene.write(2.0)
    assert await fed(source, scene.one) == ([2.0, 2.0], ())
