"""A server in the test's own event loop, an application that the test drives, and a client of raw bytes."""

import asyncio
import functools
import inspect
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from http_server.exchange import Exchange, Header
from http_server.server import HttpServer, Limits

BODY_BYTES_MAX = 1_000
DEADLINE_S = 5.0


@dataclass
class Echo:
    """Answers with what it was asked, at once, or when the test says so (`held`)."""

    held: bool = False
    exchanges: list[Exchange] = field(default_factory=list)

    def body_bytes_max(self, target: bytes) -> int:
        return BODY_BYTES_MAX

    def serve(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if not self.held:
            self.answer(exchange)

    def answer(self, exchange: Exchange) -> None:
        exchange.respond(200, b"x-method: %b\r\n" % exchange.method.encode(), exchange.target + b" " + exchange.body)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        return b"content-type: text/plain\r\n", detail.encode()


@dataclass
class Served:
    """A listening server and its application."""

    server: HttpServer
    application: Echo
    port: int
    clients: list["RawClient"] = field(default_factory=list)

    async def connect(self) -> "RawClient":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(RawClient(reader, writer))
        return self.clients[-1]


@dataclass
class RawClient:
    """Sends bytes, reads answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = b"" if bodiless else await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def closed(self) -> bool:
        return await self.reader.read(1) == b""


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop go round until something holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - it is the loop's own turns that are waited for
            await asyncio.sleep(0)


def served(**limits: Any) -> Callable[[Callable[[Served], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Run a test in a loop of its own, with a server; the server must end with nothing held and nobody connected."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        async def run(arguments: dict[str, Any]) -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            application = Echo()
            server = HttpServer(application, Limits(**limits))
            await server.listen(listener)
            system = Served(server, application, listener.getsockname()[1])
            async with asyncio.timeout(DEADLINE_S):
                await test(system, **arguments)
            for client in system.clients:
                client.writer.close()
            await server.close(0.1)
            await asyncio.gather(*(client.writer.wait_closed() for client in system.clients), return_exceptions=True)
            assert server.held_bytes == 0
            await until(lambda: not server.connections)

        @functools.wraps(test)
        def wrapped(**arguments: Any) -> None:
            asyncio.run(run(arguments))

        # pytest asks for fixtures by the names of the parameters; the first one is ours.
        signature = inspect.signature(test)
        wrapped.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return wrapped

    return decorate
