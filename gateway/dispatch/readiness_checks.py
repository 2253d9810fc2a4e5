"""Active checks: each replica of a version is asked once a second whether it is ready to serve that version.

What a request finds out it pays for; this finds out before, and for replicas that are given none. A check has a
connection of its own, so that it waits behind no batch.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gateway.background_task import in_background
from gateway.dispatch.replica import Replica
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer, WorkerConnection

CHECK_EVERY_S: Final = 1.0
CHECK_TIMEOUT_S: Final = 0.5
"""For an answer; longer is a failed check."""

logger = logging.getLogger(__name__)

Connect = Callable[[Replica, Callable[[WorkerConnection], None]], Awaitable[WorkerConnection]]
Checked = Callable[[Replica, float | None, float], None]
"""Told of the replica, the seconds that its answer took (None: the check failed), and the time."""


class ReadinessChecks:
    """Checks the replicas of one pool. connect: opens a connection. clock: seconds."""

    def __init__(self, connect: Connect, checked: Checked, clock: Callable[[], float]) -> None:
        self._connect, self._checked, self._clock = connect, checked, clock
        self._path = ""
        self._tasks: dict[Replica, asyncio.Task[None]] = {}

    def start(self, path: str, replicas: Sequence[Replica]) -> None:
        """Begin to ask for `path`, or for another one from now on."""
        self._path = path
        self.follow(replicas)

    def follow(self, replicas: Sequence[Replica]) -> None:
        """Check these replicas and no others."""
        if not self._path:
            return
        for replica in [replica for replica in self._tasks if replica not in replicas]:
            self._tasks.pop(replica).cancel()
        for replica in replicas:
            if replica not in self._tasks:
                self._tasks[replica] = in_background(self._keep_checking(replica), f"check {replica.url}")

    async def close(self) -> None:
        """Stop."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_checking(self, replica: Replica) -> None:
        connection: WorkerConnection | None = None
        try:
            while True:
                began_s = self._clock()
                passed = False
                try:
                    async with asyncio.timeout(CHECK_TIMEOUT_S):
                        if connection is None or not connection.idle:
                            connection = await self._connect(replica, lambda _: None)
                        passed = await self._ask(replica, connection)
                except OSError:  # TimeoutError is one
                    _end(connection)
                except Exception:
                    logger.exception("a readiness check could not be made", extra={"worker": replica.url})
                    _end(connection)
                now_s = self._clock()
                self._tell(replica, now_s - began_s if passed else None, now_s)
                await asyncio.sleep(CHECK_EVERY_S)
        finally:
            _end(connection)

    def _tell(self, replica: Replica, latency_s: float | None, now_s: float) -> None:
        try:
            self._checked(replica, latency_s, now_s)
        except Exception:  # what others make of it must not end the checks: nothing else brings a replica back
            logger.exception("the result of a readiness check was not taken", extra={"worker": replica.url})

    async def _ask(self, replica: Replica, connection: WorkerConnection) -> bool:
        answered: asyncio.Future[WorkerAnswer | ConnectionLost] = asyncio.get_running_loop().create_future()
        request = b"GET %b HTTP/1.1\r\nhost: %b\r\naccept: application/json\r\n\r\n"
        connection.exchange(
            [request % (self._path.encode(), replica.host_header)],
            lambda answer: None if answered.done() else answered.set_result(answer),
        )
        answer = await answered
        return isinstance(answer, WorkerAnswer) and answer.status == 200


def _end(connection: WorkerConnection | None) -> None:
    if connection is not None:
        connection.abort("no answer to a readiness check, or no more checks")
