"""One connection: bytes in, requests out, one answer each, in order.

The parser is httptools'. A general server costs several objects, two queues and two writes a request for what a data
port never uses (streams, upgrades, lifespans); this one costs a parse, one object and one write.
"""

import asyncio
import json
import re
from collections import deque
from typing import TYPE_CHECKING, Final, cast

import httptools

from http_server.exchange import STATUS_LINES, Exchange, Header, Refusal, head_of

if TYPE_CHECKING:
    from http_server.server import HttpServer

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line and headers."""

HEADERS_MAX: Final = 128
FRAMING_PER_BODY_BYTE: Final = 8
"""What a chunked body may have beside its bytes, above HEAD_BYTES_MAX; a chunk of one byte takes 5 more.

Trailers and chunk extensions count as well: the parser would swallow them for ever."""

PIPELINED_MAX: Final = 64
PIPELINED_BYTES_MAX: Final = 1024 * 1024
"""Requests (and bytes of their bodies) that were read and wait for the answers before theirs; beyond it nothing more is
read."""

TOLD_MAX: Final = 32
"""Connections above the bound that are told so, for which each is kept a while; others are cut at once."""

LINGER_BYTES_MAX: Final = 16 * 1024 * 1024
"""What is read and thrown away after a refusal, so that a sender in the middle of its body can hear of it."""

BODY_BYTES_UNASKED: Final = 16 * 1024
"""A body that is announced, or has grown, beyond this is asked about before more of it is read. Smaller ones are not
worth a second look: 4,096 connections that hold one each hold a quarter of what all may hold."""

_OWN_HEADERS: Final = frozenset({b"content-length", b"expect"})
_ONLY_ONCE: Final = (b"host", b"authorization")
"""Headers of which a second one is refused: whoever stands before this server may have read the other one (RFC 9110,
section 5.3). The parser refuses a second length by itself."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
_JSON: Final = b"content-type: application/json\r\n"
_VERSIONS: Final = ("1.1", "1.0")
_OTHER_VERSION: Final = "Invalid HTTP version"
"""What the parser says of a version that is no HTTP/1 or 2 at all; HTTP/0.9 and 2.0 it takes for requests."""

_AUTHORITY: Final = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_SLASH: Final = ord("/")


