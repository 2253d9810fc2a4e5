"""One master of a Redis Cluster: its connection, and what waits for the first attempt to connect."""

import asyncio
import contextlib

from feature_store.cluster_read import NodePart
from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import RedisAddress
from feature_store.redis_connection import FixedServer, RedisConnection

PARTS_PARKED_MAX = 1_000
"""Parts of reads that wait for a node which was only just heard of."""


class ClusterNode:
    """A node that connects by itself from the moment it is made."""

    def __init__(self, address: RedisAddress, reply_timeout_s: float) -> None:
        self.host = address.host
        self.connection = RedisConnection(FixedServer(address), reply_timeout_s=reply_timeout_s)
        self.tried = asyncio.Event()
        """Set when the first attempt to connect has ended, either way."""
        self.looks_unused = 0
        """Looks at the table of slots, one after another, in which this node had none."""
        self._parked: list[NodePart] | None = []
        self._task = asyncio.create_task(self._start(), name=f"start {self.connection.address}")

    def send(self, part: NodePart) -> None:
        """Ask for a part of a read; of a node that is still connecting, later. Raises FeatureStoreUnavailable."""
        if self._parked is None:
            self.connection.send(part.command, part.on_reply, part.replies)
        elif len(self._parked) < PARTS_PARKED_MAX:
            self._parked.append(part)
        else:
            raise FeatureStoreUnavailable(self.connection.address, f"{PARTS_PARKED_MAX} reads wait for it to connect")

    def let_go(self) -> None:
        """Close in the background."""
        self._task.cancel()
        self._task = asyncio.create_task(self._close(), name=f"close {self.connection.address}")

    async def close(self) -> None:
        """Disconnect; what waits fails."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._close()

    async def _start(self) -> None:
        await self.connection.start()
        self._unpark()

    async def _close(self) -> None:
        await self.connection.close()
        self._unpark()

    def _unpark(self) -> None:
        parked, self._parked = self._parked, None
        self.tried.set()
        for part in parked or ():
            try:
                self.send(part)
            except FeatureStoreUnavailable as error:
                part.failed(error)
