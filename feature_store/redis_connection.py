"""One persistent, pipelined connection to Redis: an asyncio Protocol over hiredis, with nothing between.

redis-py's asyncio client costs a task switch, a lock and several awaits per command; this costs one write and one
callback. Commands go out in the order of `send`, replies come back in the same order.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import parse_redis_url
from feature_store.row_layout import ROW_BYTES_MAX

CONNECT_TIMEOUT_S = 2.0
"""For connecting and logging in together."""

REPLY_TIMEOUT_S = 2.0
"""A connection with commands waiting and no reply for this long is dropped: Redis hangs, or the network is cut."""

RECONNECT_DELAY_MIN_S = 0.05
RECONNECT_DELAY_MAX_S = 2.0
"""Delays between attempts double from the least to the most, each shortened at random by up to a half."""

BYTES_IN_FLIGHT_MAX = 16 * 1024 * 1024
"""Bytes of commands sent and not yet answered; more is refused rather than queued."""

REPLY_BYTES_MAX = 1_000 * (ROW_BYTES_MAX + 32)
"""Bytes of one unfinished reply: a full MGET of the largest rows. A longer one is no answer to what is asked here."""

OnReply = Callable[[Any, FeatureStoreUnavailable | None], None]
"""Called once per command, with the reply, or with None and why there is none."""

_INCOMPLETE = object()


def pack_command(*parts: bytes | str) -> bytes:
    """Encode one command as Redis wants it."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of exactly one
    return packed


