"""Reads rows for every request of a process, many in one go."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

from feature_store.circuit_breaker import REFUSED, BreakerState, CircuitBreaker
from feature_store.errors import FeatureStoreUnavailable, PartlyUnread
from feature_store.near_cache import NearCache
from feature_store.read_timeouts import NOT_SENT, ReadTimeouts
from feature_store.redis_connection import OnRows

KEYS_PER_READ_MAX = 1_000
"""Keys of one read. Redis answers nobody else meanwhile, so that a longer one would be the others' latency."""

KEYS_IN_FLIGHT_MAX = 100_000
"""Distinct keys asked for and not yet answered; a fetch that would go beyond fails at once."""

READ_TIMEOUT_S = 0.05
"""How long a read may take: far above what Redis needs."""

BREAKERS_MAX = 1_000
"""Shards with a breaker of their own; those beyond share one."""

_Single = tuple[asyncio.Future[list[bytes | None]], bytes]


class Connection(Protocol):
    """What a reader needs of a connection to Redis; `RedisConnection` is one, and a test may have its own."""

    address: str

    @property
    def shard_of(self) -> Callable[[bytes], str] | None:
        """Which server has a key, where there are several: a read then has keys of one server only."""

    @property
    def connected(self) -> bool:
        """Whether a read would be sent."""

    async def start(self) -> None:
        """Connect, and stay connected."""

    async def close(self) -> None:
        """Disconnect; what waits fails."""

    def read(self, keys: Sequence[bytes], on_rows: OnRows) -> None:
        """Read the rows under `keys`; they come by callback, later. Raises FeatureStoreUnavailable if not sent."""


class OnlineReader:
    """Fetches rows by key. All keys asked for in one turn of the event loop, by any caller, go out as one read a shard.

    A key is sent once however many callers want it, also while an earlier read of it is in flight. There is no timer:
    an idle reader sends at the end of the turn. There is no task and no lock either: a fetch is one future.

    A read that takes longer than `read_timeout_s` fails, and its late rows are ignored; after a few failures in a row a
    shard's breaker lets no read pass but a probe now and then, so that callers of a store that hangs do not wait.
    clock: monotonic seconds. draw() → uniform in [0, 1).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        near_cache: NearCache | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._shard_of = connection.shard_of
        self._near_cache = near_cache
        self._clock = clock
        self._draw = draw
        self._loop: asyncio.AbstractEventLoop | None = None
        self._breakers: dict[str, CircuitBreaker] = {}
        self._gathered: list[_Read] = []
        self._filling: dict[str, _Read] = {}
        self._reads_by_key: dict[bytes, _Read] = {}
        self._timeouts = ReadTimeouts(read_timeout_s, self._reads_by_key.values(), self._timed_out)
        self.reads = 0
        """Reads sent."""
        self.reads_timed_out = 0
        """Reads that took longer than the time-out."""
        self.keys_read = 0
        """Keys sent to Redis."""
        self.keys_asked = 0
        """Keys that callers asked for; the difference is what coalescing saved."""

    @property
    def connected(self) -> bool:
        """Whether a fetch would reach Redis."""
        return self._connection.connected

    @property
    def breakers_open(self) -> int:
        """Shards that reads are kept from; there is one shard where Redis is no cluster."""
        return sum(breaker.state is not BreakerState.CLOSED for breaker in self._breakers.values())

    @property
    def breakers_opened(self) -> int:
        """Times that reads began to be kept from a shard."""
        return sum(breaker.opened for breaker in self._breakers.values())

    def allow(self, read_timeout_s: float) -> None:
        """Let reads that are sent from now on take this long."""
        self._timeouts.allow(read_timeout_s)

    async def start(self) -> None:
        """Connect. Returns even where Redis is away: a fetch then fails at once, until it is back."""
        self._loop = asyncio.get_running_loop()
        self._timeouts.start(self._loop)
        await self._connection.start()

    async def close(self) -> None:
        """Disconnect. Every fetch that still waits fails with FeatureStoreUnavailable."""
        self._send_gathered()
        await self._connection.close()
        self._timeouts.stop()

    def fetch(self, keys: Sequence[bytes], remember: Collection[bytes] = ()) -> asyncio.Future[list[bytes | None]]:
        """Read the rows under `keys`, in their order, duplicates allowed; None where there is no row.

        remember: those of the keys whose rows the near cache keeps.
        The future fails with FeatureStoreUnavailable, which is PartlyUnread where some of the rows were read. It is the
        caller's own: cancelling it touches nobody else.
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
            if remember:
                self._remember(remember)
            return future
        for key in keys:
            if key not in by_key:
                self._gather(key)
        if remember:
            self._remember(remember)
        sources = [by_key[key] for key in keys]
        reads = set(sources)
        fetch = _Fetch(future, keys, sources, len(reads))
        for read in reads:
            read.fetches.append(fetch)
        return future

    def _remember(self, keys: Collection[bytes]) -> None:
        for key in keys:
            read = self._reads_by_key[key]
            if read.remembered is None:
                read.remembered = set()
            read.remembered.add(key)

    def _gather(self, key: bytes) -> "_Read":
        shard = "" if self._shard_of is None else self._shard_of(key)
        read = self._filling.get(shard)
        if read is None or len(read.keys) >= KEYS_PER_READ_MAX:
            if not self._gathered:
                assert self._loop is not None
                self._loop.call_soon(self._send_gathered)
            read = self._filling[shard] = _Read(self._breakers.get(shard) or self._new_breaker(shard))
            self._gathered.append(read)
        read.keys.append(key)
        self._reads_by_key[key] = read
        return read

    def _new_breaker(self, shard: str) -> CircuitBreaker:
        name = shard if len(self._breakers) < BREAKERS_MAX else ""
        return self._breakers.setdefault(name, CircuitBreaker(self._draw))

    def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._filling.clear()
        now_s = self._clock()
        for read in gathered:
            breaker = read.breaker
            read.asked_at_s = now_s
            read.period = breaker.admit(now_s) if breaker.suspects else breaker.period
            if read.period == REFUSED:
                self._failed(read, self._unavailable("it did not answer lately, and will be tried again in a moment"))
                continue
            try:
                self._connection.read(read.keys, partial(self._arrived, read))
            except FeatureStoreUnavailable as error:
                breaker.withdrawn(read.period)
                self._failed(read, error)
                continue
            self.reads += 1
            self.keys_read += len(read.keys)
            self._timeouts.watch(read)

    def _arrived(self, read: "_Read", rows: list[bytes | None] | None, fault: FeatureStoreUnavailable | None) -> None:
        if read.ended:
            return  # too late: it has timed out
        if rows is None:
            read.breaker.failed(read.period, self._clock())
            self._failed(read, fault or self._unavailable("no answer"))
            return
        if read.breaker.suspects:
            read.breaker.succeeded(read.period)
        fetches, singles = self._ended(read)
        row_at = read.rows = dict(zip(read.keys, rows, strict=True))
        if self._near_cache is not None and read.remembered is not None:
            for key in read.remembered:
                self._near_cache.remember(key, row_at[key], read.asked_at_s)
        for future, key in singles:
            if not future.done():
                future.set_result([row_at[key]])
        for fetch in fetches:
            fetch.one_ended(None)

    def _timed_out(self, read: "_Read") -> None:
        self.reads_timed_out += 1
        read.breaker.failed(read.period, self._clock())
        self._failed(read, self._unavailable(f"no answer within {self._timeouts.timeout_s * 1000:g} ms"))

    def _failed(self, read: "_Read", fault: FeatureStoreUnavailable) -> None:
        fetches, singles = self._ended(read)
        for future, _ in singles:
            _fail(future, fault)
        for fetch in fetches:
            fetch.one_ended(fault)

    def _ended(self, read: "_Read") -> tuple[list["_Fetch"], list["_Single"]]:
        read.ended = True
        for key in read.keys:
            del self._reads_by_key[key]
        # Let go here: reads and fetches that held each other were garbage that only a collection of 160 ms could free.
        fetches, read.fetches = read.fetches, []
        singles, read.singles = read.singles, []
        return fetches, singles

    def _unavailable(self, reason: str) -> FeatureStoreUnavailable:
        return FeatureStoreUnavailable(self._connection.address, reason)


