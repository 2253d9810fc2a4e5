"""Peers that do not read, that repeat what may be said once, and that ask twenty thousand things in one breath."""

import re
import socket

import pytest

from tests.unit.http_server.served import Echo, RawClient, Served, served, until

GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
LARGE_BYTES = 32 * 1024 * 1024
"""More than any loopback socket's buffers take."""


class Large(Echo):
    """Answers with very much."""

    def answer(self, exchange) -> None:
        exchange.respond(200, b"", b"x" * LARGE_BYTES)


async def connect_unreading(system: Served) -> RawClient:
    system.server.application = Large()
    client = await system.connect()
    client.writer.transport.pause_reading()
    return client


async def until_unread(system: Served) -> None:
    await until(lambda: system.server.unsent_bytes > 0)


@served(unread_s=60.0)
async def test_an_answer_that_is_not_read_is_given_up_after_its_time(system: Served):
    client = await connect_unreading(system)
    client.send(GET)
    await until_unread(system)
    (connection,) = system.server.connections
    now = system.server.now()
    assert not connection.overdue(now + 59)
    assert connection.overdue(now + 61)
    connection.expire()
    await until(lambda: not system.server.connections)
    assert system.server.unsent_bytes == 0


@served(unread_s=60.0)
async def test_requests_that_keep_coming_gain_an_unread_answer_no_time(system: Served):
    client = await connect_unreading(system)
    client.send(GET)
    await until_unread(system)
    (connection,) = system.server.connections
    begun = system.server.now()
    client.send(GET * 10 + b"GET /a HT")
    await until(lambda: len(connection._waiting) == 10)
    assert connection.overdue(begun + 61)
    connection.expire()
    await until(lambda: not system.server.connections)


@served(unsent_bytes_max=LARGE_BYTES * 2)
async def test_unread_answers_are_bounded_all_together(system: Served):
    clients = [await connect_unreading(system) for _ in range(2)]
    for client in clients:
        client.send(GET)
    await until(lambda: system.server.unsent_bytes > LARGE_BYTES)
    assert len(system.server.connections) == 2
    third = await connect_unreading(system)
    third.send(GET)
    await until(lambda: len(system.server.connections) == 3)
    await until(lambda: len(system.server.connections) == 2)
    assert system.server.unsent_bytes <= LARGE_BYTES * 2


@served()
async def test_an_answer_that_is_read_late_comes_whole(system: Served):
    client = await connect_unreading(system)
    client.send(GET)
    await until_unread(system)
    client.writer.transport.resume_reading()
    assert len((await client.answer())[2]) == LARGE_BYTES
    await until(lambda: system.server.unsent_bytes == 0)


@served()
async def test_a_last_answer_that_nobody_reads_holds_no_connection_open(system: Served):
    client = await connect_unreading(system)
    client.send(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    await until_unread(system)
    (connection,) = system.server.connections
    assert connection.overdue(system.server.now() + 61)
    connection.expire()
    await until(lambda: not system.server.connections)


@pytest.mark.parametrize("name", [b"authorization", b"Host"])
@served()
async def test_what_may_be_said_once_is_refused_where_it_is_said_twice(system: Served, name: bytes):
    client = await system.connect()
    client.send(GET + b"GET /a HTTP/1.1\r\nhost: h\r\n%b: one\r\nx: y\r\n%b: one\r\n\r\n" % (name, name.upper()))
    assert (await client.answer())[0] == 200
    status, _, body = await client.answer()
    assert (status, body) == (400, b"the request has several %b headers" % name.lower())
    assert await client.closed()
    assert len(system.application.exchanges) == 1


@served()
async def test_20_000_requests_in_one_breath_are_answered_in_their_order(system: Served):
    client = await system.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: h\r\n\r\n" % n for n in range(20_000)))
    found = b""
    while b"/19999 " not in found:
        found += await client.reader.read(1 << 20)
    assert [int(n) for n in re.findall(rb"/(\d+) ", found)] == list(range(20_000))


@served()
async def test_20_000_requests_whose_answers_nobody_reads_are_not_all_taken(system: Served):
    client = await system.connect()
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.writer.transport.pause_reading()
    target = b"/" + b"x" * 4_000
    client.send(b"".join(b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % target for _ in range(20_000)))
    await until_unread(system)
    taken = len(system.application.exchanges)
    assert taken < 10_000
    (connection,) = system.server.connections
    await until(lambda: len(connection._waiting) >= 64)
    assert len(system.application.exchanges) == taken
    client.writer.transport.abort()