class RedisConnection:
    """A connection that keeps itself up. Redis being away is told per command, at once, and never by `start`.

    Raises ValueError for a URL that is none. An error reply (LOADING, READONLY, NOAUTH, MOVED…) comes back as
    FeatureStoreUnavailable with Redis's own text.
    """

    def __init__(self, url: str, *, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self._address = parse_redis_url(url)
        self.address = str(self._address)
        """Where Redis is, without the password."""
        self.connected = False
        """Connected and logged in, so that a command would be sent."""
        self._reply_timeout_s = reply_timeout_s
        self._fault = "not connected yet"
        self._protocol: _RedisProtocol | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Try to connect once, and keep trying in the background: returns even where Redis is away."""
        if self._task is not None:
            return
        tried = asyncio.Event()
        self._task = asyncio.create_task(self._stay_connected(tried), name=f"redis {self.address}")
        await tried.wait()

    async def close(self) -> None:
        """Drop the connection; what still waits fails. A closed connection may be started again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._disconnected("closed")

    def send(self, command: bytes, on_reply: OnReply) -> None:
        """Send one packed command. `on_reply` is called exactly once, and later, never from within this call.

        Raises FeatureStoreUnavailable where there is no connection or too much is in flight.
        """
        if not self.connected or self._protocol is None:
            raise FeatureStoreUnavailable(self.address, self._fault)
        self._protocol.send(command, on_reply)

    async def _stay_connected(self, tried: asyncio.Event) -> None:
        delay_s = RECONNECT_DELAY_MIN_S
        while True:
            try:
                protocol = await self._connect()
            except (OSError, UnicodeError, FeatureStoreUnavailable) as error:  # UnicodeError: a host name's
                self._fault = _reason(error)
                tried.set()
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects, no secret
                delay_s = min(delay_s * 2, RECONNECT_DELAY_MAX_S)
                continue
            delay_s = RECONNECT_DELAY_MIN_S
            self._protocol, self.connected = protocol, True
            tried.set()
            self._disconnected(await asyncio.shield(protocol.lost))  # or `close` would cancel it, and `drop` do nothing

    async def _connect(self) -> "_RedisProtocol":
        loop, address = asyncio.get_running_loop(), self._address

        def protocol() -> _RedisProtocol:
            return _RedisProtocol(self.address, self._on_lost, self._reply_timeout_s)

        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if address.path:
                transport, made = await loop.create_unix_connection(protocol, address.path)
            else:
                # asyncio and uvloop both set TCP_NODELAY on every TCP transport, so that no command waits for an ACK.
                transport, made = await loop.create_connection(
                    protocol, address.host, address.port, ssl=address.ssl_context()
                )
            try:
                for command in self._login():
                    await made.ask(command)
            except BaseException:
                transport.abort()
                raise
        return made

    def _login(self) -> list[tuple[str, ...]]:
        commands: list[tuple[str, ...]] = []
        if self._address.password is not None:
            user = (self._address.username,) if self._address.username else ()
            commands.append(("AUTH", *user, self._address.password))
        if self._address.database:
            commands.append(("SELECT", str(self._address.database)))
        # A server that is loading its data accepts AUTH and SELECT and then refuses every read: ask before serving.
        return [*commands, ("PING",)]

    def _on_lost(self, protocol: "_RedisProtocol", reason: str) -> None:
        if protocol is self._protocol:
            self._disconnected(reason)

    def _disconnected(self, reason: str) -> None:
        self.connected, self._fault = False, reason
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.drop(reason)


class _RedisProtocol(asyncio.Protocol):
    """One connection's life: a queue of commands waiting for replies, and the end, at which all of them fail."""

    def __init__(self, address: str, on_lost: Callable[["_RedisProtocol", str], None], reply_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._address, self._on_lost, self._reply_timeout_s = address, on_lost, reply_timeout_s
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._waiting: deque[tuple[OnReply, int]] = deque()
        self._bytes_in_flight = 0
        self._unfinished_bytes = 0
        self._replies = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def send(self, command: bytes, on_reply: OnReply) -> None:
        if self._transport is None or self.lost.done():
            raise FeatureStoreUnavailable(self._address, "connection lost")
        if self._bytes_in_flight + len(command) > BYTES_IN_FLIGHT_MAX:
            raise FeatureStoreUnavailable(self._address, f"{self._bytes_in_flight} bytes of commands are in flight")
        self._bytes_in_flight += len(command)
        self._waiting.append((on_reply, len(command)))
        self._transport.write(command)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._reply_timeout_s, self._look_for_progress, self._replies)

    async def ask(self, command: tuple[str, ...]) -> Any:
        """Send one command and wait for its reply. Raises FeatureStoreUnavailable."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def on_reply(reply: Any, fault: FeatureStoreUnavailable | None) -> None:
            if answer.done():
                return
            if fault is None:
                answer.set_result(reply)
            else:
                answer.set_exception(fault)

        self.send(pack_command(*command), on_reply)
        return await answer

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._unfinished_bytes = 0
                self._answer(reply)
        except hiredis.HiredisError as error:
            self.drop(f"not the Redis protocol: {error}")
        if self._unfinished_bytes > REPLY_BYTES_MAX:
            self.drop(f"a reply of more than {REPLY_BYTES_MAX} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        self.drop(_reason(error) if error else "connection closed by Redis")

    def drop(self, reason: str) -> None:
        """End this connection and fail everything that waits. Only the first call does anything."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._on_lost(self, reason)
        waiting, self._waiting = self._waiting, deque()
        for on_reply, _size in waiting:
            on_reply(None, FeatureStoreUnavailable(self._address, reason))

    def _answer(self, reply: Any) -> None:
        if not self._waiting:
            self.drop("a reply to nothing that was asked")
            return
        on_reply, size = self._waiting.popleft()
        self._bytes_in_flight -= size
        self._replies += 1
        if isinstance(reply, hiredis.ReplyError):
            on_reply(None, FeatureStoreUnavailable(self._address, str(reply)))
        else:
            on_reply(reply, None)

    def _look_for_progress(self, replies_before: int) -> None:
        # One timer per connection, not per command: a command is thus dropped after one to two timeouts.
        self._watchdog = None
        if not self._waiting:
            return
        if self._replies == replies_before:
            self.drop(f"no reply for {self._reply_timeout_s:g} s")
        else:
            self._watchdog = self._loop.call_later(self._reply_timeout_s, self._look_for_progress, self._replies)


def _reason(error: BaseException) -> str:
    if isinstance(error, FeatureStoreUnavailable):
        return error.reason
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    return str(error) or type(error).__name__
