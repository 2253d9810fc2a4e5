"""The store with sentinels, TLS and logins, and on servers that are loading, full, replicas, or ask for a password."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

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
from feature_store.load_progress import progress_path, read_progress
from feature_store.online_reader import Connection
from tests.integration.gateway_client import until as eventually
from tests.integration.redis_servers import Certificates, RedisServer, cluster, sentinel

pytestmark = pytest.mark.integration

NOW_US = 1_800_000_000_000_000
FEATURES = """\
feature_views:
  means:
    entity: patient
    max_age: 1h
    features: [{name: radius, dtype: float32, default: 9.0}]
"""


@pytest.fixture
def features(tmp_path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(FEATURES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.02)


async def read(connection: Connection, key: bytes) -> bytes | None:
    answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def on_rows(rows: list[bytes | None] | None, fault: FeatureStoreUnavailable | None) -> None:
        if rows is None:
            assert fault is not None
            answer.set_exception(fault)
        else:
            answer.set_result(rows[0])

    connection.read([key], on_rows)
    return await answer


async def served(connection: Connection, key: bytes) -> bytes | None:
    """Read until it works."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await read(connection, key)
            except FeatureStoreUnavailable:
                await asyncio.sleep(0.02)


async def refused(url: str) -> str:
    """Say why a first read fails."""
    connection = open_connection(url)
    await connection.start()
    try:
        with pytest.raises(FeatureStoreUnavailable) as caught:
            await read(connection, b"k")
    finally:
        await connection.close()
    return str(caught.value)


async def written_and_read(url: str, features: Path) -> None:
    """Register, write and read a row by both kinds of client."""
    async with open_redis(url) as redis:
        await apply_views(redis, read_feature_views(features))
        writer = RowWriter(redis, await read_views(redis), lambda: NOW_US)
        assert await writer.write("means", "p1", {"radius": 1.5}, NOW_US)
    reader = OnlineReader(open_connection(url))
    await reader.start()
    row, nobody = await reader.fetch([row_key("means", "p1"), row_key("means", "p2")])
    await reader.close()
    assert row is not None
    assert nobody is None


