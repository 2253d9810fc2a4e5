"""What HTTP/1.1 says of messages, and a parser leaves to the server: versions, targets, empty lines, leave to send."""

import asyncio

import pytest

from http_server.connection import HEAD_BYTES_MAX, TOLD_MAX
from http_server.server import Limits, connections_within
from tests.unit.http_server.served import Served, served, until

GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
EXPECTING = b"POST /e HTTP/1.%d\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"


def head_of_size(size: int) -> bytes:
    start, end = b"GET /a HTTP/1.1\r\nhost: h\r\nx: ", b"\r\n\r\n"
    return start + b"y" * (size - len(start) - len(end) + 2) + end  # the empty line is none of its lines


@pytest.mark.parametrize(
    "before", [b"", GET, GET * 4_000, b"\r\n"], ids=["alone", "second", "after many", "after CRLF"]
)
@pytest.mark.parametrize("pieces", [1, 3])
@served()
async def test_a_head_is_taken_up_to_its_bound_and_not_a_byte_further(system: Served, before: bytes, pieces: int):
    for more, status in ((0, 200), (1, 431)):
        client = await system.connect()
        sent = before + head_of_size(HEAD_BYTES_MAX + more)
        for n in range(pieces):
            client.send(sent[len(sent) * n // pieces : len(sent) * (n + 1) // pieces])
            await client.writer.drain()
            await asyncio.sleep(0)
        for _ in range(before.count(b"GET")):
            assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == status


@served()
async def test_a_client_that_waits_for_leave_behind_another_request_gets_it_in_its_turn(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(GET + GET + EXPECTING % 1)
    for n in range(2):
        await until(lambda n=n: len(system.application.exchanges) > n)
        system.application.answer(system.application.exchanges[n])
    assert [(await client.answer())[2] for _ in range(2)] == [b"/a "] * 2
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body" + GET)
    await until(lambda: len(system.application.exchanges) > 2)
    system.application.answer(system.application.exchanges[2])
    assert (await client.answer())[2] == b"/e body"


@served()
async def test_a_client_of_http_1_0_is_given_no_leave_that_it_would_take_for_an_answer(system: Served):
    client = await system.connect()
    client.send(EXPECTING % 0)
    await until(lambda: any(not connection.idle for connection in system.server.connections))
    client.send(b"body")
    assert (await client.answer())[2] == b"/e body"


@served()
async def test_a_client_of_http_1_0_that_asks_to_keep_its_connection_is_told_that_it_may(system: Served):
    client = await system.connect()
    for _ in range(2):
        client.send(b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "keep-alive")
    system.server.draining = True
    client.send(b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert (await client.answer())[1]["connection"] == "close"
    assert await client.closed()


@served()
async def test_a_client_of_http_1_1_is_not_told_what_goes_without_saying(system: Served):
    client = await system.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: keep-alive\r\n\r\n")
    assert "connection" not in (await client.answer())[1]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://other:80/a%20b?c=d", "/a b", b"c=d"),
        (b"HTTPS://h", "/", b""),
        (b"http://h?c=d", "/", b"c=d"),
        (b"http://h//a", "//a", b""),
        (b"*", "*", b""),
        (b"ftp://h/a", "ftp://h/a", b""),
    ],
)
@served()
async def test_a_target_with_scheme_and_authority_is_read_by_its_path(
    system: Served, target: bytes, path: str, query: bytes
):
    client = await system.connect()
    client.send(b"OPTIONS %b HTTP/1.1\r\nhost: h\r\n\r\n" % target)
    assert (await client.answer())[0] == 200
    (exchange,) = system.application.exchanges
    assert (exchange.path, exchange.query) == (path, query)


@served(keep_alive_s=75.0)
async def test_empty_lines_before_a_request_say_nothing_and_gain_no_time(system: Served):
    client = await system.connect()
    client.send(b"\r\n" + GET)
    await client.answer()
    (connection,) = system.server.connections
    connection.waits_since -= 70.0
    waited_since = connection.waits_since
    read = system.server.now()
    client.send(b"\r\n")
    client.send(b"\r\n\r\n\r\n")
    while system.server.now() < read + 0.02:  # noqa: ASYNC110 - that nothing was made of them is heard from nobody
        await asyncio.sleep(0)
    assert (connection.idle, connection.waits_since) == (True, waited_since)
    assert connection.overdue(waited_since + 76.0)
    client.send(b"\r\n" + GET)
    assert (await client.answer())[2] == b"/a "


@served(head_s=10.0)
async def test_an_empty_line_in_a_head_that_has_begun_is_none_that_says_nothing(system: Served):
    client = await system.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: h")
    await until(lambda: any(not connection.idle for connection in system.server.connections))
    client.send(b"\r\n")
    client.send(b"\r\n")
    assert (await client.answer())[2] == b"/a "


@served(head_s=10.0)
async def test_a_head_that_begins_behind_another_request_has_its_time_once(system: Served):
    client = await system.connect()
    client.send(GET + b"GET /b HT")
    await client.answer()
    (connection,) = system.server.connections
    begun = connection.waits_since
    client.send(b"TP/1.1\r\n")
    client.send(b"x")
    while system.server.now() < begun + 0.02:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    assert (connection.idle, connection.waits_since) == (False, begun)


@served()
async def test_what_was_asked_before_a_half_close_is_answered_however_slowly_it_is_read(system: Served):
    def answer_largely(exchange) -> None:
        exchange.respond(200, b"", b"x" * 400_000)

    system.application.answer = answer_largely  # type: ignore[method-assign]
    client = await system.connect()
    client.writer.transport.pause_reading()
    client.send(GET * 50)
    await until(lambda: system.server.unsent_bytes > 0)
    (connection,) = system.server.connections
    client.writer.write_eof()
    await until(lambda: connection._ended)
    assert not connection.idle
    client.writer.transport.resume_reading()
    assert [len((await client.answer())[2]) for _ in range(50)] == [400_000] * 50
    assert await client.closed()


@served(connections_max=1)
async def test_connections_far_above_the_bound_are_cut_without_a_word(system: Served):
    clients = [await system.connect() for _ in range(TOLD_MAX + 4)]
    told = [await client.reader.read() for client in clients[1:]]
    assert [answer[:12] for answer in told] == [b"HTTP/1.1 503"] * TOLD_MAX + [b""] * 3
    clients[0].send(GET)
    assert (await clients[0].answer())[0] == 200


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(-1, 4_096), (1 << 20, 4_096), (5_462, 4_096), (1_024, 768), (1, 1)]
)
def test_connections_leave_a_quarter_of_the_descriptors_to_the_rest_of_the_process(descriptors: int, connections: int):
    assert connections_within(Limits(), descriptors) == connections
