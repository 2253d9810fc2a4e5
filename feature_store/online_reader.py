"""Reads rows for every request of a process, many in one go."""

import asyncio
from collections.abc import Sequence
from functools import partial
from types import NoneType
from typing import Any, Protocol

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_connection import OnReply, pack_command

KEYS_PER_READ_MAX = 1_000
"""Keys of one MGET. Redis answers nobody else meanwhile, so that a longer one would be the others' latency."""

KEYS_IN_FLIGHT_MAX = 100_000
"""Distinct keys asked for and not yet answered; a fetch that would go beyond fails at once."""

_ROW_TYPES = {bytes, NoneType}


class Connection(Protocol):
    """What a reader needs of a connection to Redis; `RedisConnection` is one, and a test may have its own."""

    address: str

    @property
    def connected(self) -> bool:
        """Whether a command would be sent."""

    async def start(self) -> None:
        """Connect, and stay connected."""

    async def close(self) -> None:
        """Disconnect; what waits fails."""

    def send(self, command: bytes, on_reply: OnReply) -> None:
        """Send one packed command; the reply comes by callback, later. Raises FeatureStoreUnavailable."""


class OnlineReader:
    """Fetches rows by key. All keys asked for in one turn of the event loop, by any caller, go out as one MGET.

    A key is sent once however many callers want it, also while an earlier read of it is in flight. There is no timer:
    an idle reader sends at the end of the turn. There is no task and no lock either: a fetch is one future.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathering: list[_Read] = []
        self._reads_by_key: dict[bytes, _Read] = {}
        self.reads = 0
        """MGETs sent."""
        self.keys_read = 0
        """Keys sent to Redis."""
        self.keys_asked = 0
        """Keys that callers asked for; the difference is what coalescing saved."""

    @property
    def connected(self) -> bool:
        """Whether a fetch would reach Redis."""
        return self._connection.connected

    async def start(self) -> None:
        """Connect. Returns even where Redis is away: a fetch then fails at once, until it is back."""
        self._loop = asyncio.get_running_loop()
        await self._connection.start()

    async def close(self) -> None:
        """Disconnect. Every fetch that still waits fails with FeatureStoreUnavailable."""
        self._send_gathered()
        await self._connection.close()

    def fetch(self, keys: Sequence[bytes]) -> asyncio.Future[list[bytes | None]]:
        """Read the rows under `keys`, in their order, duplicates allowed; None where there is no row.

        The future fails with FeatureStoreUnavailable. It is the caller's own: cancelling it touches nobody else.
        """
        if self._loop is None:
            raise RuntimeError("OnlineReader.start() was not called")
        future: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        by_key = self._reads_by_key
        if not keys:
            future.set_result([])
            return future
        if len(by_key) + len(keys) > KEYS_IN_FLIGHT_MAX:
            future.set_exception(self._unavailable(f"{len(by_key)} keys are in flight; {len(keys)} more are too many"))
            return future
        self.keys_asked += len(keys)
        if len(keys) == 1:
            key = keys[0]
            read = by_key.get(key) or self._gather(key)
            read.singles.append((future, key))
            return future
        for key in keys:
            if key not in by_key:
                self._gather(key)
        sources = [by_key[key] for key in keys]
        reads = set(sources)
        fetch = _Fetch(future, keys, sources, len(reads))
        for read in reads:
            read.fetches.append(fetch)
        return future

    def _gather(self, key: bytes) -> "_Read":
        gathering = self._gathering
        if not gathering:
            assert self._loop is not None
            self._loop.call_soon(self._send_gathered)
        if not gathering or len(gathering[-1].keys) >= KEYS_PER_READ_MAX:
            gathering.append(_Read())
        read = gathering[-1]
        read.keys.append(key)
        self._reads_by_key[key] = read
        return read

    def _send_gathered(self) -> None:
        gathered, self._gathering = self._gathering, []
        for read in gathered:
            self.reads += 1
            self.keys_read += len(read.keys)
            try:
                self._connection.send(pack_command(b"MGET", *read.keys), partial(self._arrived, read))
            except FeatureStoreUnavailable as error:
                self._arrived(read, None, error)

    def _arrived(self, read: "_Read", reply: Any, fault: FeatureStoreUnavailable | None) -> None:
        for key in read.keys:
            del self._reads_by_key[key]
        if fault is None and not _is_rows(reply, len(read.keys)):
            fault = self._unavailable("an answer to MGET that is no list of rows")
        # Let go here: reads and fetches that held each other were garbage that only a collection of 160 ms could free.
        fetches, read.fetches = read.fetches, []
        singles, read.singles = read.singles, []
        if fault is None:
            rows = read.rows = dict(zip(read.keys, reply, strict=True))
            for future, key in singles:
                if not future.done():
                    future.set_result([rows[key]])
            for fetch in fetches:
                fetch.one_arrived()
        else:
            for future, _ in singles:
                _fail(future, fault)
            for fetch in fetches:
                fetch.failed(fault)

    def _unavailable(self, reason: str) -> FeatureStoreUnavailable:
        return FeatureStoreUnavailable(self._connection.address, reason)


class _Read:
    """One MGET: gathering its keys, then in flight, then with its rows."""

    __slots__ = ("fetches", "keys", "rows", "singles")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.rows: dict[bytes, bytes | None] = {}
        self.fetches: list[_Fetch] = []
        self.singles: list[tuple[asyncio.Future[list[bytes | None]], bytes]] = []
        """Fetches of one key, which most are: with nothing to count, they need no more than this."""


class _Fetch:
    """One caller's keys, each with the read that brings it; done when the last of these reads has arrived."""

    __slots__ = ("_future", "_keys", "_reads_left", "_sources")

    def __init__(
        self, future: asyncio.Future[list[bytes | None]], keys: Sequence[bytes], sources: list[_Read], reads: int
    ) -> None:
        self._future, self._keys, self._sources, self._reads_left = future, keys, sources, reads

    def one_arrived(self) -> None:
        self._reads_left -= 1
        if self._reads_left == 0 and not self._future.done():
            self._future.set_result([read.rows[key] for read, key in zip(self._sources, self._keys, strict=True)])

    def failed(self, fault: FeatureStoreUnavailable) -> None:
        _fail(self._future, fault)


def _fail(future: asyncio.Future[list[bytes | None]], fault: FeatureStoreUnavailable) -> None:
    if not future.done():
        # An exception of its own: one that is raised in many tasks gathers all of their tracebacks.
        future.set_exception(FeatureStoreUnavailable(fault.address, fault.reason))


def _is_rows(reply: Any, count: int) -> bool:
    return isinstance(reply, list) and len(reply) == count and set(map(type, reply)) <= _ROW_TYPES
