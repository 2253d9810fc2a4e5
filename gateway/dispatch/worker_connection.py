"""One persistent HTTP/1.1 connection to a worker: a lean asyncio Protocol over httptools, one exchange at a time.

A general client costs several hundred microseconds a call in session, pool, timeout and header objects; this one costs
about 20. What it leaves out (redirects, cookies, proxies, compression), a worker never sends.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import httptools

from contracts.headers import INFERENCE_HEADER_CONTENT_LENGTH

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest answer that is read; a worker that sends more is cut off."""

ANSWER_HEADERS_MAX: Final = 100
ANSWER_HEAD_BYTES_MAX: Final = 64 * 1024
"""Of status line and headers. One more chunk as it was read from the socket may come on top."""


class ConnectionLost(ConnectionError):
    """The connection ended, or the peer did not speak HTTP, before the answer was complete."""


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """One complete answer. `header_length` is that of the JSON part of a binary body, None where all is JSON."""

    status: int
    header_length: int | None
    body: bytes
    retry_after_s: float | None = None
    """How long the worker asks to be left alone; None: it does not."""


OnAnswer = Callable[[WorkerAnswer | ConnectionLost], None]


class WorkerConnection(asyncio.Protocol):
    """Send with `exchange` while `idle`; the callback is called exactly once, with the answer or the loss.

    `on_lost` is called once when the connection has ended, after the callback of an exchange under way.
    """

    def __init__(self, on_lost: Callable[["WorkerConnection"], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiting: OnAnswer | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._headers = self._head_bytes = 0
        self._in_head = True
        self._answered = False
        """Whether the chunk that is being parsed has ended an answer already."""

        self._header_length: int | None = None
        self._retry_after_s: float | None = None
        self._keep_alive = True
        self.given_up = False
        """Whether this side ended it because an answer was late: the server can be reached."""

    @property
    def idle(self) -> bool:
        """Whether an exchange may begin."""
        return self._waiting is None and self._transport is not None

    def exchange(self, parts: list[bytes], on_answer: OnAnswer) -> None:
        """Send one request (its bytes in parts) and report its answer to `on_answer`. Only while idle.

        A server may close a connection at any moment, also between the look at `idle` and this: then the loss is
        reported at once.
        """
        assert self._waiting is None
        if self._transport is None:
            on_answer(ConnectionLost("the connection had ended before anything was sent"))
            return
        self._waiting = on_answer
        self._body = []
        self._body_bytes = self._headers = self._head_bytes = 0
        self._in_head = True
        self._header_length = self._retry_after_s = None
        self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def give_up(self, reason: str) -> None:
        """End the connection for an answer that is late; the exchange is reported as lost."""
        self.given_up = True
        self.abort(reason)

    def abort(self, reason: str) -> None:
        """End the connection now; an exchange under way is reported as lost."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(ConnectionLost(reason))

    # asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport. asyncio and uvloop set TCP_NODELAY by themselves."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; bytes that are not HTTP, or that nobody asked for, end the connection."""
        if self._waiting is None:
            self.abort("the worker sent bytes that nobody had asked for")
            return
        assert self._parser is not None
        self._answered = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(f"the worker's answer is not HTTP: {error.__context__ or error}")
            return
        if self._in_head and not self._answered:
            self._head_bytes += len(data)
            if self._head_bytes > ANSWER_HEAD_BYTES_MAX:
                self.abort(f"the head of the worker's answer has more than {ANSWER_HEAD_BYTES_MAX} bytes")

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss."""
        self._lost(ConnectionLost(str(exc) if exc else "the worker closed the connection"))

    # httptools' callbacks --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Refuse an answer behind an answer: it would be taken for that of the next exchange."""
        if self._answered:
            raise httptools.HttpParserError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one header that the codec needs, and bound their number."""
        self._headers += 1
        if self._headers > ANSWER_HEADERS_MAX:
            raise httptools.HttpParserError("too many headers")
        lower = name.lower()
        if lower == INFERENCE_HEADER_CONTENT_LENGTH:
            if not value.isdigit() or len(value) > 12:
                raise httptools.HttpParserError("inference-header-content-length is not a number")
            self._header_length = int(value)
        elif lower == b"connection" and value.lower() == b"close":
            self._keep_alive = False
        elif lower == b"retry-after" and value.isdigit() and len(value) < 10:  # as a date it is not taken for anything
            self._retry_after_s = float(value)

    def on_headers_complete(self) -> None:
        """End the head."""
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to ANSWER_BYTES_MAX."""
        self._body_bytes += len(body)
        if self._body_bytes > ANSWER_BYTES_MAX:
            raise httptools.HttpParserError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over; the connection is idle again before the callback runs, which may start the next."""
        assert self._parser is not None
        self._answered = True
        waiting, self._waiting = self._waiting, None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        answer = WorkerAnswer(self._parser.get_status_code(), self._header_length, body, self._retry_after_s)
        if not self._keep_alive:
            transport, self._transport = self._transport, None
            if transport is not None:
                transport.close()
        if waiting is not None:
            waiting(answer)

    def _lost(self, loss: ConnectionLost) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting(loss)
        if self._parser is not None:
            self._parser = None
            self._on_lost(self)
