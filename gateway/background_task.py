"""Tasks that nobody awaits, whose faults must not go unheard."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

CANCEL_AGAIN_S: Final = 0.005

logger = logging.getLogger(__name__)


def in_background(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """Run as a task that logs the fault by which it ends, if it ends by one."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)
    return task


async def end_tasks(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks, as often as it takes, and wait until they have ended.

    Once may not do: on Python 3.11 `asyncio.wait_for` loses a cancellation that comes in the moment in which what it
    waits for is done (gh-86296), and redis-py sends every command through it.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        logger.error("a task in the background failed", exc_info=fault, extra={"task": task.get_name()})
