"""One persistent HTTP/1.1 connection that has at most one request under way: the leanest honest client."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, cast

RESPONSE_BYTES_MAX = 4 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = b"\r\ncontent-length:"


class MalformedResponse(ValueError):
    """What came back is not a response that this client understands; `start` is how it begins."""

    def __init__(self, problem: str, start: bytes) -> None:
        super().__init__(f"{problem}: {start[:200]!r}")
        self.problem, self.start = problem, start[:200]


class Response(NamedTuple):
    """A whole response."""

    status: int
    body: bytes


def parse_response(data: bytes) -> Response | None:
    """Read one response that begins at the first byte; None while some of it is still to come.

    It must have a content-length and nothing after its body, as nothing more was asked for. Raises MalformedResponse.
    """
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        if len(data) > RESPONSE_BYTES_MAX:
            raise MalformedResponse("no end of headers", data)
        return None
    if not data.startswith(b"HTTP/1.1 ") or not data[9:12].isdigit():
        raise MalformedResponse("no HTTP/1.1 response", data)
    head = data[: head_end + 2].lower()
    at = head.find(_CONTENT_LENGTH)
    length = head[at + len(_CONTENT_LENGTH) : head.find(b"\r\n", at + 2)].strip() if at >= 0 else b""
    if not length.isdigit() or int(length) > RESPONSE_BYTES_MAX:
        raise MalformedResponse("no usable content-length", data)
    body_start = head_end + len(_HEAD_END)
    missing = body_start + int(length) - len(data)
    if missing < 0:
        raise MalformedResponse("more than one response to one request", data)
    return Response(int(data[9:12]), data[body_start:]) if missing == 0 else None


class Connection(asyncio.Protocol):
    """Sends one request at a time: `answered` is called after each, and `failed`, with the reason, at most once."""

    def __init__(
        self,
        answered: "Callable[[Connection, Response], None]",
        failed: "Callable[[Connection, str], None]",
    ) -> None:
        self._answered, self._failed = answered, failed
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.request = -1
        """Which request is under way; -1: none."""
        self.started_ns = 0

    def send(self, request: int, data: bytes, started_ns: int) -> None:
        """Send request number `request`, whose latency counts from `started_ns`."""
        assert self._transport is not None
        self.request, self.started_ns = request, started_ns
        self._transport.write(data)

    def close(self) -> None:
        """Close the connection; nothing is called any more."""
        self._answered, self._failed = _ignore, _ignore
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast and no check of the type: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand over the response once it is whole."""
        self._received = self._received + data if self._received else data
        try:
            response = parse_response(self._received)
        except MalformedResponse as error:
            self._fail(str(error))
            return
        if response is not None:
            self._received = b""
            self._answered(self, response)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the server closed the connection, which it must not do here."""
        self._fail(f"connection closed by the server ({exc or 'orderly'})")

    def _fail(self, why: str) -> None:
        failed = self._failed
        self.close()
        failed(self, why)


def _ignore(*_ignored: object) -> None:
    pass
