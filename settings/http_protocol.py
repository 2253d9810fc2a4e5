"""uvicorn's HTTP protocol with a bound on the request line and headers, which neither it nor its parser has."""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line and headers. One more chunk as it was read from the socket may come on top."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Answers 400 and closes where a request's head does not end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        """Begin a connection."""
        super().connection_made(transport)
        self._in_head = False
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse a chunk, and count it where all of it belongs to one head."""
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response(f"The request line and headers are longer than {HEAD_BYTES_MAX} bytes.")
