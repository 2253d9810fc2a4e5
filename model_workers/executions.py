"""Where executions run: short ones at once on the event loop, all others on threads beside it."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

Work = Callable[[], Any]
Done = Callable[[Any], None]

INLINE_US_MAX: Final = 500
"""Executions expected to take at most this long run on the event loop. Handing one to a thread and its outcome back
costs 20 to 60 µs in wake-ups when the loop is idle, and far more in waits for the interpreter's lock when it is busy
(docs/open-inference-protocol.md has the measurement); a lone row of a tree model takes 10. Nobody waits longer for the
loop than for some tens of requests to parse."""


class Executions:
    """Runs `work` here or on one of its threads, then calls `done(outcome)` on the event loop. `work` must not raise.

    threads: plain ones over a SimpleQueue, which has one lock in C each way; `run_in_executor` makes two futures and a
        work item of each execution.
    inline_rows_max: executions of at most so many rows are short. 0: none is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int, inline_rows_max: int, name: str) -> None:
        self._loop, self._inline_rows_max = loop, inline_rows_max
        self._jobs: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        # Daemons: an execution that never returns must not keep a process from its exit.
        self._threads = [Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def start(self, work: Work, rows: int, done: Done) -> None:
        """Begin one execution of so many rows. Call it from the event loop."""
        if rows <= self._inline_rows_max:
            done(work())
        else:
            self._jobs.put((work, done))

    def stop(self) -> None:
        """End each thread after what it was given. Does not wait."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            outcome = work()
            try:
                self._loop.call_soon_threadsafe(done, outcome)
            except RuntimeError:
                return  # the loop has closed: nobody waits for an answer any more