class Connection(asyncio.Protocol):
    """A connection of `server`. Times are the event loop's, in seconds."""

    __slots__ = (
        "_asked",
        "_body",
        "_body_bytes",
        "_body_bytes_max",
        "_current",
        "_deaf",
        "_declared_bytes",
        "_ended",
        "_expects_continue",
        "_fed_bytes",
        "_head_seen",
        "_headers",
        "_in_head",
        "_is_1_1",
        "_lingered_bytes",
        "_measures",
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
        self._is_1_1 = False  # looked at for a connection's first request: asking the parser costs half a microsecond
        self._measures = False  # whether heads may be too large: they came in pieces, or with very much else
        self._refusal: Refusal | None = None
        self._lingered_bytes = 0
        self.waits_since = 0.0
        """Since when the peer owes bytes: the rest of a request, or a next one."""

        self._begin()

    def _begin(self) -> None:
        self._target: bytes = b""
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._body_bytes = self._fed_bytes = self._declared_bytes = self._body_bytes_max = 0
        self._in_head = True
        self._expects_continue = self._upgrading = self._head_seen = self._asked = False

    # What the server asks ------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return not self._owes and not self._reading

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that are being read, or wait to be served."""
        return self._body_bytes + self._waiting_bytes

    def held_s(self, now: float) -> float:
        """Since when they are held. What came just now has no age yet, however long the connection was idle."""
        if not self._writable:
            return now - self._unread_since
        return now - self.waits_since if self._head_seen or self._waiting else 0.0

    @property
    def _owes(self) -> bool:
        return self._current is not None or bool(self._waiting) or self._refusal is not None

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

    def give_way(self) -> None:
        """Let go of all bodies, so that others have room. The peer is told, unless it does not read."""
        self._drop_waiting()
        if self._deaf or not self._writable:
            self._server.held_bytes -= self._body_bytes
            self._begin()
            self._deaf = True
            self.abort()
        else:
            self._refuse(503, "too many bytes of unfinished bodies are held: the largest and slowest make room")

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
        """Begin, unless there are too many already: those are told so, as long as they themselves are few."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._parser = httptools.HttpRequestParser(self)
        self.waits_since = self._server.now()
        self._server.connections.add(self)
        above = len(self._server.connections) - self._server.connections_max
        if above > TOLD_MAX:
            self.abort()
        elif above > 0:
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
            self._fed_bytes += len(data)
            if len(data) > HEAD_BYTES_MAX:
                self._measures = True
            rest = self._feed(data)
            if self._fed_bytes or self._target:
                self._look_at_unfinished(data)
            data = rest

    def _look_at_unfinished(self, data: bytes) -> None:
        # What came in one piece, as nearly every request does, never comes here: looks and clocks cost it nothing.
        if not self._in_head:
            self._look_at_body_to_come()
        elif self._fed_bytes <= len(data):  # it begins with this chunk, or in the midst of it
            if not self._target and not data.strip(b"\r\n"):
                self._fed_bytes = 0  # an empty line before a request says nothing (RFC 9112, section 2.2)
                return
            self._fed_bytes = self._fed_bytes or 1
            self._measures = True
            self.waits_since = self._server.now()
        if self._fed_bytes > HEAD_BYTES_MAX + (1 + FRAMING_PER_BODY_BYTE) * self._body_bytes:
            self._refuse(431, f"head, trailers and framing have more than {HEAD_BYTES_MAX} bytes")

    def _look_at_body_to_come(self) -> None:
        if not self._head_seen:
            self._head_seen = True
            self.waits_since = self._server.now()
        small = self._declared_bytes <= BODY_BYTES_UNASKED and self._body_bytes <= BODY_BYTES_UNASKED
        if self._asked or (small and not self._expects_continue):
            return
        self._asked = True
        assert self._parser is not None
        fields = dict(self._headers)
        if self._refuses_head(fields):
            return
        if self._server.before_body is not None:
            method = self._parser.get_method().decode("latin-1")
            refusal = self._server.before_body(method, self._target, fields)
            if refusal is not None:
                self._refuse_as(refusal)
                return
        self._ask_for_body()

    def _ask_for_body(self) -> None:
        # In its turn: whoever waits for it would take it for an answer to what it asked before.
        if self._expects_continue and self._asked and not self._owes and self._transport is not None:
            self._expects_continue = False
            if self._is_1_1:  # an older client would take it for the answer (RFC 9110, section 10.1.1)
                self._transport.write(_CONTINUE)

    def _feed(self, data: bytes) -> bytes:
        """Parse a chunk. Returns what is to be parsed once more: a request without its offer to upgrade."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return b"" if self._deaf else self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if _OTHER_VERSION in str(error):
                self._refuse_version()
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
        return self._owes and self._transport is not None and self._transport.can_write_eof()

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
        if self._measures and self._head_bytes() > HEAD_BYTES_MAX:
            self._refuse(431, f"the head has more than {HEAD_BYTES_MAX} bytes")
            raise httptools.HttpParserError("head too large")
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                self._refuse(400, "this is no proxy")
                raise httptools.HttpParserError("CONNECT")
            self._upgrading = True
            return
        if self._target[0] != _SLASH:
            self._target = _origin_form(self._target)
        self._body_bytes_max = self._server.application.body_bytes_max(self._target)
        if self._declared_bytes > self._body_bytes_max:
            self._too_large(f"{self._declared_bytes} bytes")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, within the bounds."""
        self._body.append(body)
        self._body_bytes += len(body)
        self._server.held_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._too_large("more bytes")
        if self._server.held_bytes > self._server.limits.held_bytes_max:
            self._server.make_room()
            if self._deaf:
                raise httptools.HttpParserError("it was this one that held most")

    def on_message_complete(self) -> None:
        """Hand the request over, or queue it behind those before it."""
        assert self._parser is not None
        if self._upgrading:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        method, keep_alive = self._parser.get_method().decode("latin-1"), self._parser.should_keep_alive()
        headers = self._headers
        fields = dict(headers)
        respond = self._respond
        if not self._is_1_1 or not keep_alive or b"host" not in fields or len(fields) != len(headers):
            if self._refuses_head(fields):
                raise httptools.HttpParserError("a head that is not taken")
            if keep_alive and not self._is_1_1:
                respond = self._respond_1_0
        exchange = Exchange(method, self._target, headers, fields, body, keep_alive, respond)
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
        elif self._expects_continue:
            self._ask_for_body()

    def _respond_1_0(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        # Unless it is told so, a client of HTTP/1.0 that asks for more has to take it for refused.
        closes = self._server.draining or self._ended
        self._respond(exchange, head if closes else head + _KEEP_ALIVE, body)

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

    def _refuses_head(self, fields: dict[bytes, bytes]) -> bool:
        """Refuse what no head may be that the parser lets through. Takes note of the version."""
        assert self._parser is not None
        version = self._parser.get_http_version()
        self._is_1_1 = version == "1.1"
        if len(fields) != len(self._headers):
            names = [name for name, _ in self._headers]
            for name in _ONLY_ONCE:
                if names.count(name) > 1:
                    self._refuse(400, f"the request has several {name.decode()} headers")
        if version not in _VERSIONS:
            self._refuse_version()
        if self._is_1_1 and b"host" not in fields:
            self._refuse(400, "the request has no host header")  # RFC 9112, section 3.2
        return self._deaf

    def _head_bytes(self) -> int:
        assert self._parser is not None
        line_bytes = len(self._parser.get_method()) + len(self._target) + len(b"  HTTP/1.1\r\n")
        return line_bytes + sum(len(name) + len(value) + len(b": \r\n") for name, value in self._headers)

    def _too_large(self, found: str) -> None:
        self._refuse(413, f"the body has {found}; at most {self._body_bytes_max} are taken here")
        raise httptools.HttpParserError("too large")

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._server.held_bytes -= self._waiting_bytes
        self._waiting_bytes = 0

    def _refuse(self, status: int, detail: str) -> None:
        if self._transport is None or self._deaf:
            return
        self._refuse_as((status, *self._server.application.refusal(status, detail, self._target, self._headers)))

    def _refuse_version(self) -> None:
        # In no port's own form: whoever speaks another version knows none of them.
        if self._transport is None or self._deaf:
            return
        told = {"code": "http_version_not_supported", "error": "HTTP/1.1 is spoken here, and HTTP/1.0"}
        self._refuse_as((505, _JSON, json.dumps(told).encode()))

    def _refuse_as(self, refusal: Refusal) -> None:
        # Said once the answers that are owed before it are given: each would be taken for another's.
        owed = self._owes
        self._deaf = True
        self._server.held_bytes -= self._body_bytes
        self._begin()
        if owed:
            self._refusal = refusal
        else:
            self._send_refusal(*refusal)

    def _send_refusal(self, status: int, head: bytes, body: bytes) -> None:
        assert self._transport is not None
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


def _origin_form(target: bytes) -> bytes:
    """Return the path and query of a target that names scheme and authority as well (RFC 9112, section 3.2.2)."""
    authority = _AUTHORITY.match(target)
    if authority is None:
        return target
    rest = target[authority.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest
