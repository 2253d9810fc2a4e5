import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import pytest

from feature_store import FeatureStoreUnavailable, RedisConnection
from feature_store import redis_connection as limits
from feature_store.redis_address import parse_redis_url
from feature_store.redis_connection import pack_command

DEADLINE_S = 10.0


class ScriptedRedis:
    """A server on loopback that keeps what it is told and answers as the test says."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.replies: dict[bytes, bytes | None] = {b"PING": b"+PONG\r\n"}
        """Reply by verb; None: no answer. A verb that is not here is echoed."""
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "ScriptedRedis":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while command := parser.gets():
                    self.commands.append(command)
                    reply = self.replies.get(command[0], b"$%d\r\n%b\r\n" % (len(command[-1]), command[-1]))
                    if reply is not None:
                        writer.write(reply)
                self._changed.set()
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def push(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    def url(self, login: str = "", database: str = "") -> str:
        return f"redis://{login}127.0.0.1:{self.port}{database}"


def ask(connection: RedisConnection, *command: bytes) -> asyncio.Future[Any]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_reply(reply: Any, fault: FeatureStoreUnavailable | None) -> None:
        if fault is None:
            answer.set_result(reply)
        else:
            answer.set_exception(fault)

    connection.send(pack_command(*command), on_reply)
    return answer


def played(scene: Callable[[ScriptedRedis], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(DEADLINE_S), ScriptedRedis() as server:
            await scene(server)

    asyncio.run(play())


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
        (b"PING", b"-LOADING Redis is loading the dataset in memory\r\n"),
        (b"PING", b"-NOAUTH Authentication required.\r\n"),
    ],
)
def test_a_refused_login_is_told_with_redis_own_text_and_never_the_password(verb, reply):
    async def scene(server: ScriptedRedis) -> None:
        server.replies[verb] = reply
        connection = RedisConnection(server.url(":hush@"))
        await connection.start()
        with pytest.raises(FeatureStoreUnavailable) as caught:
            connection.send(b"", lambda _reply, _fault: None)
        assert caught.value.reason == reply[1:-2].decode()
        assert "hush" not in str(caught.value)
        del server.replies[verb]
        await server.until(lambda: connection.connected)
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
        assert caught.value.reason == text
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
    monkeypatch.setattr(limits, "REPLY_BYTES_MAX", 10_000)

    async def scene(server: ScriptedRedis) -> None:
        server.replies[b"MGET"] = b"*1\r\n$99999999\r\n" + b"x" * 20_000
        connection = RedisConnection(server.url())
        await connection.start()
        with pytest.raises(FeatureStoreUnavailable, match="a reply of more than 10000 bytes"):
            await ask(connection, b"MGET", b"k")
        await connection.close()

    played(scene)


def test_many_replies_may_together_be_longer_than_one_may_be(monkeypatch):
    monkeypatch.setattr(limits, "REPLY_BYTES_MAX", 1_000)

    async def scene(server: ScriptedRedis) -> None:
        connection = RedisConnection(server.url())
        await connection.start()
        for _round in range(20):
            assert await ask(connection, b"ECHO", b"x" * 100) == b"x" * 100
        await connection.close()

    played(scene)


def test_more_bytes_in_flight_than_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "BYTES_IN_FLIGHT_MAX", 200)

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


def test_urls_are_taken_apart():
    tcp = parse_redis_url("rediss://me:p%2Fw@cache.example:7000/2?ssl_ca_certs=/ca.pem")
    assert (tcp.host, tcp.port, tcp.tls, tcp.username, tcp.password, tcp.database, tcp.ca_file) == (
        "cache.example",
        7000,
        True,
        "me",
        "p/w",
        2,
        "/ca.pem",
    )
    local = parse_redis_url("unix://:pw@/run/my%20redis.sock?db=4")
    assert (local.path, local.password, local.database, str(local)) == (
        "/run/my redis.sock",
        "pw",
        4,
        "unix:///run/my redis.sock",
    )
    assert str(parse_redis_url("redis://")) == "redis://localhost:6379"
    assert "pw" not in repr(local)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "unix://",
        "redis://h:99999",
        "redis://h:x",
        "redis://h/one",
        "redis://h/-1",
        "redis://h/65536",
        "redis://h?sslcert=1",
    ],
)
def test_what_is_no_redis_url_is_refused(url):
    with pytest.raises(ValueError, match="Redis URL"):
        parse_redis_url(url)
