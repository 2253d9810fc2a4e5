import asyncio
from typing import Any

import pytest

from feature_store import FeatureStoreUnavailable, RedisConnection, redis_connection, redis_protocol
from feature_store.redis_protocol import pack_command
from tests.unit.feature_store.scripted_redis import DEADLINE_S, ScriptedRedis, played


def ask(connection: RedisConnection, *command: bytes) -> asyncio.Future[Any]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_reply(reply: Any, fault: FeatureStoreUnavailable | None) -> None:
        if fault is None:
            answer.set_result(reply)
        else:
            answer.set_exception(fault)

    connection.send(pack_command(*command), on_reply)
    return answer


def test_replies_come_back_in_the_order_of_the_commands():
    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url())
        await connection.start()
        answers = [ask(connection, b"ECHO", b"%d" % index) for index in range(100)]
        assert await asyncio.gather(*answers) == [b"%d" % index for index in range(100)]
        await connection.close()
        assert not connection.connected

    played(scene)


def test_it_logs_in_selects_and_asks_whether_redis_is_ready():
    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url("us%3Aer:s%40crt@", "/3"))
        await connection.start()
        assert connection.connected
        assert server.commands == [[b"AUTH", b"us:er", b"s@crt"], [b"SELECT", b"3"], [b"PING"]]
        await connection.close()

    played(scene)


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        (b"AUTH", b"-WRONGPASS invalid username-password pair\r\n"),
        (b"PING", b"-NOAUTH Authentication required\r\n"),
        (b"PING", b"-NOPERM this user has no permissions to run the 'ping' command\r\n"),
    ],
)
def test_a_refused_login_is_told_with_redis_own_text_and_what_to_do_and_never_the_password(verb, reply, monkeypatch):
    monkeypatch.setattr(redis_connection, "LOGIN_RETRY_DELAY_S", 0.05)

    async def scene(server: ScriptedRedis) -> None:
        server.replies[verb] = reply
        connection = RedisConnection(server.url(":hush@"))
        await connection.start()
        with pytest.raises(FeatureStoreUnavailable) as caught:
            connection.send(b"", lambda _reply, _fault: None)
        assert caught.value.reason.startswith(reply[1:-2].decode() + " (")
        assert "hush" not in str(caught.value)
        del server.replies[verb]
        await server.until(lambda: connection.connected)
        await connection.close()

    played(scene)


def test_a_login_that_was_refused_is_tried_again_slowly(monkeypatch):
    waited: list[float] = []

    async def paused(delay_s: float) -> float:
        waited.append(delay_s)
        await asyncio.sleep(0 if len(waited) < 3 else DEADLINE_S)
        return delay_s

    monkeypatch.setattr(redis_connection, "_paused", paused)

    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"AUTH"] = b"-WRONGPASS invalid username-password pair\r\n"
        connection = RedisConnection(server.url(":hush@"))
        await connection.start()
        await server.until(lambda: len(waited) == 3)
        assert waited == [redis_connection.LOGIN_RETRY_DELAY_S] * 3
        await connection.close()

    played(scene)


def test_while_redis_loads_its_data_the_connection_is_kept_and_says_so_and_serves_as_soon_as_it_can():
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"PING"] = b"-LOADING Redis is loading the dataset in memory\r\n"
        connection = RedisConnection(server.url())
        await connection.start()
        assert not connection.connected
        with pytest.raises(FeatureStoreUnavailable, match="LOADING Redis is loading") as caught:
            connection.read([b"k"], lambda _rows, _fault: None)
        assert "by itself" in caught.value.reason
        server.replies[b"PING"] = b"+PONG\r\n"
        await server.until(lambda: connection.connected)
        assert server.connections == 1
        await connection.close()

    played(scene)


def test_a_server_that_lets_everyone_in_and_out_again_is_not_hammered():
    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url())
        await connection.start()
        began_s = asyncio.get_running_loop().time()
        for count in range(2, 5):
            server.hang_up()
            await server.until(lambda count=count: server.connections == count and connection.connected)
        least_s = sum(redis_connection.RECONNECT_DELAY_MIN_S * 2**n / 2 for n in range(3))
        assert asyncio.get_running_loop().time() - began_s >= least_s
        await connection.close()

    played(scene)


@pytest.mark.parametrize(
    ("reply", "rows"),
    [
        (b"*2\r\n$1\r\nx\r\n$-1\r\n", [b"x", None]),
        (b"+OK\r\n", None),
        (b"*1\r\n$1\r\nx\r\n", None),
        (b"*2\r\n:1\r\n:2\r\n", None),
        (b"*2\r\n$1\r\nx\r\n-ERR no\r\n", None),
    ],
)
def test_a_read_gives_a_row_or_none_for_each_key_and_takes_nothing_else_for_an_answer(reply, rows):
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = reply
        connection = RedisConnection(server.url())
        await connection.start()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.read([b"a", b"b"], lambda *answer: answered.set_result(answer))
        assert not answered.done()
        got, fault = await answered
        assert server.commands[-1] == [b"MGET", b"a", b"b"]
        assert got == rows
        assert (fault is None) == (rows is not None)
        await connection.close()

    played(scene)


