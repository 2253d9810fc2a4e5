"""The store on a real Redis Cluster of three nodes: reads, writes, slots that move, nodes that die."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from redis.crc import key_slot

from feature_store import (
    FeatureStoreUnavailable,
    OnlineReader,
    RowWriter,
    apply_views,
    open_connection,
    open_redis,
    read_feature_views,
    read_views,
    row_key,
)
from feature_store.__main__ import main
from feature_store.freshness import sample_freshness
from feature_store.redis_cluster import ClusterConnection
from feature_store.row_loader import load_rows
from tests.integration.redis_servers import RedisServer, cluster, cluster_node, end_move, move_slot

pytestmark = pytest.mark.integration

NOW_US = 1_800_000_000_000_000
ENTITIES = 600
FEATURES = """\
feature_views:
  means:
    entity: patient
    max_age: 1h
    features: [{name: radius, dtype: float32, default: 9.0}]
  worst:
    entity: patient
    max_age: 1h
    features: [{name: area, dtype: float64}]
  tagged:
    entity: patient
    max_age: 1h
    features: [{name: area, dtype: float64}]
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[list[RedisServer]]:
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def features(tmp_path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(FEATURES, encoding="utf-8")
    return path


def url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def read(connection: ClusterConnection, keys: list[bytes]) -> asyncio.Future[list[bytes | None]]:
    answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()

    def on_rows(rows: list[bytes | None] | None, fault: FeatureStoreUnavailable | None) -> None:
        if rows is None:
            assert fault is not None
            answer.set_exception(fault)
        else:
            answer.set_result(rows)

    connection.read(keys, on_rows)
    return answer


def connected(nodes: list[RedisServer], scene: Callable[[ClusterConnection], Awaitable[None]]) -> None:
    async def play() -> None:
        connection = open_connection(url(nodes))
        assert isinstance(connection, ClusterConnection)
        async with asyncio.timeout(30):
            await connection.start()
            try:
                await scene(connection)
            finally:
                await connection.close()

    asyncio.run(play())


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.02)


