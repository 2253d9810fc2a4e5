"""How these tests speak to a gateway: one keep-alive connection of the standard library, or a raw socket."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

CLIENT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded; a NaN or an infinity in it is an error."""
        return json.loads(self.body, parse_constant=_refuse_constant)


class Client:
    """A client that keeps its connection, and lets it go where the server says `connection: close`."""

    def __init__(self, port: int, timeout_s: float = CLIENT_TIMEOUT_S) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request and read its whole answer."""
        self._connection.request(method, path, body, dict(headers or {}))
        response = self._connection.getresponse()
        content = response.read()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, named, content)

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """Post JSON; bytes go as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, {"content-type": "application/json", **(headers or {})})

    def predict(self, model: str, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """Ask for a prediction."""
        return self.post(f"/v1/models/{model}:predict", content, headers)


def exchange_raw(port: int, *parts: bytes, timeout_s: float = 5.0, half_close: bool = False) -> bytes:
    """Send bytes as they are and read until the server closes. Raises TimeoutError where it falls silent instead."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65_536):
                received += chunk
        except TimeoutError:
            raise
        except OSError:
            pass  # closed while there was more to send, or to read
        return received


def until(what: str, holds: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Ask again and again until the answer is true, and return it; fail the test after `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")
