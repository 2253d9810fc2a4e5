"""One connection: bytes in, requests out, one answer each, in order.

The parser is httptools'. A general server costs several objects, two queues and two writes a request for what a data
port never uses (streams, upgrades, lifespans); this one costs a parse, one object and one write.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from http_server.exchange import STATUS_LINES, Exchange, Header, head_of

if TYPE_CHECKING:
    from http_server.server import HttpServer

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line and headers. One more chunk as it was read from the socket may come on top."""

HEADERS_MAX: Final = 128
FRAMING_PER_BODY_BYTE: Final = 8
"""What a chunked body may have beside its bytes, above HEAD_BYTES_MAX; a chunk of one byte takes 5 more.

Trailers and chunk extensions count as well: the parser would swallow them for ever."""

PIPELINED_MAX: Final = 64
PIPELINED_BYTES_MAX: Final = 1024 * 1024
"""Requests (and bytes of their bodies) that were read and wait for the answers before theirs; beyond it nothing more is
read."""

LINGER_BYTES_MAX: Final = 16 * 1024 * 1024
"""What is read and thrown away after a refusal, so that a sender in the middle of its body can hear of it."""

_OWN_HEADERS: Final = frozenset({b"content-length", b"expect"})
_ONLY_ONCE: Final = (b"host", b"authorization")
"""Headers of which a second one is refused: whoever stands before this server may have read the other one (RFC 9110,
section 5.3). The parser refuses a second length by itself."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """A connection of `server`. Times are the event loop's, in seconds."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_bytes_max",
        "_current",
        "_deaf",
        "_declared_bytes",
        "_ended",
        "_expects_continue",
        "_fed_bytes",
        "_headers",
        "_in_head",
        "_lingered_bytes",
        "_parser",
        "_refusal",
        "_refused",
        "_server",
        "_target",
        "_transport",
        "_unread_since",
        "_unsent_bytes",
        "_upgrading",
        "_waiting",
        "_waiting_bytes",
        "_writable",
        "waits_since",
    )

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._waiting_bytes = 0
        self._writable = True
        self._unread_since = 0.0
        self._unsent_bytes = 0
        self._ended = False
        self._deaf = self._refused = False
        self._refusal: tuple[int, str, bytes, list[Header]] | None = None
        self._lingered_bytes = 0
        self._body_bytes = 0
        self.waits_since = 0.0
        """Since when the peer owes bytes: the rest of a request, or a next one."""

        self._begin()

    # What the server asks ------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._current is None and not self._reading

    @property
    def _reading(self) -> bool:
        return self._target != b"" or self._fed_bytes > 0

    def overdue(self, now: float) -> bool:
        """Whether the peer has owed bytes, or has not read the answer, for longer than it may."""
        limits = self._server.limits
        if not self._writable:
            return now - self._unread_since > limits.unread_s
        if self._current is not None:
            return False
        if self._refused:
            most_s = limits.linger_s
        elif not self._reading:
            most_s = limits.keep_alive_s
        else:
            most_s = limits.head_s if self._in_head else limits.body_s
        return now - self.waits_since > most_s

    def expire(self) -> None:
        """End a connection that is overdue; one in the middle of a request is told."""
        if not self._writable or self._transport is None or self._transport.is_closing():
            self.abort()  # it does not read, and a close waits, or would wait, for it to
        elif self._refused or not self._reading:
            self.close()
        else:
            self._refuse(408, "the request did not arrive in time")

    def close(self) -> None:
        """Close once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many already."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._parser = httptools.HttpRequestParser(self)
        self.waits_since = self._server.now()
        self._server.connections.add(self)
        if len(self._server.connections) > self._server.limits.connections_max:
            self._refuse(503, "too many connections are open")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        """End; the answers that are still being made have no reader."""
        self._transport = None
        self._parser = None
        self._drop_waiting()
        self._server.held_bytes -= self._body_bytes
        self._server.unsent_bytes -= self._unsent_bytes
        self._body_bytes = self._unsent_bytes = 0
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        """Parse. What is no HTTP is answered 400 and ends the connection."""
        while data:
            if self._deaf:
                self._linger(data)
                return
            if not self._reading:
                self.waits_since = self._server.now()
            self._fed_bytes += len(data)
            data = self._feed(data)
        if not self._deaf and self._fed_bytes > HEAD_BYTES_MAX + (1 + FRAMING_PER_BODY_BYTE) * self._body_bytes:
            self._refuse(431, f"head, trailers and framing have more than {HEAD_BYTES_MAX} bytes")

    def _feed(self, data: bytes) -> bytes:
        """Parse a chunk. Returns what is to be parsed once more: a request without its offer to upgrade."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return b"" if self._deaf else self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(400, f"the request is not HTTP/1.1: {error.__context__ or error}")
        return b""

    def _without_upgrade(self, rest: bytes) -> bytes:
        # A server may ignore `Upgrade` (RFC 9110, section 7.8), and clients that offer h2c with every request (Java's,
        # curl's `--http2`) expect it to. The parser takes what follows for another protocol's bytes.
        assert self._parser is not None
        line = b"%b %b HTTP/%b\r\n" % (
            self._parser.get_method(),
            self._target,
            self._parser.get_http_version().encode(),
        )
        head = line + head_of((name, value) for name, value in self._headers if name != b"upgrade") + b"\r\n"
        self._parser = httptools.HttpRequestParser(self)
        self._begin()
        return head + rest

    def eof_received(self) -> bool:
        """Let answers that are being made go out before the connection closes; over TLS it has no half to close."""
        self._ended = True
        return self._current is not None and self._transport is not None and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """Begin no more answers while the peer does not read. Too many unread by all peers, and this one is cut."""
        assert self._transport is not None
        self._writable = False
        self._unread_since = self._server.now()
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._server.unsent_bytes += self._unsent_bytes
        if self._server.unsent_bytes > self._server.limits.unsent_bytes_max:
            self.abort()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._server.unsent_bytes -= self._unsent_bytes
        self._unsent_bytes = 0
        self._next()

    # httptools' callbacks ------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Keep the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers come too late to say anything (RFC 9110, section 6.5.1)."""
        if not self._in_head:
            return
        lower = name.lower()
        self._headers.append((lower, value))
        if lower in _OWN_HEADERS:
            if lower == b"content-length":
                self._declared_bytes = int(value) if len(value) < 20 else 1 << 62
            else:
                self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Refuse too many headers, and a body that is said to be too large before any of it is read."""
        assert self._parser is not None
        self._in_head = False
        if len(self._headers) > HEADERS_MAX:
            self._refuse(431, f"the request has more than {HEADERS_MAX} headers")
            raise httptools.HttpParserError("too many headers")
        self.waits_since = self._server.now()
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                self._refuse(400, "this is no proxy")
                raise httptools.HttpParserError("CONNECT")
            self._upgrading = True
            return
        self._body_bytes_max = self._server.application.body_bytes_max(self._target)
        if self._declared_bytes > self._body_bytes_max:
            self._too_large(f"{self._declared_bytes} bytes")
        if self._expects_continue and self._transport is not None and self._current is None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, within the bounds."""
        self._body.append(body)
        self._body_bytes += len(body)
        self._server.held_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._too_large("more bytes")
        if self._server.held_bytes > self._server.limits.held_bytes_max:
            self._refuse(503, "too many bytes of unfinished bodies are held")
            raise httptools.HttpParserError("bodies full")

    def on_message_complete(self) -> None:
        """Hand the request over, or queue it behind those before it."""
        assert self._parser is not None
        if self._upgrading:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method, keep_alive = self._parser.get_method().decode("latin-1"), self._parser.should_keep_alive()
        headers = self._headers
        fields = dict(headers)
        if len(fields) != len(headers):
            self._refuse_repeated(headers)
        exchange = Exchange(method, self._target, headers, fields, body, keep_alive, self._respond)
        self._deaf = not exchange.keep_alive  # what follows is not listened to (RFC 9112, section 9.6)
        if self._current is None and not self._waiting and self._writable:
            self._server.held_bytes -= self._body_bytes
            self._begin()
            self._current = exchange
            self._server.application.serve(exchange)
            return
        self._begin()
        self._waiting.append(exchange)  # its body stays held until it is served
        self._waiting_bytes += len(body)
        full = len(self._waiting) >= PIPELINED_MAX or self._waiting_bytes > PIPELINED_BYTES_MAX
        if full and self._transport is not None:
            self._transport.pause_reading()

    # Answers -------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._body_bytes = self._fed_bytes = self._declared_bytes = 0
        self._body_bytes_max = 0
        self._in_head = True
        self._expects_continue = self._upgrading = False

    def _respond(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        if exchange is not self._current or self._transport is None:
            return  # the peer is gone
        self._current = None
        self.waits_since = self._server.now()
        owes_none = not self._waiting and self._refusal is None
        closes = self._server.draining or not exchange.keep_alive or (self._ended and owes_none)
        tail = self._server.tail_closing if closes else self._server.tail
        content = b"" if exchange.method == "HEAD" else body
        self._transport.write(b"%bcontent-length: %d\r\n%b%b" % (head, len(body), tail, content))
        if closes:
            self._drop_waiting()
            self._transport.close()
        elif self._waiting:
            self._next()
        elif self._refusal is not None:
            self._send_refusal(*self._refusal)

    def _next(self) -> None:
        if not self._waiting or self._current is not None or not self._writable or self._transport is None:
            return
        self._current = self._waiting.popleft()
        self._waiting_bytes -= len(self._current.body)
        self._server.held_bytes -= len(self._current.body)
        if not self._waiting:
            self._transport.resume_reading()
        # In a turn of its own: a thousand pipelined requests must not nest a thousand calls.
        self._server.call_soon(self._serve_current)

    def _serve_current(self) -> None:
        if self._current is not None and self._transport is not None:
            self._server.application.serve(self._current)

    def _refuse_repeated(self, headers: list[Header]) -> None:
        names = [name for name, _ in headers]
        for name in _ONLY_ONCE:
            if names.count(name) > 1:
                self._refuse(400, f"the request has several {name.decode()} headers")
                raise httptools.HttpParserError("a header more than once")

    def _too_large(self, found: str) -> None:
        self._refuse(413, f"the body has {found}; at most {self._body_bytes_max} are taken here")
        raise httptools.HttpParserError("too large")

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._server.held_bytes -= self._waiting_bytes
        self._waiting_bytes = 0

    def _refuse(self, status: int, detail: str) -> None:
        # Said once the answers that are owed before it are given: each would be taken for another's.
        if self._transport is None or self._deaf:
            return
        refusal = (status, detail, self._target, self._headers)
        self._deaf = True
        self._server.held_bytes -= self._body_bytes
        self._begin()
        if self._current is not None or self._waiting:
            self._refusal = refusal
        else:
            self._send_refusal(*refusal)

    def _send_refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> None:
        assert self._transport is not None
        head, body = self._server.application.refusal(status, detail, target, headers)
        self._refusal = None
        self._refused = True
        self.waits_since = self._server.now()
        self._transport.write(
            b"%b%bcontent-length: %d\r\n%b%b" % (STATUS_LINES[status], head, len(body), self._server.tail_closing, body)
        )
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _linger(self, data: bytes) -> None:
        self._lingered_bytes += len(data)
        if self._lingered_bytes > LINGER_BYTES_MAX:
            self.abort()