async def served(connection: ClusterConnection, keys: list[bytes]) -> list[bytes | None]:
    """Read until it works."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await read(connection, keys)
            except FeatureStoreUnavailable:
                await asyncio.sleep(0.02)


def owner_of(nodes: list[RedisServer], slot: int) -> RedisServer:
    for first, last, (_host, port, *_rest), *_replicas in nodes[0].ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(node for node in nodes if node.port == port)
    raise AssertionError(slot)


def stored(nodes: list[RedisServer], count: int) -> dict[bytes, bytes]:
    """Put rows of a test under keys of every node; their names have braces, which decide the slot."""
    rows = {row_key("raw", f"p{i}" if i % 3 else f"{{p{i}}}x"): b"%d" % i for i in range(count)}
    by_owner: dict[RedisServer, dict[bytes, bytes]] = {}
    for key, row in rows.items():
        by_owner.setdefault(owner_of(nodes, key_slot(key)), {})[key] = row
    for node, own in by_owner.items():
        node.put(own)
    return rows


def test_every_command_does_on_a_cluster_what_it_does_on_one_server(nodes, features, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SEKISHO_REDIS", url(nodes))
    assert main(["apply", str(features)]) == 0
    assert capsys.readouterr().out.count(" new ") == 3
    assert main(["apply", str(features)]) == 0
    assert capsys.readouterr().out.count(" unchanged ") == 3
    rows = pa.table({"patient": [f"p{i}" for i in range(ENTITIES)], "radius": [float(i) for i in range(ENTITIES)]})
    pyarrow.parquet.write_table(rows, tmp_path / "rows.parquet")
    load = ["load", "--view", "means", "--chunk-rows", "250", str(tmp_path / "rows.parquet")]
    assert main(load) == 0
    assert f"written: {ENTITIES}, kept newer: 0" in capsys.readouterr().out
    assert main(["get", "patient=p7", "--json"]) == 0
    readings = {reading["view"]: reading for reading in json.loads(capsys.readouterr().out)}
    assert (readings["means"]["value"], readings["means"]["status"]) == (7.0, "PRESENT")
    assert readings["worst"]["status"] == "MISSING"
    assert main(["check", "--view", "means"]) == 0
    assert f"{ENTITIES}" in capsys.readouterr().out


def test_a_late_write_never_overwrites_a_newer_row_on_a_cluster(nodes, features):
    async def play() -> None:
        async with open_redis(url(nodes)) as redis:
            await apply_views(redis, read_feature_views(features))
            views = await read_views(redis)
            for node in nodes:
                node.ask("SCRIPT", "FLUSH")
            writer = RowWriter(redis, views, lambda: NOW_US)
            assert await writer.write("worst", "late", {"area": 1.0}, NOW_US)
            assert not await writer.write("worst", "late", {"area": 2.0}, NOW_US - 1)
            ids = [f"e{i}" for i in range(500)]
            newer = pa.table({"patient": ids, "area": [1.0] * 500, "event_time": [NOW_US] * 500})
            older = pa.table({"patient": ids * 2, "area": [2.0] * 1_000, "event_time": [NOW_US - 1] * 1_000})
            for table, kept in ((newer, 0), (older, 1_000), (newer, 0)):
                report = await load_rows(redis, views["worst"], table, now_us=lambda: NOW_US)
                assert report.kept_newer == kept
            (found,) = await sample_freshness(redis, [views["worst"]], NOW_US)
            assert (found.rows, found.stale_share) == (501, 0.0)

    asyncio.run(play())


def test_keys_of_every_node_are_read_in_one_read_in_their_order(nodes):
    rows = stored(nodes, 90)
    keys = [*rows, row_key("raw", "nobody")]

    async def scene(connection: ClusterConnection) -> None:
        assert connection.connected
        assert len({connection.shard_of(key) for key in keys}) == 3
        assert await read(connection, keys) == [*rows.values(), None]
        assert connection.redirected == 0
        reader = OnlineReader(connection)
        await reader.start()
        assert await reader.fetch(keys) == [*rows.values(), None]
        assert reader.reads == 3

    connected(nodes, scene)


def test_a_slot_that_moves_is_followed_key_by_key_and_then_for_good(nodes):
    rows = stored(nodes, 90)
    moved = next(key for key in rows)
    slot = key_slot(moved)
    source = owner_of(nodes, slot)
    target = next(node for node in nodes if node is not source)

    async def scene(connection: ClusterConnection) -> None:
        move_slot(slot, source, target)
        # Not there yet: the source still answers. Then the row goes over, and the source says ASK.
        assert await read(connection, [moved]) == [rows[moved]]
        source.ask("MIGRATE", "127.0.0.1", target.port, moved, 0, 2_000)
        before = connection.redirected
        assert await read(connection, list(rows)) == list(rows.values())
        assert connection.redirected == before + 1
        assert str(source.port) in connection.shard_of(moved)
        end_move(slot, source, target)
        assert await read(connection, list(rows)) == list(rows.values())
        assert str(target.port) in connection.shard_of(moved)
        # Once told, it goes straight there, and the table that is learnt meanwhile says the same.
        told, learnt = connection.redirected, connection.learnt
        await until(lambda: connection.learnt > learnt)
        assert await read(connection, list(rows)) == list(rows.values())
        assert connection.redirected == told

    connected(nodes, scene)


def test_a_node_that_was_never_heard_of_is_connected_to_when_a_slot_goes_there(nodes, tmp_path):
    rows = stored(nodes, 30)
    moved = next(key for key in rows)
    slot = key_slot(moved)
    source = owner_of(nodes, slot)

    async def scene(connection: ClusterConnection) -> None:
        with cluster_node(tmp_path) as new:
            new.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
            for node in (source, new):
                await until(lambda node=node: node.ask("CLUSTER", "NODES").count(b"master") == len(nodes) + 1)
            await until(lambda: b"cluster_state:ok" in new.ask("CLUSTER", "INFO"))
            move_slot(slot, source, new)
            source.ask("MIGRATE", "127.0.0.1", new.port, moved, 0, 2_000)
            assert await read(connection, list(rows)) == list(rows.values())
            end_move(slot, source, new)
            assert await read(connection, list(rows)) == list(rows.values())
            assert str(new.port) in connection.shard_of(moved)
            move_slot(slot, new, source)
            new.ask("MIGRATE", "127.0.0.1", source.port, moved, 0, 2_000)
            end_move(slot, new, source)
            assert await read(connection, list(rows)) == list(rows.values())
            forgotten = new.ask("CLUSTER", "MYID")
        for node in nodes:
            node.ask("CLUSTER", "FORGET", forgotten)

    connected(nodes, scene)


def test_a_dead_node_fails_the_reads_of_its_own_keys_alone_and_serves_again_when_it_is_back(tmp_path):
    with cluster(tmp_path) as nodes:
        rows = stored(nodes, 60)
        dead = nodes[2]
        own = [key for key in rows if owner_of(nodes, key_slot(key)) is dead]
        others = [key for key in rows if key not in own]

        async def scene(connection: ClusterConnection) -> None:
            reader = OnlineReader(connection)
            await reader.start()
            os.kill(dead.pid, signal.SIGSTOP)
            stalled, fine = reader.fetch(own[:1]), reader.fetch(others)
            assert await fine == [rows[key] for key in others]
            with pytest.raises(FeatureStoreUnavailable):
                await stalled
            os.kill(dead.pid, signal.SIGKILL)
            dead.stop()
            await until(lambda: connection.shard_of(own[0]) == "" or not connects(connection, own[0]))
            with pytest.raises(FeatureStoreUnavailable, match=f"{dead.port}|no node has this slot"):
                await read(connection, own[:1])
            for _again in range(10):
                assert await read(connection, others) == [rows[key] for key in others]
            with dead:
                # Nothing is kept on its disk but which slots it has.
                assert await served(connection, own) == [None] * len(own)
                assert await served(connection, others) == [rows[key] for key in others]

        connected(nodes, scene)


def connects(connection: ClusterConnection, key: bytes) -> bool:
    try:
        connection.read([key], lambda _rows, _fault: None)
    except FeatureStoreUnavailable:
        return False
    return True


def test_a_replica_that_takes_over_serves_the_dead_masters_keys(tmp_path):
    with cluster(tmp_path) as nodes, cluster_node(tmp_path) as replica:
        rows = stored(nodes, 60)
        replica.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
        dead = nodes[1]

        async def scene(connection: ClusterConnection) -> None:
            dead_id = dead.ask("CLUSTER", "MYID")
            for node in (*nodes, replica):
                await until(lambda node=node: node.ask("CLUSTER", "NODES").count(b" connected") == len(nodes) + 1)
            replica.ask("CLUSTER", "REPLICATE", dead_id)
            await until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
            for node in nodes:
                await until(lambda node=node: b"slave " + dead_id in node.ask("CLUSTER", "NODES"))
            assert await read(connection, list(rows)) == list(rows.values())
            os.kill(dead.pid, signal.SIGKILL)
            assert await served(connection, list(rows)) == list(rows.values())

        connected(nodes, scene)


def test_a_cluster_is_told_from_one_server_and_one_server_from_a_cluster(nodes, features, tmp_path, capsys):
    one = f"redis://127.0.0.1:{nodes[0].port}"
    assert main(["apply", "--redis", one, str(features)]) == 1
    error = capsys.readouterr().err
    assert "use redis+cluster://" in error

    async def scene() -> None:
        rows = stored(nodes, 30)
        connection = open_connection(one)
        await connection.start()
        asked: asyncio.Future[FeatureStoreUnavailable | None] = asyncio.get_running_loop().create_future()
        connection.read(list(rows), lambda _rows, fault: asked.set_result(fault))
        assert "use redis+cluster://" in str(await asked)
        await connection.close()
        with RedisServer(tmp_path) as single:
            connection = open_connection(f"redis+cluster://127.0.0.1:{single.port}")
            await connection.start()
            with pytest.raises(FeatureStoreUnavailable, match="use redis://"):
                connection.read([b"k"], lambda _rows, _fault: None)
            await connection.close()

    asyncio.run(scene())
    with RedisServer(tmp_path) as single:
        assert main(["get", "--redis", f"redis+cluster://127.0.0.1:{single.port}", "patient=p1"]) == 1
        assert "not enabled" in capsys.readouterr().err
