import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import pytest

from feature_store import FeatureStoreUnavailable, OnlineReader
from feature_store.online_reader import KEYS_IN_FLIGHT_MAX, KEYS_PER_READ_MAX
from feature_store.redis_connection import OnReply


class HeldConnection:
    """A connection that keeps commands until the test answers them."""

    def __init__(self) -> None:
        self.address = "redis://held"
        self.connected = True
        self.commands: list[tuple[list[bytes], OnReply]] = []

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.connected = False
        while self.commands:
            self.fail("closed")

    def send(self, command: bytes, on_reply: OnReply) -> None:
        if not self.connected:
            raise FeatureStoreUnavailable(self.address, "away")
        reader = hiredis.Reader()
        reader.feed(command)
        verb, *keys = reader.gets()
        assert verb == b"MGET"
        self.commands.append((keys, on_reply))

    def answer(self, reply: Any = None) -> None:
        keys, on_reply = self.commands.pop(0)
        on_reply([b"row of " + key for key in keys] if reply is None else reply, None)

    def fail(self, reason: str) -> None:
        self.commands.pop(0)[1](None, FeatureStoreUnavailable(self.address, reason))

    @property
    def sent(self) -> list[list[bytes]]:
        return [keys for keys, _on_reply in self.commands]


def played(scene: Callable[[OnlineReader, HeldConnection], Awaitable[None]]) -> None:
    async def play() -> None:
        connection = HeldConnection()
        reader = OnlineReader(connection)
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
        both = reader.fetch([b"a", b"b"])
        await turn()
        connection.fail("LOADING Redis is loading the dataset in memory")
        connection.answer()
        assert await second == [b"row of b"]
        errors = [future.exception() for future in (first, both)]
        assert [str(error) for error in errors] == [
            "Redis at redis://held: LOADING Redis is loading the dataset in memory"
        ] * 2
        assert errors[0] is not errors[1]

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


@pytest.mark.parametrize("reply", [b"OK", [], [b"x", b"y"], [7], [[b"x"]], [hiredis.ReplyError("WRONG")]])
def test_an_answer_that_is_no_list_of_rows_fails_the_fetch(reply):
    async def scene(reader: OnlineReader, connection: HeldConnection) -> None:
        fetched = reader.fetch([b"a"])
        await turn()
        connection.answer(reply)
        with pytest.raises(FeatureStoreUnavailable, match="no list of rows"):
            await fetched

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
        for n in range(10):
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