@pytest.fixture
def watched(tmp_path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and the sentinel that watches both."""
    soon = ("--save", "", "--repl-diskless-sync-delay", "0")
    with RedisServer(tmp_path, *soon) as master:
        replica = RedisServer(tmp_path, *soon, "--replicaof", f"127.0.0.1 {master.port}")
        with replica:
            # First, as a sentinel looks for replicas at once and then only every ten seconds.
            eventually("the replica is one", lambda: master.ask("WAIT", 1, 100) == 1)
            with sentinel(tmp_path, master) as watcher:
                yield master, replica, watcher


def test_a_failover_by_sentinels_is_followed_by_reads_and_writes(watched, features):
    master, replica, watcher = watched
    # The first sentinel of the URL is away: the next one is asked.
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher.port}/rows"

    async def scene() -> None:
        await written_and_read(url, features)
        connection = open_connection(url)
        await connection.start()
        key = row_key("means", "p1")
        row = await read(connection, key)
        assert row is not None
        await until(lambda: master.ask("WAIT", 1, 100) == 1)
        await until(lambda: str(replica.port) in str(watcher.ask("SENTINEL", "REPLICAS", "rows")))
        async with open_redis(url) as redis:
            views = await read_views(redis)
            writer = RowWriter(redis, views, lambda: NOW_US)
            os.kill(master.pid, signal.SIGSTOP)
            try:
                await until(lambda: replica.ask("ROLE")[0] == b"master")
                assert await served(connection, key) == row
            finally:
                os.kill(master.pid, signal.SIGCONT)
            # The old master comes back; what the sentinels do to it after ten seconds is done here at once.
            master.ask("REPLICAOF", "127.0.0.1", replica.port)
            with contextlib.suppress(FeatureStoreUnavailable):  # a connection of before finds out by this
                await writer.write("means", "p9", {"radius": 2.0}, NOW_US)
            assert await writer.write("means", "p9", {"radius": 2.0}, NOW_US)
            assert replica.ask("GET", row_key("means", "p9")) == await served(connection, row_key("means", "p9"))
            assert str(replica.port) in str(connection._protocol._address)
        await connection.close()

    asyncio.run(scene())


def test_what_is_wrong_with_sentinels_is_told_by_sentinel(watched):
    _master, _replica, watcher = watched
    told = asyncio.run(refused(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher.port}/others"))
    assert "127.0.0.1:1: " in told
    assert f"127.0.0.1:{watcher.port}: this sentinel knows no master called others" in told


def test_a_server_that_says_it_is_no_master_is_not_read_from(watched, tmp_path):
    _master, replica, _watcher = watched

    async def scene() -> None:
        with sentinel(tmp_path, replica) as behind:
            # A sentinel that was told of a replica finds the master itself, so that it is caught only at first.
            told = await refused(f"redis+sentinel://127.0.0.1:{behind.port}/rows")
            assert "says that it is none" in told

    asyncio.run(scene())


def test_tls_with_certificates_of_both_sides_serves_one_server(certificates, tmp_path, features):
    with RedisServer(tmp_path, *certificates.server_options, **certificates.client_options) as server:
        asyncio.run(written_and_read(f"rediss://127.0.0.1:{server.port}{certificates.url_options}", features))


def test_tls_serves_a_master_that_sentinels_name(certificates, tmp_path, features):
    options, login = (*certificates.server_options, "--tls-replication", "yes"), certificates.client_options
    with RedisServer(tmp_path, *options, **login) as master:
        lines = [" ".join(pair).removeprefix("--") for pair in zip(options[::2], options[1::2], strict=True)]
        with sentinel(tmp_path, master, *lines, **login) as watcher:
            url = f"rediss+sentinel://127.0.0.1:{watcher.port}/rows{certificates.url_options}"
            asyncio.run(written_and_read(url, features))


def test_tls_serves_a_cluster(certificates, tmp_path, features):
    options = (*certificates.server_options, "--tls-cluster", "yes")
    with cluster(tmp_path, *options, nodes=2, **certificates.client_options) as nodes:
        asyncio.run(written_and_read(f"rediss+cluster://127.0.0.1:{nodes[0].port}{certificates.url_options}", features))


def test_tls_refuses_an_unknown_authority_another_host_and_a_client_without_a_certificate(
    certificates, tmp_path, capsys, features
):
    authority = f"ssl_ca_certs={certificates.file('ca.crt')}"
    with RedisServer(tmp_path, *certificates.server_options, **certificates.client_options) as server:
        for place, says in (
            (f"127.0.0.1:{server.port}", "certificate verify failed"),
            (f"localhost:{server.port}?{authority}", "[Hh]ostname mismatch"),
            (f"127.0.0.1:{server.port}?{authority}", "certificate required|closed|reset"),
            (f"127.0.0.1:{server.port}?ssl_ca_certs={tmp_path}/none.crt", "No such file"),
        ):
            assert re.search(says, asyncio.run(refused(f"rediss://{place}")))
        assert main(["apply", "--redis", f"rediss://127.0.0.1:{server.port}", str(features)]) == 1
        error = capsys.readouterr().err
        assert ("certificate verify failed" in error, "Traceback" in error) == (True, False)


def test_a_login_by_user_or_by_password_alone_serves_and_a_wrong_one_is_told_without_it(tmp_path, features, capsys):
    with RedisServer(tmp_path, "--requirepass", "silence", password="silence") as server:
        server.ask("ACL", "SETUSER", "rows", "on", ">hush", "~sekisho:*", "+@read", "+@write", "+@scripting", "+ping")
        place = f"127.0.0.1:{server.port}"
        for login in ("rows:hush", ":silence"):
            asyncio.run(written_and_read(f"redis://{login}@{place}", features))
        for login, code in (("rows:wrong@", "WRONGPASS"), (":wrong@", "WRONGPASS"), ("", "NOAUTH")):
            told = asyncio.run(refused(f"redis://{login}{place}"))
            assert code in told
            assert "wrong@" not in told
            assert main(["apply", "--redis", f"redis://{login}{place}", str(features)]) == 1
            error = capsys.readouterr().err
            assert code in error
            assert "wrong@" not in error
        server.ask("ACL", "SETUSER", "rows", "-mget")
        told = asyncio.run(refused(f"redis://rows:hush@{place}"))
        assert "NOPERM" in told
        assert "more rights" in told


def test_a_server_that_is_loading_is_waited_for_on_one_connection(tmp_path):
    key = row_key("means", "p1")
    with RedisServer(tmp_path, "--dbfilename", "rows.rdb") as server:
        server.put({key: b"row"} | {b"k%d" % i: b"x" for i in range(20_000)})
        server.ask("SAVE")
    slow = ("--dbfilename", "rows.rdb", "--key-load-delay", "200", "--loading-process-events-interval-bytes", "1024")

    async def scene(server: RedisServer) -> None:
        connection = open_connection(f"redis://127.0.0.1:{server.port}")
        await connection.start()
        assert not connection.connected
        with pytest.raises(FeatureStoreUnavailable, match="LOADING"):
            await read(connection, key)
        server.ask("CONFIG", "SET", "key-load-delay", "0")
        await until(lambda: connection.connected)
        assert await read(connection, key) == b"row"
        assert server.ask("INFO", "stats")["rejected_connections"] == 0
        await connection.close()

    with RedisServer(tmp_path, *slow) as server:
        asyncio.run(scene(server))


def test_a_load_into_a_full_redis_says_what_to_do_and_goes_on_when_there_is_room(tmp_path, features, capsys):
    rows = 20_000
    table = pa.table({"patient": [f"p{i}" for i in range(rows)], "radius": [float(i) for i in range(rows)]})
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(table, path)
    with RedisServer(tmp_path, "--maxmemory-policy", "noeviction") as server:
        url = f"redis://127.0.0.1:{server.port}"
        assert main(["apply", "--redis", url, str(features)]) == 0
        used = server.ask("INFO", "memory")["used_memory"]
        server.ask("CONFIG", "SET", "maxmemory", used + 1_500_000)
        load = ["load", "--redis", url, "--view", "means", "--chunk-rows", "1000", str(path)]
        capsys.readouterr()
        assert main(load) == 1
        error = capsys.readouterr().err
        stored = read_progress(progress_path(path, "means"), path, "means")
        assert 0 < stored < rows
        for says in ("OOM", "raise its maxmemory", f"the first {stored:,} rows are stored", "--resume"):
            assert says in error
        assert (error.count("\n"), "Traceback" in error) == (1, False)
        assert asyncio.run(row_of(url)) is not None
        server.ask("CONFIG", "SET", "maxmemory", 0)
        assert main([*load, "--resume"]) == 0
        assert f"rows: {rows - stored:,}" in capsys.readouterr().out
        assert server.ask("DBSIZE") == rows + 2


async def row_of(url: str) -> bytes | None:
    connection = open_connection(url)
    await connection.start()
    try:
        return await read(connection, row_key("means", "p1"))
    finally:
        await connection.close()


def test_a_replica_serves_reads_and_says_why_it_takes_no_writes(tmp_path, features, capsys):
    with RedisServer(tmp_path, "--replicaof", "127.0.0.1 1") as replica:
        url = f"redis://127.0.0.1:{replica.port}"
        assert asyncio.run(row_of(url)) is None
        assert main(["apply", "--redis", url, str(features)]) == 1
        error = capsys.readouterr().err
        assert "READONLY" in error
        assert "redis+sentinel://" in error
        replica.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        assert "MASTERDOWN" in asyncio.run(refused(url))
        assert main(["get", "--redis", url, "patient=p1"]) == 1
        assert "MASTERDOWN" in capsys.readouterr().err
