"""A listening server: its connections, the limits that they share, and how it leaves."""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from http_server.connection import Connection
from http_server.exchange import Application, Refusal
from http_server.tls_listener import TlsListener

TICK_S: Final = 1.0
"""How often overdue connections are looked for, and the date is made anew."""

BACKLOG: Final = 2_048

MAKE_ROOM_SHARE: Final = 1 / 8
"""Of the bound on bodies, what is freed at once when it is reached: looking for who holds most takes a while."""

HOLDING_S_MIN: Final = 0.01
"""Ages of bodies count from here, so that of several which came at once the largest goes first."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What connections may take, all together and each."""

    connections_max: int = 4_096
    descriptors_share: float = 3 / 4
    """Of the descriptors that the process may open, how many connections may take; the rest is for its other port, for
    its own connections and for its files."""

    held_bytes_max: int = 256 * 1024 * 1024
    """Of all bodies that are being read at one time, so that many slow senders cannot fill the memory."""

    keep_alive_s: float = 75.0
    """Longer than the usual client's or load balancer's 60 s, so that it is they who close an idle connection."""

    head_s: float = 10.0
    """For a request's head to arrive, from the end of what came before it."""

    body_s: float = 30.0
    unread_s: float = 60.0
    """How long a peer may leave an answer unread, once more of it waits than the transport takes."""

    unsent_bytes_max: int = 256 * 1024 * 1024
    """Of all answers that peers do not read, as they were when their reading fell behind."""

    linger_s: float = 2.0
    """How long a refused sender may go on before it is cut."""


class HttpServer:
    """Serves `application`. `wall_s`: seconds since 1970, for the date header; None: answers carry no date."""

    def __init__(
        self, application: Application, limits: Limits | None = None, wall_s: Callable[[], float] | None = None
    ) -> None:
        self.application = application
        self.limits = limits or Limits()
        self.before_body: Callable[[str, bytes, dict[bytes, bytes]], Refusal | None] | None = getattr(
            application, "before_body", None
        )
        """A `LooksAhead`'s."""

        self.connections_max = connections_within(self.limits, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.connections: set[Connection] = set()
        self.held_bytes = self.unsent_bytes = 0
        self.draining = False
        """Whether each answer asks its client to close the connection."""

        loop = asyncio.get_running_loop()
        self.now, self.call_soon = loop.time, loop.call_soon
        self._loop, self._wall_s = loop, wall_s
        self._listening: list[asyncio.Server | TlsListener] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._all_left: asyncio.Future[None] | None = None
        self.tail = self.tail_closing = b""
        """The last header lines of every answer, with the empty line that ends them."""

    async def listen(self, listener: socket.socket, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """Begin to accept on a bound socket. tls: gives the context of each connection that comes; None: no TLS."""
        if tls is None:
            server = await self._loop.create_server(lambda: Connection(self), sock=listener, backlog=BACKLOG)
            self._listening.append(server)
        else:
            self._listening.append(TlsListener(listener, tls, lambda: Connection(self), self._room))
        if self.connections_max < self.limits.connections_max:
            logger.warning(
                "fewer connections are taken than could be: the process may open few files; raise its hard limit",
                extra={
                    "listener": str(listener.getsockname()),
                    "connections_max": self.connections_max,
                    "connections_max_otherwise": self.limits.connections_max,
                },
            )
        if self._ticker is None:
            self._tick()

    async def close(self, finish_s: float) -> None:
        """Stop accepting, let requests in flight be answered for at most `finish_s` seconds, and cut what is left."""
        self.draining = True
        for server in self._listening:
            server.close()
        for connection in list(self.connections):
            if connection.idle:
                connection.close()
        if self.connections:
            self._all_left = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(finish_s):
                    await self._all_left
        for connection in list(self.connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    def left(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.discard(connection)
        if not self.connections and self._all_left is not None and not self._all_left.done():
            self._all_left.set_result(None)

    def make_room(self) -> None:
        """Cut those who hold the most bytes of bodies for the longest time, until there is room.

        Not whoever sends next: a few slow giants would lock out everybody whose request is small and whole.
        """
        now = self.now()
        holders = sorted(
            (connection for connection in self.connections if connection.held_bytes),
            key=lambda connection: connection.held_bytes * (connection.held_s(now) + HOLDING_S_MIN),
            reverse=True,
        )
        for connection in holders:
            if self.held_bytes <= self.limits.held_bytes_max * (1 - MAKE_ROOM_SHARE):
                break
            connection.give_way()

    def _room(self, handshakes: int) -> bool:
        return len(self.connections) + handshakes < self.connections_max

    def _tick(self) -> None:
        date = b"" if self._wall_s is None else f"date: {formatdate(self._wall_s(), usegmt=True)}\r\n".encode()
        self.tail = date + b"\r\n"
        self.tail_closing = date + b"connection: close\r\n\r\n"
        now = self.now()
        for connection in [connection for connection in self.connections if connection.overdue(now)]:
            connection.expire()
        self._ticker = self._loop.call_later(TICK_S, self._tick)


def connections_within(limits: Limits, descriptors: int) -> int:
    """Return how many connections a process takes that may open so many descriptors; negative: any number."""
    if descriptors < 0:  # RLIM_INFINITY
        return limits.connections_max
    return max(1, min(limits.connections_max, int(descriptors * limits.descriptors_share)))
