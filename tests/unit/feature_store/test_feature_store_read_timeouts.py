from collections.abc import Callable
from typing import Any

import pytest

from feature_store.read_timeouts import NOT_SENT, ReadTimeouts


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Timers that the test fires."""

    def __init__(self) -> None:
        self.armed: list[tuple[float, Callable[[], None], Timer]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer()
        self.armed.append((delay_s, callback, timer))
        return timer

    def fire(self) -> float:
        assert len(self.armed) == 1, "one timer for all"
        delay_s, callback, _timer = self.armed.pop()
        callback()
        return delay_s


class Read:
    overdue_at_tick = NOT_SENT


class Scene:
    """Reads in flight, each under two keys."""

    def __init__(self, timeout_s: float) -> None:
        self.in_flight: dict[tuple[Read, int], Read] = {}
        self.timed_out: list[Read] = []
        self.loop: Any = Loop()
        self.timeouts: ReadTimeouts[Read] = ReadTimeouts(timeout_s, self.in_flight.values(), self._too_slow)
        self.timeouts.start(self.loop)

    def gathered(self) -> Read:
        read = Read()
        self.in_flight |= {(read, 0): read, (read, 1): read}
        return read

    def sent(self) -> Read:
        read = self.gathered()
        self.timeouts.watch(read)
        return read

    def end(self, read: Read) -> None:
        del self.in_flight[read, 0], self.in_flight[read, 1]

    def _too_slow(self, read: Read) -> None:
        self.end(read)
        self.timed_out.append(read)


@pytest.mark.parametrize("timeout_s", [0.004, 0.01, 0.05, 0.5])
def test_a_read_times_out_no_later_than_its_time_out_and_at_most_a_tick_before(timeout_s):
    scene = Scene(timeout_s)
    read, waited_s = scene.sent(), 0.0
    while not scene.timed_out:
        waited_s += scene.loop.fire()
    assert waited_s == pytest.approx(timeout_s, abs=0.005)
    assert waited_s <= timeout_s + 1e-9
    assert scene.timed_out == [read]


def test_a_read_sent_just_before_a_tick_has_at_least_one_whole_tick():
    scene = Scene(0.001)
    scene.sent()
    late = scene.sent()
    scene.loop.fire()
    assert late not in scene.timed_out


def test_there_is_one_timer_while_reads_are_in_flight_and_none_after():
    scene = Scene(0.05)
    assert scene.loop.armed == []
    first, second = scene.sent(), scene.sent()
    scene.loop.fire()
    scene.end(first)
    scene.loop.fire()
    scene.end(second)
    scene.loop.fire()
    assert scene.loop.armed == []
    assert scene.timed_out == []
    scene.sent()
    assert len(scene.loop.armed) == 1


def test_reads_time_out_in_the_order_they_were_sent_and_each_once():
    scene = Scene(0.05)
    first = scene.sent()
    scene.loop.fire()
    second = scene.sent()
    for _tick in range(9):
        scene.loop.fire()
    assert scene.timed_out == [first]
    scene.loop.fire()
    assert scene.timed_out == [first, second]
    assert scene.loop.armed == []


def test_a_read_that_is_not_sent_yet_does_not_time_out():
    scene = Scene(0.004)
    first, waits = scene.sent(), scene.gathered()
    for _tick in range(5):
        scene.loop.fire()
    assert scene.timed_out == [first]
    scene.timeouts.watch(waits)
    while scene.loop.armed:
        scene.loop.fire()
    assert scene.timed_out == [first, waits]


def test_a_read_sent_from_within_a_time_out_is_watched_too():
    scene = Scene(0.004)

    def too_slow(read: Read) -> None:
        scene.end(read)
        scene.timed_out.append(read)
        if len(scene.timed_out) == 1:
            scene.gathered()
            scene.timeouts.watch(next(iter(scene.in_flight.values())))

    scene.timeouts._timed_out = too_slow
    scene.sent()
    while scene.loop.armed:
        scene.loop.fire()
    assert len(scene.timed_out) == 2


def test_another_time_out_holds_for_reads_sent_from_then_on():
    scene = Scene(0.05)
    scene.timeouts.allow(0.01)
    read, waited_s = scene.sent(), 0.0
    while not scene.timed_out:
        waited_s += scene.loop.fire()
    assert scene.timed_out == [read]
    assert waited_s == pytest.approx(0.01)


def test_stopping_cancels_the_timer():
    scene = Scene(0.05)
    scene.sent()
    scene.timeouts.stop()
    assert scene.loop.armed[0][2].cancelled
    scene.timeouts.stop()
