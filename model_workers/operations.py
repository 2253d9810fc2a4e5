"""Loads and unloads, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from model_workers.errors import OperationsFull, ShuttingDown

OPERATIONS_WAITING_MAX: Final = 64
"""Loads and unloads that may wait for their turn: one runs at a time, so that at most one model more is in memory."""


class Operations:
    """Those that run or wait, on one event loop. `turn` is held by the one that runs."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Run an operation when its turn comes, to its end also where the caller is cancelled.

        Raises what it does, OperationsFull, ShuttingDown.
        """
        if len(self._tasks) >= OPERATIONS_WAITING_MAX:
            raise OperationsFull(OPERATIONS_WAITING_MAX)
        # A task of its own: a caller that hangs up must not leave a version half loaded.
        task = asyncio.create_task(self._in_turn(operation))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # and not its caller
                raise ShuttingDown from None
            raise

    def abort(self) -> None:
        """End whatever runs or waits. For the end of the process."""
        for task in self._tasks:
            task.cancel()

    async def _in_turn(self, operation: Callable[[], Awaitable[None]]) -> None:
        async with self.turn:
            await operation()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen here, also where its caller has gone
