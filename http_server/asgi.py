"""Lets an ASGI application answer what has no bare handler: documents and forms, not the hot path."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from http_server.exchange import Exchange, head_of

logger = logging.getLogger(__name__)

AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]

_running: set[asyncio.Task[None]] = set()


def serve_asgi(application: AsgiApplication, exchange: Exchange, refusal: tuple[bytes, bytes]) -> None:
    """Answer by an ASGI application, whose parts are gathered into one. refusal: head and body where it fails."""
    task = asyncio.get_running_loop().create_task(_serve(application, exchange, refusal))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _serve(application: AsgiApplication, exchange: Exchange, refusal: tuple[bytes, bytes]) -> None:
    status, head, parts = 0, b"", []
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
    try:
        await application(scope, receive, send)
    except Exception:
        logger.exception("a request failed", extra={"path": exchange.path[:200]})
        status, (head, body) = 500, refusal
        parts = [body]
    exchange.respond(status, head, b"".join(parts))