class _Read:
    """One read: gathering its keys, then in flight, then with its rows."""

    __slots__ = (
        "asked_at_s",
        "breaker",
        "ended",
        "fetches",
        "keys",
        "overdue_at_tick",
        "period",
        "remembered",
        "rows",
        "singles",
    )

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.keys: list[bytes] = []
        self.rows: dict[bytes, bytes | None] | None = None
        """None until they are there, which they never are where the read fails."""
        self.fetches: list[_Fetch] = []
        self.singles: list[_Single] = []
        """Fetches of one key, which most are: with nothing to count, they need no more than this."""
        self.remembered: set[bytes] | None = None
        self.asked_at_s = 0.0
        self.period = REFUSED
        self.overdue_at_tick = NOT_SENT
        self.ended = False


class _Fetch:
    """One caller's keys, each with the read that brings it; done when the last of these reads has ended."""

    __slots__ = ("_fault", "_future", "_keys", "_reads_left", "_sources")

    def __init__(
        self, future: asyncio.Future[list[bytes | None]], keys: Sequence[bytes], sources: list[_Read], reads: int
    ) -> None:
        self._future, self._keys, self._sources, self._reads_left = future, keys, sources, reads
        self._fault: FeatureStoreUnavailable | None = None

    def one_ended(self, fault: FeatureStoreUnavailable | None) -> None:
        self._fault = self._fault or fault
        self._reads_left -= 1
        if self._reads_left or self._future.done():
            return
        found = zip(self._sources, self._keys, strict=True)
        rows = [None if read.rows is None else read.rows[key] for read, key in found]
        if self._fault is None:
            self._future.set_result(rows)
            return
        unread = frozenset(place for place, read in enumerate(self._sources) if read.rows is None)
        if len(unread) == len(self._keys):
            _fail(self._future, self._fault)
        else:
            self._future.set_exception(PartlyUnread(self._fault.address, self._fault.reason, rows, unread))


def _fail(future: asyncio.Future[list[bytes | None]], fault: FeatureStoreUnavailable) -> None:
    if not future.done():
        # An exception of its own: one that is raised in many tasks gathers all of their tracebacks.
        future.set_exception(FeatureStoreUnavailable(fault.address, fault.reason))
