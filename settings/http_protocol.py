"""uvicorn's HTTP protocol, with what neither it nor its parser has: a bound on heads, and deafness to upgrades."""

import asyncio
import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line and headers. One more chunk as it was read from the socket may come on top."""

_UPGRADE: Final = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)
_UNREAD: Final = b"\r\nx-grade"
"""What an `Upgrade` header becomes: a name of the same length that means nothing."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Answers 400 and closes where a request's head does not end; reads on where a client offers to upgrade.

    A server may ignore `Upgrade` (RFC 9110, section 7.8), and clients that offer h2c with every request (Java's, curl's
    `--http2`) expect it to. The parser would take the body for another protocol's bytes and drop it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        """Begin a connection."""
        super().connection_made(transport)
        self._in_head = self._in_body = False
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse a chunk, and count it where all of it belongs to one head."""
        was_in_head = self._in_head
        if not self._in_body and (b"pgrade" in data or b"PGRADE" in data):
            head, blank, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(_UNREAD, head) + blank + rest
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(f"The request line and headers are longer than {HEAD_BYTES_MAX} bytes.")
