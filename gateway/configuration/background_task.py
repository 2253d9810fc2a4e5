"""Tasks that nobody awaits, whose faults must not go unheard."""

import asyncio
import logging
from collections.abc import Coroutine

logger = logging.getLogger(__name__)


def in_background(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """Run as a task that logs the fault by which it ends, if it ends by one."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        logger.error("a task in the background failed", exc_info=fault, extra={"task": task.get_name()})