@pytest.mark.parametrize("text", ["READONLY You can't write", "MOVED 3999 127.0.0.1:6381", "OOM command not allowed"])
def test_an_error_reply_fails_its_own_command_and_the_connection_stays(text):
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = f"-{text}\r\n".encode()
        connection = RedisConnection(server.url())
        await connection.start()
        refused, fine = ask(connection, b"MGET", b"k"), ask(connection, b"ECHO", b"x")
        with pytest.raises(FeatureStoreUnavailable) as caught:
            await refused
        assert caught.value.reason.startswith(text + " (")
        assert await fine == b"x"
        assert connection.connected
        await connection.close()

    played(scene)


def test_a_dropped_connection_fails_all_that_wait_at_once_and_comes_back_by_itself():
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = None
        connection = RedisConnection(server.url())
        await connection.start()
        waiting = [ask(connection, b"MGET", b"k") for _command in range(3)]
        await server.until(lambda: server.commands.count([b"MGET", b"k"]) == 3)
        server.hang_up()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [FeatureStoreUnavailable] * 3
        await server.until(lambda: connection.connected)
        assert await ask(connection, b"ECHO", b"again") == b"again"
        assert server.connections == 2
        await connection.close()

    played(scene)


def test_start_returns_where_redis_is_away_and_sending_fails_with_the_reason():
    async def scene(server: ScriptedRedis) -> None:
        url = server.url()
        await server.__aexit__()
        connection = RedisConnection(url)
        await connection.start()
        assert not connection.connected
        with pytest.raises(FeatureStoreUnavailable, match="Connect call failed"):
            connection.send(b"", lambda _reply, _fault: None)
        await connection.close()

    played(scene)


def test_a_redis_that_stops_answering_is_dropped():
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = None
        connection = RedisConnection(server.url(), reply_timeout_s=0.05)
        await connection.start()
        with pytest.raises(FeatureStoreUnavailable, match=r"no reply for 0\.05 s"):
            await ask(connection, b"MGET", b"k")
        await connection.close()

    played(scene)


@pytest.mark.parametrize(
    ("data", "says"), [(b"HTTP/1.1 400 Bad Request\r\n", "not the Redis protocol"), (b"+OK\r\n", "to nothing")]
)
def test_bytes_that_answer_nothing_drop_the_connection(data, says):
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = None
        connection = RedisConnection(server.url())
        await connection.start()
        waiting = ask(connection, b"MGET", b"k") if "protocol" in says else None
        server.push(data)
        await server.until(lambda: server.connections == 2 or not connection.connected)
        if waiting is not None:
            with pytest.raises(FeatureStoreUnavailable, match=says):
                await waiting
        await connection.close()

    played(scene)


def test_an_endless_reply_is_cut_off(monkeypatch):
    monkeypatch.setattr(redis_protocol, "REPLY_BYTES_MAX", 10_000)

    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = b"*1\r\n$99999999\r\n" + b"x" * 20_000
        connection = RedisConnection(server.url())
        await connection.start()
        with pytest.raises(FeatureStoreUnavailable, match="a reply of more than 10000 bytes"):
            await ask(connection, b"MGET", b"k")
        await connection.close()

    played(scene)


def test_many_replies_may_together_be_longer_than_one_may_be(monkeypatch):
    monkeypatch.setattr(redis_protocol, "REPLY_BYTES_MAX", 1_000)

    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url())
        await connection.start()
        for _round in range(20):
            assert await ask(connection, b"ECHO", b"x" * 100) == b"x" * 100
        await connection.close()

    played(scene)


def test_more_bytes_in_flight_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(redis_protocol, "BYTES_IN_FLIGHT_MAX", 200)

    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url())
        await connection.start()
        first = ask(connection, b"ECHO", b"x" * 150)
        with pytest.raises(FeatureStoreUnavailable, match="in flight"):
            ask(connection, b"ECHO", b"y" * 150)
        await first
        assert await ask(connection, b"ECHO", b"z" * 150) == b"z" * 150
        await connection.close()

    played(scene)


def test_closing_fails_what_waits_and_a_closed_connection_can_be_started_again():
    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = None
        connection = RedisConnection(server.url())
        await connection.start()
        waiting = ask(connection, b"MGET", b"k")
        await connection.close()
        with pytest.raises(FeatureStoreUnavailable, match="closed"):
            await waiting
        await connection.start()
        assert await ask(connection, b"ECHO", b"x") == b"x"
        await connection.close()

    played(scene)
