"""The replicas of one model version: a few persistent connections to each, mended in the background."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from gateway.dispatch.worker_connection import WorkerConnection

BATCHES_IN_FLIGHT_PER_REPLICA: Final = 2
"""One being computed and one on its way, so that a worker never waits for the network.

More only moves the queue there.
"""

CONNECT_TIMEOUT_S: Final = 1.0
RECONNECT_DELAY_S_MIN: Final = 0.05
RECONNECT_DELAY_S_MAX: Final = 1.0

logger = logging.getLogger(__name__)


class Replica:
    """One worker: where it is, what is connected, how many rows it holds."""

    __slots__ = ("answered", "connections", "host", "host_header", "outstanding_rows", "port", "url")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.url, self.host, self.port = url, parts.hostname, parts.port
        self.host_header = parts.netloc.encode()
        self.connections: list[WorkerConnection] = []
        self.outstanding_rows = 0
        self.answered = False
        """Whether the last attempt to connect succeeded."""

    @property
    def reachable(self) -> bool:
        """Whether there is a connection, or one that ended is about to be replaced."""
        return self.answered or bool(self.connections)

    def idle_connection(self) -> WorkerConnection | None:
        """Return a connection on which an exchange may begin."""
        for connection in self.connections:
            if connection.idle:
                return connection
        return None


class WorkerPool:
    """Connections to every replica of one version. `on_change` is called when one came, or could not be reached."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.replicas = tuple(Replica(url) for url in urls)
        self.on_change: Callable[[], None] = lambda: None
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def reachable(self) -> bool:
        """Whether any replica can be reached. A server that merely closed an idle connection still can."""
        for replica in self.replicas:  # a loop: it is asked for each request  # noqa: SIM110
            if replica.reachable:
                return True
        return False

    def pick(self) -> tuple[Replica, WorkerConnection] | None:
        """Choose an idle connection of the replica with the fewest outstanding rows; None while all are busy or gone.

        A full scan: a pool has few replicas, and the scan sees what two random choices might miss.
        """
        best: tuple[Replica, WorkerConnection] | None = None
        for replica in self.replicas:
            if best is None or replica.outstanding_rows < best[0].outstanding_rows:
                connection = replica.idle_connection()
                if connection is not None:
                    best = (replica, connection)
        return best

    def start(self) -> None:
        """Begin to connect, and to stay connected."""
        self._keepers = [
            asyncio.create_task(self._keep(replica), name=f"connect {replica.url}")
            for replica in self.replicas
            for _ in range(BATCHES_IN_FLIGHT_PER_REPLICA)
        ]

    async def close(self) -> None:
        """End every connection."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for replica in self.replicas:
            for connection in list(replica.connections):
                connection.abort("the gateway is closing")

    async def _keep(self, replica: Replica) -> None:
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while True:
            await asyncio.sleep(delay_s)
            lost = asyncio.Event()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, connection = await loop.create_connection(
                        lambda: WorkerConnection(lambda _: lost.set()),  # noqa: B023 - called before the next round
                        replica.host,
                        replica.port,
                    )
            except OSError as error:  # TimeoutError is one
                if replica.answered or not delay_s:
                    logger.warning("worker cannot be reached", extra={"worker": replica.url, "reason": str(error)})
                replica.answered = False
                self.on_change()
                delay_s = min(max(delay_s * 2, RECONNECT_DELAY_S_MIN), RECONNECT_DELAY_S_MAX)
                continue
            connected_at = loop.time()
            replica.answered = True
            replica.connections.append(connection)
            self.on_change()
            await lost.wait()
            replica.connections.remove(connection)
            # One that lived a while was closed for being idle, or by a restart: replace it at once.
            lived = loop.time() - connected_at > RECONNECT_DELAY_S_MAX
            delay_s = 0.0 if lived else min(max(delay_s * 2, RECONNECT_DELAY_S_MIN), RECONNECT_DELAY_S_MAX)
