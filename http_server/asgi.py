"""Lets an ASGI application answer what has no bare handler: documents and forms, not the hot path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from http_server.exchange import Exchange, head_of

logger = logging.getLogger(__name__)

AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]


class AsgiBridge:
    """Answers exchanges by `application`, whose parts are gathered into one.

    fault: writes header lines and body of the answer where the application fails.
    """

    def __init__(self, application: AsgiApplication, fault: Callable[[], tuple[bytes, bytes]]) -> None:
        self._application, self._fault = application, fault
        self._running: set[asyncio.Task[None]] = set()

    def serve(self, exchange: Exchange) -> None:
        """Begin to answer."""
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
