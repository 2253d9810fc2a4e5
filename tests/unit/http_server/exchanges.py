"""An application asked without a server."""

import asyncio
from typing import Any

from http_server.exchange import Exchange, Header


class Answer:
    """What an application answered."""

    def __init__(self, lines: bytes, body: bytes) -> None:
        status, *fields = lines.decode().split("\r\n")[:-1]
        self.status, self.body = int(status.split()[1]), body
        self.headers = {name.encode(): value.encode() for name, value in (field.split(": ", 1) for field in fields)}


async def ask(
    application: Any, method: str, path: str, body: bytes = b"", headers: tuple[Header, ...] | list[Header] = ()
) -> Answer:
    """Ask one thing and wait for its one answer."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    exchange = Exchange(
        method,
        path.encode(),
        list(headers),
        dict(headers),
        body,
        True,
        lambda _, lines, content: answered.set_result(Answer(lines, content)),
    )
    application.serve(exchange)
    return await answered
