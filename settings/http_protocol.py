"""uvicorn's HTTP protocol, with what neither it nor its parser has: a bound on heads, and deafness to upgrades."""

import asyncio
import re
from typing import Final

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line, headers, trailers and chunk framing. One more chunk as it was read may come on top."""

HEADERS_MAX: Final = 128
FRAMING_PER_BODY_BYTE: Final = 8
"""What a chunked body may have beside its bytes on top of it."""

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
        self._begin()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers come too late to say anything, and would be kept without bound."""
        if not self._in_head:
            return
        self._header_count += 1
        if self._header_count > HEADERS_MAX:
            raise HttpParserError(f"more than {HEADERS_MAX} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body, of which the rest is framing."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._begin()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse a chunk, and count it."""
        if self._in_head and (b"pgrade" in data or b"PGRADE" in data):
            head, blank, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(_UNREAD, head) + blank + rest
        self._fed_bytes += len(data)
        super().data_received(data)
        allowed = HEAD_BYTES_MAX + (1 + FRAMING_PER_BODY_BYTE) * self._body_bytes
        if self._fed_bytes > allowed and not self.transport.is_closing():
            self.send_400_response(f"Head, trailers and framing are longer than {HEAD_BYTES_MAX} bytes.")

    def _begin(self) -> None:
        self._in_head = True
        self._fed_bytes = self._body_bytes = self._header_count = 0
