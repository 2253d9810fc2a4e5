"""A connection to one Redis server, or to whichever is the master now, that keeps itself up."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Protocol

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import RedisAddress, parse_redis_url
from feature_store.redis_protocol import REPLY_TIMEOUT_S, OnReply, RedisProtocol, connect, pack_command
from feature_store.redis_replies import refuses_login, reply_code

RECONNECT_DELAY_MIN_S = 0.05
RECONNECT_DELAY_MAX_S = 2.0
"""Delays between attempts double from the least to the most, each shortened at random by up to a half."""

LOGIN_RETRY_DELAY_S = 5.0
"""Between attempts that are refused for who asks: that takes a person to mend, and each leaves a line in a log."""

LOADING_POLL_S = 0.1
"""Between two looks at a server that is still loading its data."""

OnRows = Callable[[list[bytes | None] | None, FeatureStoreUnavailable | None], None]
"""Called once per read, with a row or None for each key, in the order of the keys; or with None and why."""

_ROW_TYPES = {bytes, NoneType}
_OF_A_REPLICA = frozenset({"READONLY", "MASTERDOWN"})


class Server(Protocol):
    """Where to connect: always to the same place, or to whichever server is the master now."""

    recheck_s: float | None
    """How often to locate it again while connected; None: it never moves."""

    async def locate(self) -> RedisAddress:
        """Say where it is now. Raises FeatureStoreUnavailable."""

    async def confirm(self, protocol: RedisProtocol) -> None:
        """Raise FeatureStoreUnavailable if this connection leads to another server than was meant."""


class FixedServer:
    """A server that stays where it is."""

    recheck_s: float | None = None

    def __init__(self, address: RedisAddress) -> None:
        self._address = address

    def __str__(self) -> str:
        return str(self._address)

    async def locate(self) -> RedisAddress:
        """Say where it is."""
        return self._address

    async def confirm(self, protocol: RedisProtocol) -> None:
        """Take whoever answers there."""


class RedisConnection:
    """A connection that keeps itself up. Redis being away is told per command, at once, and never by `start`.

    server: a URL of one server, or what locates one. Raises ValueError for any other URL. An error reply (LOADING,
    READONLY, NOAUTH, MOVED…) comes back as FeatureStoreUnavailable with Redis's own text and what it means here.
    """

    shard_of: Callable[[bytes], str] | None = None
    """By key, which server has it, where there are several: their reads fail apart. None: one server has all."""

    def __init__(self, server: str | Server, *, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self._server = _fixed(server) if isinstance(server, str) else server
        self.address = str(self._server)
        """Where Redis is, without the password."""
        self.connected = False
        """Connected and logged in, so that a command would be sent."""
        self._reply_timeout_s = reply_timeout_s
        self._fault = "not connected yet"
        self._protocol: RedisProtocol | None = None
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Try to connect once, and keep trying in the background: returns even where Redis is away."""
        if self._task is not None:
            return
        self._tried.clear()
        self._task = asyncio.create_task(self._stay_connected(), name=f"redis {self.address}")
        await self._tried.wait()

    async def close(self) -> None:
        """Drop the connection; what still waits fails. A closed connection may be started again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._disconnected("closed")

    def send(self, command: bytes, on_reply: OnReply, replies: int = 1) -> None:
        """Send packed commands in one write. `on_reply` is called once per reply, later, never from within this call.

        Raises FeatureStoreUnavailable where there is no connection or too much is in flight.
        """
        if not self.connected or self._protocol is None:
            raise FeatureStoreUnavailable(self.address, self._fault)
        self._protocol.send(command, on_reply, replies)

    async def ask(self, *command: str) -> Any:
        """Send one command and wait for its reply. Raises FeatureStoreUnavailable."""
        if not self.connected or self._protocol is None:
            raise FeatureStoreUnavailable(self.address, self._fault)
        return await self._protocol.ask(*command)

    def read(self, keys: Sequence[bytes], on_rows: OnRows) -> None:
        """Read the rows under `keys`. `on_rows` is called exactly once, and later, never from within this call.

        Raises FeatureStoreUnavailable where there is no connection or too much is in flight.
        """
        count = len(keys)

        def on_reply(reply: Any, fault: FeatureStoreUnavailable | None) -> None:
            if fault is None and _is_rows(reply, count):
                on_rows(reply, None)
            else:
                self._refused(fault)
                no_rows = "an answer to MGET that is no list of rows"
                on_rows(None, fault or FeatureStoreUnavailable(self.address, no_rows))

        self.send(pack_command(b"MGET", *keys), on_reply)

    async def _stay_connected(self) -> None:
        clock = asyncio.get_running_loop().time
        delay_s = RECONNECT_DELAY_MIN_S
        while True:
            try:
                address, protocol = await self._connect()
            except FeatureStoreUnavailable as error:
                self._fault = error.reason
                self._tried.set()
                delay_s = await _paused(LOGIN_RETRY_DELAY_S if refuses_login(error.reason) else delay_s)
                continue
            connected_s = clock()
            self._use(protocol)
            self._disconnected(await self._until_lost(address, protocol))
            if clock() - connected_s > RECONNECT_DELAY_MAX_S:
                delay_s = RECONNECT_DELAY_MIN_S
            else:
                delay_s = await _paused(delay_s)  # or a server that lets everyone in and out again would be hammered

    async def _connect(self) -> tuple[RedisAddress, RedisProtocol]:
        address = await self._server.locate()
        protocol = await connect(address, self._on_lost, reply_timeout_s=self._reply_timeout_s)
        try:
            while fault := await _loading(protocol):
                self._fault = fault.reason
                self._tried.set()
                await asyncio.sleep(LOADING_POLL_S)
            await self._server.confirm(protocol)
        except BaseException:
            protocol.drop("not what was looked for")
            raise
        return address, protocol

    async def _until_lost(self, address: RedisAddress, protocol: RedisProtocol) -> str:
        """Wait for the end, moving meanwhile to wherever the server is. Says why it ended."""
        while True:
            await asyncio.wait({protocol.lost}, timeout=self._server.recheck_s)
            if protocol.lost.done():
                return protocol.lost.result()
            moved = await self._moved(address)
            if moved is not None:
                before, (address, protocol) = protocol, moved
                self._use(protocol)
                before.drop("another server is the master now")

    async def _moved(self, address: RedisAddress) -> tuple[RedisAddress, RedisProtocol] | None:
        try:
            return None if await self._server.locate() == address else await self._connect()
        except FeatureStoreUnavailable:
            return None  # whoever would know is away: what is connected serves on

    def _use(self, protocol: RedisProtocol) -> None:
        self._protocol, self.connected = protocol, True
        self._tried.set()

    def _refused(self, fault: FeatureStoreUnavailable | None) -> None:
        # The master was demoted under us: only a new connection finds out who is the master now.
        moves = self._server.recheck_s is not None
        if moves and fault is not None and reply_code(fault.reason) in _OF_A_REPLICA and self._protocol is not None:
            self._protocol.drop(fault.reason)

    def _on_lost(self, protocol: RedisProtocol, reason: str) -> None:
        if protocol is self._protocol:
            self._disconnected(reason)

    def _disconnected(self, reason: str) -> None:
        self.connected, self._fault = False, reason
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.drop(reason)


def _fixed(url: str) -> FixedServer:
    address = parse_redis_url(url)
    if not isinstance(address, RedisAddress):
        raise ValueError(f"{address} is more than one server: open_connection(url) connects to it")  # noqa: TRY004 - it is the text that is wrong
    return FixedServer(address)


async def _loading(protocol: RedisProtocol) -> FeatureStoreUnavailable | None:
    # A server that is loading its data accepts a login and then refuses every read: ask before serving.
    try:
        await protocol.ask("PING")
    except FeatureStoreUnavailable as error:
        if reply_code(error.reason) != "LOADING":
            raise
        return error
    return None


async def _paused(delay_s: float) -> float:
    """Wait about that long, and say how long to wait the next time."""
    await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
    return min(delay_s * 2, RECONNECT_DELAY_MAX_S)


def _is_rows(reply: Any, count: int) -> bool:
    return isinstance(reply, list) and len(reply) == count and set(map(type, reply)) <= _ROW_TYPES
