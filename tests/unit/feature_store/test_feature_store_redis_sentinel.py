"""A connection by sentinels against scripted ones: what real ones say too seldom to wait for."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from feature_store import FeatureStoreUnavailable, open_connection, redis_sentinel
from feature_store.redis_connection import RedisConnection
from tests.unit.feature_store.scripted_redis import DEADLINE_S, ScriptedRedis, bulk

MASTER_ROLE = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA_ROLE = b"*2\r\n$5\r\nslave\r\n$1\r\nx\r\n"


def named(server: ScriptedRedis) -> bytes:
    return b"*2\r\n%b%b" % (bulk(b"127.0.0.1"), bulk(b"%d" % server.port))


class Scene:
    """Two servers, the first of them the master, and a sentinel that names it."""

    def __init__(self, first: ScriptedRedis, second: ScriptedRedis, watcher: ScriptedRedis) -> None:
        self.first, self.second, self.watcher = first, second, watcher
        for server in (first, second):
            server.replies |= {b"ROLE": MASTER_ROLE, b"MGET": b"*1\r\n%b" % bulk(b"%d" % server.port)}
        watcher.replies[b"SENTINEL"] = named(first)
        self.connection = open_connection(f"redis+sentinel://:hush@127.0.0.1:{watcher.port}/rows")
        assert isinstance(self.connection, RedisConnection)

    async def row(self) -> bytes | None:
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def on_rows(rows: list[bytes | None] | None, fault: FeatureStoreUnavailable | None) -> None:
            if rows is None:
                answer.set_exception(fault or AssertionError("neither rows nor a fault"))
            else:
                answer.set_result(rows[0])

        self.connection.read([b"k"], on_rows)
        return await answer


def played(scene: Callable[[Scene], Awaitable[None]]) -> None:
    async def play() -> None:
        async with (
            asyncio.timeout(DEADLINE_S),
            ScriptedRedis() as first,
            ScriptedRedis() as second,
            ScriptedRedis() as watcher,
        ):
            set_up = Scene(first, second, watcher)
            await set_up.connection.start()
            try:
                await scene(set_up)
            finally:
                await set_up.connection.close()

    asyncio.run(play())


def test_reads_go_to_the_master_that_a_sentinel_names_and_the_sentinel_is_not_given_the_masters_password():
    async def scene(it: Scene) -> None:
        assert await it.row() == b"%d" % it.first.port
        assert it.first.commands[:3] == [[b"AUTH", b"hush"], [b"PING"], [b"ROLE"]]
        assert it.watcher.commands == [[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"rows"]]

    played(scene)


def test_a_master_that_is_another_now_is_moved_to_while_the_old_one_still_answers(monkeypatch):
    monkeypatch.setattr(redis_sentinel.SentinelMaster, "recheck_s", 0.02)

    async def scene(it: Scene) -> None:
        it.watcher.replies[b"SENTINEL"] = named(it.second)
        await it.second.until(lambda: [b"ROLE"] in it.second.commands)
        while await it.row() != b"%d" % it.second.port:  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.01)

    played(scene)


def test_a_connection_is_kept_while_the_sentinels_name_a_server_that_is_no_master(monkeypatch):
    monkeypatch.setattr(redis_sentinel.SentinelMaster, "recheck_s", 0.02)

    async def scene(it: Scene) -> None:
        it.second.replies[b"ROLE"] = REPLICA_ROLE
        it.watcher.replies[b"SENTINEL"] = named(it.second)
        await it.second.until(lambda: it.second.commands.count([b"ROLE"]) >= 2)
        assert await it.row() == b"%d" % it.first.port

    played(scene)


@pytest.mark.parametrize("reply", [b"$-1\r\n", b"-ERR unknown command 'SENTINEL'\r\n", b"+OK\r\n", None])
def test_a_connection_is_kept_while_no_sentinel_can_say_who_is_the_master(reply, monkeypatch):
    monkeypatch.setattr(redis_sentinel.SentinelMaster, "recheck_s", 0.02)
    monkeypatch.setattr(redis_sentinel, "SENTINEL_TIMEOUT_S", 0.05)

    async def scene(it: Scene) -> None:
        asked = len(it.watcher.commands)
        it.watcher.replies[b"SENTINEL"] = reply
        await it.watcher.until(lambda: len(it.watcher.commands) >= asked + 3)
        assert await it.row() == b"%d" % it.first.port
        assert it.first.connections == 1

    played(scene)


@pytest.mark.parametrize("text", [b"READONLY You can't write", b"MASTERDOWN Link with MASTER is down"])
def test_an_answer_that_only_a_replica_gives_makes_it_look_for_the_master(text):
    async def scene(it: Scene) -> None:
        it.first.replies[b"MGET"] = b"-%b\r\n" % text
        it.watcher.replies[b"SENTINEL"] = named(it.second)
        with pytest.raises(FeatureStoreUnavailable, match=text.split()[0].decode()):
            await it.row()
        await it.second.until(lambda: it.connection.connected)
        assert await it.row() == b"%d" % it.second.port

    played(scene)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"$-1\r\n", "knows no master called rows"),
        (b"*2\r\n$1\r\nh\r\n$6\r\n123456\r\n", "no address"),
        (b"*1\r\n$1\r\nh\r\n", "no address"),
        (b"+OK\r\n", "no address"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (None, "no answer within 0.05 s"),
    ],
)
def test_what_a_sentinel_says_wrongly_is_told_and_the_next_one_is_asked(reply, says, monkeypatch):
    monkeypatch.setattr(redis_sentinel, "SENTINEL_TIMEOUT_S", 0.05)

    async def scene() -> None:
        async with ScriptedRedis() as wrong, ScriptedRedis() as right, ScriptedRedis() as master:
            wrong.replies[b"SENTINEL"] = reply
            master.replies[b"ROLE"] = MASTER_ROLE
            both = f"127.0.0.1:{wrong.port},127.0.0.1:{right.port}"
            right.replies[b"SENTINEL"] = b"$-1\r\n"
            connection = open_connection(f"redis+sentinel://{both}/rows")
            await connection.start()
            with pytest.raises(FeatureStoreUnavailable, match=says):
                connection.read([b"k"], lambda _rows, _fault: None)
            right.replies[b"SENTINEL"] = named(master)
            await master.until(lambda: connection.connected)
            await connection.close()

    asyncio.run(scene())
