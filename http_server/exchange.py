"""One request with its whole body, and the way to answer it."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import unquote

Header = tuple[bytes, bytes]

Refusal = tuple[int, bytes, bytes]
"""Status, header lines and body."""

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus if status >= 200
}


def path_of(target: bytes) -> str:
    """Return a target without its query, percent-decoded but for slashes: one of those divides no names."""
    path = target.partition(b"?")[0].decode("latin-1")
    if "%" not in path:
        return path
    return unquote(path.replace("%2F", "%252F").replace("%2f", "%252f"))


class Exchange:
    """A request that has been read whole. `respond` is called exactly once, now or later, on the event loop.

    headers: in the order of the request, names in lower case. fields: the same by name, the last where there are
    several.
    """

    __slots__ = ("_respond", "body", "fields", "headers", "keep_alive", "method", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[Header],
        fields: dict[bytes, bytes],
        body: bytes,
        keep_alive: bool,
        respond: Callable[["Exchange", bytes, bytes], None],
    ) -> None:
        self.method, self.target, self.headers, self.fields = method, target, headers, fields
        self.body, self.keep_alive, self._respond = body, keep_alive, respond

    @property
    def path(self) -> str:
        """The target as `path_of` reads it."""
        return path_of(self.target)

    @property
    def query(self) -> bytes:
        """What follows the question mark, as it was sent."""
        return self.target.partition(b"?")[2]

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """Answer. head: header lines, each with its line end; length, date and connection are added to them."""
        self._respond(self, STATUS_LINES[status] + head, body)


def head_of(headers: Iterable[Header]) -> bytes:
    """Write header lines."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class Application(Protocol):
    """What a server serves."""

    def body_bytes_max(self, target: bytes) -> int:
        """Say how large a body this target takes, before any of it is read."""
        ...

    def serve(self, exchange: Exchange) -> None:
        """Begin to answer a request."""
        ...

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        """Write header lines and body of an answer to what never became a request: bad HTTP, too large, too slow.

        status: 400, 408, 413, 431 or 503. target, headers: as far as they were read.
        """
        ...


class LooksAhead(Protocol):
    """What an application may have beside: a word on requests whose body is still to come."""

    def before_body(self, method: str, target: bytes, fields: dict[bytes, bytes]) -> Refusal | None:
        """Refuse a request by its head, before its body is read and asked for; None: it is read, and then served.

        Asked of large bodies, and of those that wait for leave to be sent; not of a request that came in one piece.
        """
        ...
