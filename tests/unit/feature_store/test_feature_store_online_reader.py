import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from feature_store import FeatureStoreUnavailable, NearCache, OnlineReader, PartlyUnread
from feature_store.circuit_breaker import FAILURES_TO_OPEN, OPEN_S_MAX, OPEN_S_MIN
from feature_store.online_reader import KEYS_IN_FLIGHT_MAX, KEYS_PER_READ_MAX
from feature_store.redis_connection import OnRows


class HeldConnection:
    """A connection that keeps reads until the test answers them."""

    def __init__(self, shard_of: Callable[[bytes], str] | None = None) -> None:
        self.address = "redis://held"
        self.shard_of = shard_of
        self.connected = True
        self.reads: list[tuple[list[bytes], OnRows]] = []

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.connected = False
        while self.reads:
            self.fail("closed")

    def read(self, keys: Sequence[bytes], on_rows: OnRows) -> None:
        if not self.connected:
            raise FeatureStoreUnavailable(self.address, "away")
        self.reads.append((list(keys), on_rows))

    def answer(self, rows: list[bytes | None] | None = None) -> None:
        keys, on_rows = self.reads.pop(0)
        on_rows([b"row of " + key for key in keys] if rows is None else rows, None)

    def fail(self, reason: str) -> None:
        self.reads.pop(0)[1](None, FeatureStoreUnavailable(self.address, reason))

    @property
    def sent(self) -> list[list[bytes]]:
        return [keys for keys, _on_rows in self.reads]


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def played(
    scene: Callable[[OnlineReader, HeldConnection], Awaitable[None]],
    shard_of: Callable[[bytes], str] | None = None,
    **settings: Any,
) -> None:
    async def play() -> None:
        connection = HeldConnection(shard_of)
        reader = OnlineReader(connection, **settings)
        await reader.start()
        await scene(reader, connection)

    asyncio.run(play())


async def turn() -> None:
    await asyncio.sleep(0)


def test_all_keys_of_one_turn_go_out_as_one_read_without_duplicates():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        first, second = reader.fetch([b"a", b"b", b"a"]), reader.fetch([b"b", b"c"])
        assert connection.sent == []
        await turn()
        assert connection.sent == [[b"a", b"b", b"c"]]
        connection.answer()
        assert await first == [b"row of a", b"row of b", b"row of a"]
        assert await second == [b"row of b", b"row of c"]
        assert (reader.reads, reader.keys_read, reader.keys_asked) == (1, 3, 5)

    played(scene)


def test_a_key_in_flight_is_not_asked_for_again_but_an_answered_one_is():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        first = reader.fetch([b"a"])
        await turn()
        joined = reader.fetch([b"a", b"b"])
        await turn()
        assert connection.sent == [[b"a"], [b"b"]]
        connection.answer()
        assert (first.done(), joined.done()) == (True, False)
        connection.answer()
        assert await joined == [b"row of a", b"row of b"]
        reader.fetch([b"a"]).cancel()
        await turn()
        assert connection.sent == [[b"a"]]

    played(scene)


def test_a_read_has_no_more_keys_than_its_limit():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        keys = [b"%d" % index for index in range(2 * KEYS_PER_READ_MAX + 1)]
        fetched = reader.fetch(keys)
        await turn()
        assert [len(sent) for sent in connection.sent] == [KEYS_PER_READ_MAX, KEYS_PER_READ_MAX, 1]
        for _read in range(3):
            connection.answer()
        assert await fetched == [b"row of " + key for key in keys]

    played(scene)


def test_a_cancelled_caller_touches_nobody_else():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        gone, stays = reader.fetch([b"a", b"b"]), reader.fetch([b"b"])
        gone.cancel()
        await turn()
        connection.answer()
        assert await stays == [b"row of b"]

    played(scene)


def test_a_failed_read_fails_each_of_its_callers_with_an_error_of_its_own_and_no_other():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        first = reader.fetch([b"a"])
        await turn()
        second = reader.fetch([b"b"])
        again = reader.fetch([b"a", b"a"])
        await turn()
        connection.fail("LOADING Redis is loading the dataset in memory")
        connection.answer()
        assert await second == [b"row of b"]
        errors = [future.exception() for future in (first, again)]
        assert [str(error) for error in errors] == [
            "Redis at redis://held: LOADING Redis is loading the dataset in memory"
        ] * 2
        assert errors[0] is not errors[1]

    played(scene)


def test_a_caller_some_of_whose_rows_were_not_read_is_told_which_and_given_the_others():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        reader.fetch([b"a"]).add_done_callback(lambda future: future.exception())
        await turn()
        both = reader.fetch([b"b", b"a", b"c"])
        await turn()
        connection.fail("connection reset")
        assert not both.done()
        connection.answer()
        with pytest.raises(PartlyUnread, match="connection reset") as caught:
            await both
        assert caught.value.rows == [b"row of b", None, b"row of c"]
        assert caught.value.unread == {1}

    played(scene)


def test_without_a_connection_a_fetch_fails_at_once_and_the_next_one_is_sent_anew():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        connection.connected = False
        assert not reader.connected
        lost = reader.fetch([b"a"])
        with pytest.raises(FeatureStoreUnavailable, match="away"):
            await lost
        connection.connected = True
        found = reader.fetch([b"a"])
        await turn()
        connection.answer()
        assert await found == [b"row of a"]

    played(scene)


def test_no_row_is_none_and_no_keys_are_no_rows():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        assert await reader.fetch([]) == []
        fetched = reader.fetch([b"a"])
        await turn()
        connection.answer([None])
        assert await fetched == [None]

    played(scene)


