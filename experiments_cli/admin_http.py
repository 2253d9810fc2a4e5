"""One request to the admin port and its answer, within bounds: time, bytes, and no redirects."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from experiments_cli.errors import AnswerLost, GatewayUnreachable

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
READ_BYTES: Final = 64 * 1024
READS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where an admin port is. prefix: what a proxy put before its paths; empty, or begins with a slash."""

    scheme: str
    host: str
    port: int
    prefix: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. headers: by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_address(text: str) -> Address:
    """Read a URL. Raises ValueError that says how one is written."""
    how = f"{text!r}: write the admin port's address as http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(how) from error
    whole = parts.scheme in {"http", "https"} and parts.hostname and text.isprintable() and text.isascii()
    if not whole or " " in text or parts.username is not None or parts.query or parts.fragment or port == 0:
        raise ValueError(how)
    assert parts.hostname is not None
    return Address(
        parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/")
    )


class AdminHttp:
    """Asks one admin port; a connection a request, so that there is none that went stale.

    key: an API key. tls: for https. timeout_s: of a whole request, from the connection to the last byte.
    """

    def __init__(self, address: Address, *, key: str | None, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self.address = address
        self._authorization = {"authorization": f"Bearer {key}"} if key else {}
        self._tls, self._timeout_s = tls, timeout_s

    def ask(self, method: str, target: str, headers: Mapping[str, bytes], body: bytes | None = None) -> Answer:
        """Ask for a target (path and query, encoded). Raises GatewayUnreachable and AnswerLost."""
        expired = threading.Event()
        try:
            connected = self._connect()
        except ssl.SSLCertVerificationError as error:
            problem = f"its certificate is not trusted ({error.verify_message}): name its authority with --ca"
            raise GatewayUnreachable(str(self.address), problem) from error
        except (OSError, ValueError) as error:
            raise GatewayUnreachable(str(self.address), self._reason(error)) from error
        with self._until(connected, expired):
            try:
                answer = self._exchange(connected, method, target, headers, body)
                if not expired.is_set():  # else what was read may be cut short
                    return answer
                problem = ""
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"no whole answer: {_said(error)}"
        if expired.is_set():
            problem = f"no answer within {self._timeout_s:g} s (--timeout-s)"
        raise AnswerLost(f"{self.address}{target.partition('?')[0]}", problem, is_write=method not in READS)

    def _connect(self) -> socket.socket:
        address = self.address
        connected = socket.create_connection((address.host, address.port), timeout=self._timeout_s)
        if address.scheme == "http":
            return connected
        assert self._tls is not None
        wrapped = self._tls.wrap_socket(connected, server_hostname=address.host, do_handshake_on_connect=False)
        try:
            with self._until(wrapped, threading.Event(), closes=False):
                wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    @contextmanager
    def _until(self, connected: socket.socket, expired: threading.Event, *, closes: bool = True) -> Iterator[None]:
        # A time-out of a socket is one of a single read: a peer that sends a byte a second would never reach it.
        def expire() -> None:
            expired.set()
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            if closes:
                connected.close()

    def _exchange(
        self, connected: socket.socket, method: str, target: str, headers: Mapping[str, bytes], body: bytes | None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=self._timeout_s)
        connection.sock = connected
        sent: dict[str, str | bytes] = {"accept": "application/json", "connection": "close", **self._authorization}
        if body is not None:
            sent["content-type"] = "application/json"
        connection.request(method, self.address.prefix + target, body, {**sent, **headers})
        response = connection.getresponse()
        read = bytearray()
        while part := response.read(READ_BYTES):
            read += part
            if len(read) > ANSWER_BYTES_MAX:
                raise http.client.HTTPException(f"more than the {ANSWER_BYTES_MAX} bytes that are read")
        if response.length:
            raise http.client.HTTPException("it ended early")
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, bytes(read))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no connection within {self._timeout_s:g} s"
        return _said(error)


def _said(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed"
    if isinstance(error, http.client.BadStatusLine):
        return f"it does not begin as HTTP does: {str(error)[:40]}"
    if isinstance(error, http.client.IncompleteRead):
        return "it ended early"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)[:200] or type(error).__name__
