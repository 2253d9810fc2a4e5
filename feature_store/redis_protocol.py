"""One socket to Redis: an asyncio Protocol over hiredis, with nothing between.

redis-py's asyncio client costs a task switch, a lock and several awaits per command; this costs one write and one
callback. Commands go out in the order of `send`, replies come back in the same order.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import RedisAddress
from feature_store.redis_replies import advised
from feature_store.row_layout import ROW_BYTES_MAX

CONNECT_TIMEOUT_S = 2.0
"""For connecting and logging in together."""

REPLY_TIMEOUT_S = 2.0
"""A connection with commands waiting and no reply for this long is dropped: Redis hangs, or the network is cut."""

BYTES_IN_FLIGHT_MAX = 16 * 1024 * 1024
"""Bytes of commands sent and not yet answered; more is refused rather than queued."""

REPLY_BYTES_MAX = 1_000 * (ROW_BYTES_MAX + 32)
"""Bytes of one unfinished reply: a full MGET of the largest rows. A longer one is no answer to what is asked here."""

OnReply = Callable[[Any, FeatureStoreUnavailable | None], None]
"""Called once per reply, with the reply, or with None and why there is none."""

_INCOMPLETE = object()


def pack_command(*parts: bytes | str) -> bytes:
    """Encode one command as Redis wants it."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of exactly one
    return packed


async def connect(
    address: RedisAddress,
    on_lost: Callable[["RedisProtocol", str], None],
    *,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    reply_timeout_s: float = REPLY_TIMEOUT_S,
) -> "RedisProtocol":
    """Connect to one server and log in. Files of TLS are read anew each time, so that they may be replaced.

    Raises FeatureStoreUnavailable, with the server's own words where it refuses.
    """
    loop = asyncio.get_running_loop()

    def protocol() -> RedisProtocol:
        return RedisProtocol(str(address), on_lost, reply_timeout_s)

    try:
        async with asyncio.timeout(connect_timeout_s):
            if address.path:
                transport, made = await loop.create_unix_connection(protocol, address.path)
            else:
                # asyncio and uvloop both set TCP_NODELAY on every TCP transport, so that no command waits for an ACK.
                transport, made = await loop.create_connection(
                    protocol, address.host, address.port, ssl=address.ssl_context()
                )
            try:
                for command in _login(address):
                    await made.ask(*command)
            except BaseException:
                transport.abort()
                raise
    except TimeoutError as error:
        raise FeatureStoreUnavailable(str(address), f"no connection within {connect_timeout_s:g} s") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name's
        raise FeatureStoreUnavailable(str(address), reason(error)) from error
    return made


async def ask_once(address: RedisAddress, *command: str, timeout_s: float) -> Any:
    """Connect, ask one thing, and disconnect. Raises FeatureStoreUnavailable."""
    try:
        async with asyncio.timeout(timeout_s):
            protocol = await connect(address, lambda _protocol, _reason: None)
            try:
                return await protocol.ask(*command)
            finally:
                protocol.drop("asked")
    except TimeoutError as error:
        raise FeatureStoreUnavailable(str(address), f"no answer within {timeout_s:g} s") from error


def _login(address: RedisAddress) -> list[tuple[str, ...]]:
    commands: list[tuple[str, ...]] = []
    if address.password is not None:
        user = (address.username,) if address.username else ()
        commands.append(("AUTH", *user, address.password))
    if address.database:
        commands.append(("SELECT", str(address.database)))
    return commands


class RedisProtocol(asyncio.Protocol):
    """One connection's life: a queue of commands waiting for replies, and the end, at which all of them fail."""

    def __init__(self, address: str, on_lost: Callable[["RedisProtocol", str], None], reply_timeout_s: float) -> None:
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
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def send(self, command: bytes, on_reply: OnReply, replies: int = 1) -> None:
        """Send what is packed, in one write. `on_reply` is called once for each of the `replies`, and never from here.

        Raises FeatureStoreUnavailable where the connection is lost or too much is in flight.
        """
        if self._transport is None or self.lost.done():
            raise FeatureStoreUnavailable(self._address, "connection lost")
        if self._bytes_in_flight + len(command) > BYTES_IN_FLIGHT_MAX:
            raise FeatureStoreUnavailable(self._address, f"{self._bytes_in_flight} bytes of commands are in flight")
        self._bytes_in_flight += len(command)
        for _reply in range(replies - 1):
            self._waiting.append((on_reply, 0))
        self._waiting.append((on_reply, len(command)))
        self._transport.write(command)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._reply_timeout_s, self._look_for_progress, self._replies)

    async def ask(self, *command: str) -> Any:
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
        """Hand each whole reply to the command that it answers."""
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
        """End."""
        self.drop(reason(error) if error else "connection closed by Redis")

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
            on_reply(None, FeatureStoreUnavailable(self._address, advised(str(reply))))
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


def reason(error: BaseException) -> str:
    """Say what went wrong, in a few words."""
    return str(error) or type(error).__name__
