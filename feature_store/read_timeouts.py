"""Ends reads that take too long."""

import asyncio
import sys
from collections.abc import Callable, ValuesView
from itertools import takewhile
from typing import Final, Generic, Protocol, TypeVar

TICK_S_MIN: Final = 0.002
TICK_S_MAX: Final = 0.005
"""Between two looks at the reads in flight: a tenth of the time-out, within these."""

TICKS_PER_READ_MIN: Final = 2
"""A read that is sent just before a tick has to live for a whole one."""

NOT_SENT: Final = sys.maxsize
"""A tick that does not come."""


class TimedRead(Protocol):
    """What is watched."""

    overdue_at_tick: int
    """NOT_SENT until `watch`."""


R = TypeVar("R", bound=TimedRead)


class ReadTimeouts(Generic[R]):
    """One timer for all reads in flight, and none while there are none. Calls `timed_out` with each that is too slow.

    in_flight: a live view of the reads that have not ended, the earliest first; a read may be there several times, and
    `timed_out` has to take it out. To queue them here instead cost 0.7 µs a read: what ended was kept for a tick, so
    that every read was made in memory that no cache held.

    Time is counted in ticks rather than read from a clock: where the event loop itself was held up, the answers are
    there and not yet read, and by a clock all of these reads would fail.
    """

    def __init__(self, timeout_s: float, in_flight: ValuesView[R], timed_out: Callable[[R], None]) -> None:
        self._in_flight, self._timed_out = in_flight, timed_out
        self._ticks = 0
        self.allow(timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, timeout_s: float) -> None:
        """Let reads that are sent from now on take this long."""
        self.timeout_s = timeout_s
        self._tick_s = min(max(timeout_s / 10, TICK_S_MIN), TICK_S_MAX)
        self._ticks_per_read = max(TICKS_PER_READ_MIN, int(timeout_s / self._tick_s))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use this loop's timers."""
        self._loop = loop

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def watch(self, read: R) -> None:
        """Have the read time out unless it has ended: between one tick before the time-out and the time-out."""
        read.overdue_at_tick = self._ticks + self._ticks_per_read
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        self._timer = None
        for read in dict.fromkeys(takewhile(self._is_overdue, self._in_flight)):
            self._timed_out(read)
        if self._in_flight and self._timer is None:
            self._arm()

    def _is_overdue(self, read: R) -> bool:
        return read.overdue_at_tick <= self._ticks
