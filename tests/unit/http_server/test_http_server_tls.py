"""The server over TLS, on asyncio's loop and on uvloop's, which have each their own TLS."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from http_server import tls_listener
from http_server.server import HttpServer, Limits
from settings.tls import ClientTls, ServerTls, client_context, server_context
from tests.unit.http_server.served import DEADLINE_S, Echo, RawClient, until
from tests.unit.settings.certificates import authority, signed

CA = authority("ca")
GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Secured:
    """A server with a certificate, and the context of a caller that trusts it."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.directory = directory
        self.context = self.issued()
        self.calling = client_context(ClientTls(ca=CA.write(directory)[0]))
        self.application = Echo()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.server = HttpServer(self.application, limits)
        self.writers: list[asyncio.StreamWriter] = []

    def issued(self) -> ssl.SSLContext:
        """Make another certificate for the port."""
        certificate, key = signed("port", CA, "127.0.0.1").write(self.directory)
        return server_context(ServerTls(certificate=certificate, key=key))

    async def start(self) -> None:
        await self.server.listen(self.listener, lambda: self.context)

    async def connect(self) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.calling)
        self.writers.append(writer)
        return RawClient(reader, writer)

    async def stop(self) -> None:
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)
        await self.server.close(1.0)
        await until(lambda: not self.server.connections)
        assert self.server.held_bytes == self.server.unsent_bytes == 0


def secured(**limits: Any) -> Callable[[Callable[[Secured], Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Run a test in a loop of either kind, with a server over TLS."""

    def decorate(test: Callable[[Secured], Coroutine[Any, Any, None]]) -> Callable[..., None]:
        async def run(directory: Path) -> None:
            system = Secured(directory, Limits(**limits))
            await system.start()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await test(system)
            finally:
                await system.stop()

        def wrapped(tmp_path: Path, loop: str) -> None:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(run(tmp_path))

        functools.update_wrapper(wrapped, test, assigned=("__name__", "__doc__", "__module__"), updated=())
        del wrapped.__wrapped__  # type: ignore[attr-defined] # pytest would ask for its parameters
        return pytest.mark.parametrize("loop", LOOPS)(wrapped)

    return decorate


@secured()
async def test_requests_are_answered_over_tls_one_after_the_other(system: Secured):
    client = await system.connect()
    for n in range(3):
        client.send(b"POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\n%d" % n)
        assert (await client.answer())[2] == b"/b %d" % n


@secured()
async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(system: Secured):
    for _ in range(20):
        client = await system.connect()
        client.send(GET + GET)
        assert [(await client.answer())[2] for _ in range(2)] == [b"/a "] * 2


@secured()
async def test_a_large_body_and_a_large_answer_come_whole(system: Secured):
    system.application.body_bytes_max = lambda target: 8_000_000  # type: ignore[method-assign]
    client = await system.connect()
    client.send(b"POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
    assert len((await client.answer())[2]) == 4_000_003


@secured()
async def test_a_connection_is_ended_with_a_goodbye_that_is_no_cut(system: Secured):
    client = await system.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    assert (await client.answer())[1]["connection"] == "close"
    assert await client.closed()


@secured()
async def test_a_refused_request_is_told_why(system: Secured):
    client = await system.connect()
    client.send(b"NONSENSE\r\n\r\n")
    assert (await client.answer())[0] == 400


@secured()
async def test_a_client_that_says_goodbye_while_it_is_answered_leaves_nothing_behind(system: Secured):
    system.application.held = True
    client = await system.connect()
    client.send(GET)
    await until(lambda: bool(system.application.exchanges))
    client.writer.close()
    await until(lambda: not system.server.connections)
    system.application.answer(system.application.exchanges[0])


@secured()
async def test_each_connection_gets_the_certificate_of_its_moment(system: Secured):
    def serial(client: RawClient) -> str:
        return client.writer.get_extra_info("peercert")["serialNumber"]

    before = await system.connect()
    system.context = system.issued()
    after = await system.connect()
    assert serial(before) != serial(after)
    before.send(GET)
    assert (await before.answer())[0] == 200


@secured()
async def test_bytes_that_are_no_tls_end_their_connection_and_no_other(system: Secured):
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    writer.write(GET)
    assert b"HTTP/1.1 200" not in await reader.read()
    writer.close()
    client = await system.connect()
    client.send(GET)
    assert (await client.answer())[0] == 200


@secured()
async def test_a_handshake_that_does_not_go_on_is_cut_in_time(system: Secured):
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    assert await reader.read() == b""  # the fixture below has made the time short
    writer.close()


@secured(connections_max=3)
async def test_handshakes_count_as_connections_and_beyond_those_what_comes_is_cut(system: Secured):
    kept = await system.connect()
    silent = [await asyncio.open_connection("127.0.0.1", system.port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    assert await reader.read() == b""
    kept.send(GET)
    assert (await kept.answer())[0] == 200
    for _, each in (*silent, (reader, writer)):
        each.close()

    async def served() -> bool:
        try:
            client = await system.connect()
        except OSError:
            return False
        client.send(GET)
        return (await client.answer())[0] == 200

    while not await served():  # noqa: ASYNC110 - that the others are gone is heard from the server alone
        await asyncio.sleep(0)


@secured()
async def test_a_server_that_leaves_cuts_handshakes_and_ends_idle_connections(system: Secured):
    client = await system.connect()
    reader, writer = await asyncio.open_connection("127.0.0.1", system.port)
    await system.server.close(1.0)
    assert await client.closed()
    assert await reader.read() == b""
    writer.close()


@secured()
async def test_a_process_without_descriptors_accepts_again_once_it_has_some(system: Secured):
    accept, failed = socket.socket.accept, []

    def out_of_descriptors(listener: socket.socket) -> Any:
        if not failed:
            failed.append(True)
            raise OSError(24, "Too many open files")
        return accept(listener)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "accept", out_of_descriptors)
        patch.setattr(tls_listener, "ACCEPT_AGAIN_S", 0.01)
        await system.connect()
        client = await system.connect()
        client.send(GET)
        assert (await client.answer())[0] == 200
    assert failed


@pytest.fixture(autouse=True)
def short_handshakes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "does_not_go_on" in request.node.name:
        monkeypatch.setattr(tls_listener, "HANDSHAKE_S", 0.05)
