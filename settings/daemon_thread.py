"""Blocking work beside the event loop, on a thread that does not keep the process from its exit."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def run_on_daemon_thread(work: Callable[[], T], name: str) -> T:
    """Run `work` on a thread of its own, and return or raise what it does.

    `asyncio.to_thread` waits for its threads when the loop closes; a stop must not wait for a large model or a disk
    that hangs. Where the caller is cancelled, the outcome is dropped.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(_succeed, outcome, work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            # A plug-in that calls sys.exit must not end the worker.
            told = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            settle = partial(_fail, outcome, told)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    Thread(target=run, name=name, daemon=True).start()
    return await outcome


def _succeed(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[T], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
