"""Accepts connections over TLS: handshakes are bounded in time and number, and each takes the context of its moment."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

HANDSHAKE_S: Final = 10.0
SHUTDOWN_S: Final = 5.0
"""For the rest of the last answer to leave, and for the peer to say goodbye in turn."""

ACCEPT_AGAIN_S: Final = 1.0
"""After a failure, such as that of a process without descriptors: the next one would fail alike."""

logger = logging.getLogger(__name__)


class TlsListener:
    """Accepts on a bound socket until closed.

    Not asyncio's own server: that one would keep the context that it was given, and keep no count of handshakes.
    context: called for each connection. make_protocol: called for each connection; it hears of it once the handshake
    is done. room: whether there is room for one more beside so many handshakes; what comes when there is none is cut.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext],
        make_protocol: Callable[[], asyncio.Protocol],
        room: Callable[[int], bool],
    ) -> None:
        self._listener, self._context, self._make_protocol, self._room = listener, context, make_protocol, room
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Stop accepting, and cut the handshakes that are not done."""
        for task in (self._accepting, *self._handshakes):
            task.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                logger.warning("a connection could not be accepted", extra={"reason": str(error)})
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            if not self._room(len(self._handshakes)):
                accepted.close()
                continue
            task = self._loop.create_task(self._shake_hands(accepted))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                accepted,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:  # a TLS error is one, and so is a time-out
            accepted.close()
            logger.debug("a TLS handshake failed", extra={"reason": str(error)})