def test_more_keys_in_flight_than_the_limit_are_refused_at_once():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        many = reader.fetch([b"%d" % index for index in range(KEYS_IN_FLIGHT_MAX)])
        with pytest.raises(FeatureStoreUnavailable, match="too many"):
            await reader.fetch([b"one more"])
        await reader.close()
        with pytest.raises(FeatureStoreUnavailable, match="closed"):
            await many

    played(scene)


def test_closing_fails_what_was_gathered_and_not_yet_sent():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        fetched = reader.fetch([b"a"])
        await reader.close()
        with pytest.raises(FeatureStoreUnavailable, match="closed"):
            await fetched

    played(scene)


def test_a_reader_that_was_not_started_says_so():
    with pytest.raises(RuntimeError, match="start"):
        OnlineReader(HeldConnection()).fetch([b"a"])


@pytest.mark.parametrize("fails", [False, True])
def test_a_fetch_leaves_nothing_behind_for_the_collector(fails):
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        gc.collect()
        gc.disable()
        for n in range(FAILURES_TO_OPEN - 1):
            fetched = [reader.fetch([b"a", b"%d" % n]), reader.fetch([b"a"])]
            await turn()
            connection.fail("away") if fails else connection.answer()
            await asyncio.gather(*fetched, return_exceptions=True)
        del fetched
        await turn()
        found = gc.collect()
        gc.enable()
        assert found == 0

    played(scene)


async def failed(reader: OnlineReader, connection: HeldConnection, times: int) -> None:
    for _failure in range(times):
        fetched = reader.fetch([b"a"])
        await turn()
        connection.fail("connection reset")
        with pytest.raises(FeatureStoreUnavailable):
            await fetched


def test_a_read_without_an_answer_times_out_and_its_late_rows_are_ignored():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        late = reader.fetch([b"a"], [b"a"])
        with pytest.raises(FeatureStoreUnavailable, match="no answer within 4 ms"):
            await late
        again = reader.fetch([b"a"])
        await turn()
        assert connection.sent == [[b"a"], [b"a"]]
        connection.answer([b"late"])
        assert not again.done()
        connection.answer([b"in time"])
        assert await again == [b"in time"]
        assert (reader.reads_timed_out, len(cache)) == (1, 0)

    cache = NearCache()
    played(scene, read_timeout_s=0.004, near_cache=cache)


def test_a_store_that_does_not_answer_is_left_alone_but_for_one_probe_at_a_time():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        await failed(reader, connection, FAILURES_TO_OPEN)
        assert (reader.breakers_open, reader.breakers_opened) == (1, 1)
        with pytest.raises(FeatureStoreUnavailable, match="did not answer lately"):
            await reader.fetch([b"a"])
        clock.now_s += OPEN_S_MIN
        probe = reader.fetch([b"a"])
        await turn()
        with pytest.raises(FeatureStoreUnavailable, match="did not answer lately"):
            await reader.fetch([b"b"])
        assert connection.sent == [[b"a"]]
        connection.answer()
        assert await probe == [b"row of a"]
        assert reader.breakers_open == 0
        after = reader.fetch([b"b"])
        await turn()
        connection.answer()
        assert await after == [b"row of b"]

    clock = Clock()
    played(scene, clock=clock, draw=lambda: 0.0)


def test_a_probe_that_could_not_be_sent_does_not_put_off_the_next_one():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        await failed(reader, connection, FAILURES_TO_OPEN)
        clock.now_s += OPEN_S_MAX
        connection.connected = False
        for _attempt in range(20):
            with pytest.raises(FeatureStoreUnavailable, match="away"):
                await reader.fetch([b"a"])
        connection.connected = True
        probe = reader.fetch([b"a"])
        await turn()
        connection.answer()
        assert await probe == [b"row of a"]

    clock = Clock()
    played(scene, clock=clock)


def test_a_read_has_keys_of_one_shard_and_one_that_fails_does_not_keep_reads_from_another():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        for _failure in range(FAILURES_TO_OPEN):
            fetched = reader.fetch([b"a1", b"b1", b"a2"])
            await turn()
            assert connection.sent == [[b"a1", b"a2"], [b"b1"]]
            connection.fail("connection reset")
            connection.answer()
            with pytest.raises(PartlyUnread) as caught:
                await fetched
            assert caught.value.rows == [None, b"row of b1", None]
        assert (reader.breakers_open, reader.breakers_opened) == (1, 1)
        healthy, broken = reader.fetch([b"b1"]), reader.fetch([b"a1"])
        await turn()
        connection.answer()
        assert await healthy == [b"row of b1"]
        with pytest.raises(FeatureStoreUnavailable, match="did not answer lately"):
            await broken

    played(scene, lambda key: key[:1].decode(), clock=Clock())


def test_rows_to_remember_are_remembered_as_of_when_they_were_asked_for_and_no_others():
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        several, single = reader.fetch([b"a", b"b", b"c"], [b"a", b"b"]), reader.fetch([b"d"], [b"d"])
        await turn()
        clock.now_s += 7.0
        joined = reader.fetch([b"c"], [b"c"])
        connection.answer([b"row", None, b"row", b"row"])
        await asyncio.gather(several, single, joined)
        assert [(cache.fresh(key, 100.0) is not None) for key in (b"a", b"b", b"c", b"d")] == [True] * 4
        assert cache.fresh(b"a", 100.001) is None
        assert cache.stale(b"b", 0.0) is None
        other = reader.fetch([b"e"])
        await turn()
        connection.answer()
        await other
        assert len(cache) == 4

    cache, clock = NearCache(), Clock()
    played(scene, near_cache=cache, clock=clock)
