"""Lets an ASGI application answer what has no bare handler: documents and forms, not the hot path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from http_server.exchange import Exchange, Header, head_of

IN_FLIGHT_MAX: Final = 64
"""Requests of one server that are being answered here. Each may take some 0.2 ms of the event loop, and all that are in
flight take their share before anything else has its turn again."""

logger = logging.getLogger(__name__)

AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]


class AsgiBridge:
    """Answers exchanges by `application`, whose parts are gathered into one.

    refusal: an `Application`'s, for what comes while too many are being answered. fault: writes header lines and body
    of the answer where the application fails. spared: paths that are answered however many there are, for probes.
    """

    def __init__(
        self,
        application: AsgiApplication,
        refusal: Callable[[int, str, bytes, list[Header]], tuple[bytes, bytes]],
        fault: Callable[[], tuple[bytes, bytes]],
        spared: frozenset[str] = frozenset(),
    ) -> None:
        self._application, self._refusal, self._fault, self._spared = application, refusal, fault, spared
        self._running: set[asyncio.Task[None]] = set()

    def serve(self, exchange: Exchange) -> None:
        """Begin to answer, or answer 503 where too many are being answered."""
        if len(self._running) >= IN_FLIGHT_MAX and exchange.path not in self._spared:
            head, body = self._refusal(503, "too many requests of this kind at once", exchange.target, exchange.headers)
            exchange.respond(503, head, body)
            return
        task = asyncio.get_running_loop().create_task(self._serve(exchange))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, exchange: Exchange) -> None:
        try:
            status, head, body = await answer_of(self._application, exchange)
        except Exception:
            logger.exception("a request failed", extra={"path": exchange.path[:200]})
            status, (head, body) = 500, self._fault()
        exchange.respond(status, head, body)


async def answer_of(application: AsgiApplication, exchange: Exchange) -> tuple[int, bytes, bytes]:
    """Ask an application. Returns status, header lines and body."""
    status, head = 0, b""
    parts: list[bytes] = []
    received = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal received
        if received:
            return {"type": "http.disconnect"}
        received = True
        return {"type": "http.request", "body": exchange.body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, head
        if message["type"] == "http.response.start":
            status = message["status"]
            head = head_of((name, value) for name, value in message["headers"] if name.lower() != b"content-length")
        else:
            parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": exchange.method,
        "scheme": "http",
        "path": exchange.path,
        "raw_path": exchange.target.partition(b"?")[0],
        "query_string": exchange.query,
        "root_path": "",
        "headers": exchange.headers,
        "client": None,
        "server": None,
    }
    await application(scope, receive, send)
    return status, head, b"".join(parts)
