"""Ends requests whose time has run out.

asyncio.timeout arms and disarms a timer for each request, which on uvloop is a libuv handle made and closed: about a
tenth of what a request costs the gateway. Here entering and leaving are a dictionary's, and one timer for all looks
every TICK_S while there is anything to watch. A request can so be ended up to TICK_S late, never early.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

TICK_S: Final = 0.002


class Watched:
    """One task's deadline. `expired`: whether it was ended for it."""

    __slots__ = ("expired", "expires_at", "task")

    def __init__(self, task: asyncio.Task[Any], expires_at: float) -> None:
        self.task, self.expires_at = task, expires_at
        self.expired = False


class DeadlineWatch:
    """Cancels watched tasks when their time has come. clock: seconds, the one that deadlines are told by."""

    __slots__ = ("_clock", "_loop", "_ticking", "_watched")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Watched, None] = {}
        self._ticking = False

    def enter(self, expires_at: float) -> Watched:
        """Watch the running task from here until `leave`."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        watched = Watched(task, expires_at)
        self._watched[watched] = None
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)
        return watched

    def leave(self, watched: Watched) -> bool:
        """Stop watching. Returns whether the task was cancelled for its deadline, and takes that cancellation back."""
        self._watched.pop(watched, None)
        if watched.expired:
            watched.task.uncancel()
        return watched.expired

    def _tick(self) -> None:
        now = self._clock()
        for watched in [w for w in self._watched if w.expires_at <= now]:
            del self._watched[watched]
            watched.expired = True
            watched.task.cancel()
        if self._watched:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False
