"""HTTP/1.1 as the kit speaks it: whole answers, by the standard library, on a connection that the caller may keep."""

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

ANSWER_S_MAX: Final = 5.0
"""How long one answer may take; a server that says nothing for longer counts as silent."""

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024


class AddressError(ValueError):
    """A URL is not one that the kit can speak to; the message says what it should be."""


class NoAnswer(Exception):
    """A server did not answer a request: it refused the connection, closed it, or fell silent."""

    def __init__(self, reason: str, *, connected: bool) -> None:
        super().__init__(reason)
        self.reason, self.connected = reason, connected


class NotJson(ValueError):
    """A body is not JSON by RFC 8259, in which there is no NaN and no Infinity."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and the path below which it serves `/v2`."""

    host: str
    port: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whole; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded strictly. Raises NotJson."""
        return strict_json(self.body)

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Connection:
    """One connection, kept for as many requests as the server allows. Its methods raise NoAnswer."""

    def __init__(self, address: Address, timeout_s: float = ANSWER_S_MAX) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def is_open(self) -> bool:
        """Whether the next request would go out on the same connection."""
        return self._connection.sock is not None

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        """Send one request with its length, and read the whole answer."""
        declared = {} if body is None else {"content-length": str(len(body))}
        return self.ask_in_parts(method, path, [] if body is None else [body], {**declared, **headers})

    def ask_in_parts(self, method: str, path: str, parts: Iterable[bytes], headers: Mapping[str, str]) -> Reply:
        """Send head and parts exactly as given; the caller frames them. A length in `headers` may lie."""
        connected = False
        try:
            if self._connection.sock is None:
                self._connection.connect()
            connected = True
            self._connection.putrequest(method, self._address.prefix + path, skip_accept_encoding=True)
            for name, value in headers.items():
                self._connection.putheader(name, value)
            self._connection.endheaders()
            self._send(parts)
            return self._read()
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {self._timeout_s:g} s", connected=connected) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{type(error).__name__}: {error}", connected=connected) from error

    def _send(self, parts: Iterable[bytes]) -> None:
        try:
            for part in parts:
                self._connection.send(part)
        except OSError:
            return  # a server may answer and close before it has read everything: the answer is still to be read

    def _read(self) -> Reply:
        response = self._connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX)
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def parse_address(url: str) -> Address:
    """Read `http://host[:port][/prefix]`. Raises AddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise AddressError(f"{url!r}: {error}") from error
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment:
        raise AddressError(f"{url!r} is not a base URL like http://127.0.0.1:8090 (plain HTTP, no query)")
    return Address(parts.hostname, port, parts.path.rstrip("/"))


def strict_json(body: bytes) -> Any:
    """Decode JSON. Raises NotJson, also for NaN and Infinity, which Python's own reader takes."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error


def chunked(body: bytes, size: int) -> list[bytes]:
    """Frame a body as chunks of at most `size` bytes (RFC 9112, section 7.1)."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def _refuse_constant(name: str) -> None:
    raise NotJson(f"{name} is no JSON")
