"""A Redis that says what a test tells it to, on loopback."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import hiredis

DEADLINE_S = 10.0


def bulk(data: bytes) -> bytes:
    """Encode one string as Redis would."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


class ScriptedRedis:
    """A server on loopback that keeps what it is told and answers as the test says."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.replies: dict[bytes, bytes | None] = {b"PING": b"+PONG\r\n"}
        """Reply by verb; None: no answer. A verb that is not here is echoed."""
        self.answer: Callable[[list[bytes]], bytes | None] = self._answer
        """What replies to a command; by `replies` unless the test has its own."""
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "ScriptedRedis":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while command := parser.gets():
                    self.commands.append(command)
                    reply = self.answer(command)
                    if reply is not None:
                        writer.write(reply)
                self._changed.set()
        writer.close()

    def _answer(self, command: list[bytes]) -> bytes | None:
        return self.replies.get(command[0], bulk(command[-1]))

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def push(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    def url(self, login: str = "", database: str = "") -> str:
        return f"redis://{login}127.0.0.1:{self.port}{database}"


def played(scene: Callable[[ScriptedRedis], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(DEADLINE_S), ScriptedRedis() as server:
            await scene(server)

    asyncio.run(play())
