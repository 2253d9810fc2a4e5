import pytest

from http_server import connection as connection_module
from tests.unit.http_server.served import Served, served, until

GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"


def post(body: bytes, target: bytes = b"/b") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (target, len(body), body)


@served()
async def test_a_connection_serves_one_request_after_the_other(system: Served):
    client = await system.connect()
    for _ in range(3):
        client.send(GET)
        assert (await client.answer())[::2] == (200, b"/a ")
        client.send(post(b"body"))
        assert (await client.answer())[::2] == (200, b"/b body")


@served()
async def test_a_request_has_its_method_path_query_and_headers(system: Served):
    client = await system.connect()
    client.send(b"PUT /a%20b?c=d HTTP/1.1\r\nhost: h\r\nX-One: 1\r\nx-one: 2\r\ncontent-length: 0\r\n\r\n")
    await client.answer()
    (exchange,) = system.application.exchanges
    assert (exchange.method, exchange.path, exchange.query) == ("PUT", "/a b", b"c=d")
    assert exchange.headers == [(b"host", b"h"), (b"x-one", b"1"), (b"x-one", b"2"), (b"content-length", b"0")]


@served()
async def test_bytes_may_come_one_by_one(system: Served):
    client = await system.connect()
    for byte in post(b"slow") + GET:
        client.send(bytes([byte]))
        await client.writer.drain()
    assert (await client.answer())[2] == b"/b slow"
    assert (await client.answer())[2] == b"/a "


@served()
async def test_a_chunked_body_is_read_whole(system: Served):
    client = await system.connect()
    client.send(b"POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await client.answer())[2] == b"/c abcde"


@served()
async def test_pipelined_requests_are_answered_in_their_order_however_late_the_first_is(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(b"".join(post(b"%d" % n) for n in range(500)))
    for n in range(500):
        await until(lambda n=n: len(system.application.exchanges) > n)
        assert len(system.application.exchanges) == n + 1  # one at a time
        system.application.answer(system.application.exchanges[n])
        assert (await client.answer())[2] == b"/b %d" % n


@served()
async def test_more_is_not_read_while_many_wait_and_is_read_on_afterwards(system: Served):
    system.application.held = True
    client = await system.connect()
    for n in range(2_000):
        client.send(post(b"x" * 900, b"/%d" % n))
    for n in range(2_000):
        await until(lambda n=n: len(system.application.exchanges) > n)
        system.application.answer(system.application.exchanges[n])
        assert (await client.answer())[2].startswith(b"/%d " % n)


@served()
async def test_an_answer_to_head_has_the_length_and_not_the_body(system: Served):
    client = await system.connect()
    client.send(b"HEAD /a HTTP/1.1\r\nhost: h\r\n\r\n" + GET)
    status, headers, _ = await client.answer(bodiless=True)
    assert (status, headers["content-length"]) == (200, "3")
    assert (await client.answer())[2] == b"/a "


@pytest.mark.parametrize(
    "head", [b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", b"GET /a HTTP/1.0\r\n\r\n"]
)
@served()
async def test_a_connection_is_closed_where_the_client_asks_for_it(system: Served, head: bytes):
    client = await system.connect()
    client.send(head)
    _, headers, body = await client.answer()
    assert (headers["connection"], body) == ("close", b"/a ")
    assert await client.closed()


UPGRADE = (
    b"POST /u HTTP/1.1\r\nhost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n%b: h2c\r\ncontent-length: 4\r\n\r\nbody"
)


@pytest.mark.parametrize("name", [b"Upgrade", b"UpGrAde"])
@served()
async def test_an_offer_to_upgrade_is_not_heard_and_the_body_is_read(system: Served, name: bytes):
    client = await system.connect()
    client.send(GET + UPGRADE % name + UPGRADE % name)
    assert (await client.answer())[2] == b"/a "
    for _ in range(2):
        assert (await client.answer())[2] == b"/u body"
    for byte in UPGRADE % name:  # also where it comes in pieces
        client.send(bytes([byte]))
        await client.writer.drain()
    assert (await client.answer())[2] == b"/u body"
    assert system.application.exchanges[1].headers == [
        (b"host", b"h"),
        (b"connection", b"Upgrade, HTTP2-Settings"),
        (b"content-length", b"4"),
    ]


@served()
async def test_trailers_say_nothing(system: Served):
    client = await system.connect()
    client.send(b"POST /t HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-late: 1\r\n\r\n")
    assert (await client.answer())[2] == b"/t x"
    assert system.application.exchanges[0].headers == [(b"host", b"h"), (b"transfer-encoding", b"chunked")]


CHUNKED = b"POST /t HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (CHUNKED + b"1\r\nx\r\n0\r\nx: ", b"a" * 60_000),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 10_000),
        (CHUNKED + b"1;", b"e" * 60_000),
        (CHUNKED, (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 300),
    ],
    ids=[
        "a trailer without end",
        "trailers without end",
        "a chunk extension without end",
        "extensions on small chunks",
    ],
)
@served()
async def test_framing_without_end_is_refused(system: Served, start: bytes, more: bytes):
    client = await system.connect()
    client.send(start)
    for _ in range(100):
        client.send(more)
    status, _, body = await client.answer()
    assert (status, b"framing" in body or b"at most" in body) in {(431, True), (413, True)}
    assert system.application.exchanges == []


@served()
async def test_a_chunked_body_of_single_bytes_is_not_taken_for_framing(system: Served):
    client = await system.connect()
    client.send(CHUNKED + b"1\r\nx\r\n" * 1_000 + b"0\r\n\r\n")
    assert (await client.answer())[2] == b"/t " + b"x" * 1_000


@served()
async def test_what_is_owed_before_a_refusal_is_answered_first(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(GET + post(b"1") + b"GARBAGE\r\n\r\n" + GET)
    for n in range(2):
        await until(lambda n=n: len(system.application.exchanges) > n)
        system.application.answer(system.application.exchanges[n])
    assert (await client.answer())[::2] == (200, b"/a ")
    assert (await client.answer())[::2] == (200, b"/b 1")
    assert (await client.answer())[0] == 400
    assert await client.closed()
    assert len(system.application.exchanges) == 2


@served()
async def test_what_follows_a_last_request_is_not_listened_to(system: Served):
    client = await system.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n" + GET + b"GARBAGE")
    assert (await client.answer())[::2] == (200, b"/a ")
    assert await client.closed()
    assert len(system.application.exchanges) == 1


@served()
async def test_an_encoded_slash_divides_no_names(system: Served):
    client = await system.connect()
    client.send(b"GET /a%2Fb%2fc%20d HTTP/1.1\r\nhost: h\r\n\r\n")
    await client.answer()
    assert system.application.exchanges[0].path == "/a%2Fb%2fc d"


@served(held_bytes_max=100_000)
async def test_bodies_that_wait_for_their_turn_are_held_and_bounded(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(b"".join(post(b"x" * 900) for _ in range(60)))
    await until(lambda: system.server.held_bytes == 59 * 900)
    for n in range(60):
        await until(lambda n=n: len(system.application.exchanges) > n)
        assert system.server.held_bytes == (59 - n) * 900
        system.application.answer(system.application.exchanges[n])
        assert (await client.answer())[0] == 200


@served()
async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(system: Served):
    client = await system.connect()
    client.send(b"POST /e HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    assert (await client.answer())[2] == b"/e body"


@served()
async def test_a_half_closed_client_still_gets_its_answer(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(GET)
    client.writer.write_eof()
    await until(lambda: bool(system.application.exchanges))
    system.application.answer(system.application.exchanges[0])
    assert (await client.answer())[2] == b"/a "
    assert await client.closed()


@served()
async def test_an_answer_to_a_client_that_has_left_goes_nowhere(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(GET + GET)
    await until(lambda: bool(system.application.exchanges))
    client.writer.transport.abort()
    for n in range(2):  # what it asked is still answered, and the bytes go nowhere
        await until(lambda n=n: len(system.application.exchanges) > n or not system.server.connections)
        for exchange in system.application.exchanges[n:]:
            system.application.answer(exchange)
    await until(lambda: not system.server.connections)


CHUNKS_OF_TOO_MUCH = (
    b"POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"x" * 500 + b"\r\n"
)


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400, "not HTTP/1.1"),
        (b"GET /a HTTP/9.9\r\n\r\n", 505, "HTTP/1.1 is spoken here"),
        (b"GET /a HTTP/1.2\r\nhost: h\r\n\r\n", 505, "HTTP/1.1 is spoken here"),
        (b"GET /a HTTP/2.0\r\nhost: h\r\n\r\n", 505, "HTTP/1.1 is spoken here"),
        (b"GET /a HTTP/2.0\r\nhost: h\r\nconnection: keep-alive\r\n\r\n", 505, "HTTP/1.1 is spoken here"),
        (b"GET /a\r\n\r\n", 505, "HTTP/1.1 is spoken here"),
        (b"GET /a HTTP/1.1\r\n\r\n", 400, "no host header"),
        (b"POST /a HTTP/1.1\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n", 400, "no host header"),
        (b"GET /a HTTP/1.1\r\nhost: h\r\nbad header\r\n\r\n", 400, "not HTTP/1.1"),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n", 400, "not HTTP/1.1"),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", 400, "not HTTP/1.1"),
        (
            b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "not HTTP/1.1",
        ),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "not HTTP/1.1"),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1001\r\n\r\n", 413, "1001 bytes; at most 1000"),
        (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999\r\n\r\n", 413, "at most 1000"),
        (CHUNKS_OF_TOO_MUCH + b"1f5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n", 413, "more bytes; at most 1000"),
        (b"GET /a HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "more than 128 headers"),
        (b"GET /a HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 200_000, 431, "more than 65536 bytes"),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "no proxy"),
    ],
)
@served()
async def test_what_is_no_request_is_refused_by_name_and_the_connection_ends(
    system: Served, sent: bytes, status: int, said: str
):
    client = await system.connect()
    client.send(sent)
    found, headers, body = await client.answer()
    assert (found, headers["connection"]) == (status, "close")
    assert said in body.decode()
    assert await client.closed()
    assert system.application.exchanges == []


@served()
async def test_a_sender_in_the_middle_of_a_body_that_is_too_large_hears_of_it(system: Served):
    client = await system.connect()
    client.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n" + b"x" * 8_000_000)
    assert (await client.answer())[0] == 413


@served()
async def test_a_refused_sender_that_goes_on_for_ever_is_cut(system: Served):
    client = await system.connect()
    client.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999\r\n\r\n")
    assert (await client.answer())[0] == 413

    async def go_on() -> None:
        for _ in range(connection_module.LINGER_BYTES_MAX // 65_536 + 2_000):
            client.send(b"x" * 65_536)
            await client.writer.drain()

    with pytest.raises(ConnectionError):
        await go_on()


@served(connections_max=2)
async def test_more_connections_than_allowed_are_told_so(system: Served):
    clients = [await system.connect() for _ in range(3)]
    assert (await clients[2].answer())[0] == 503
    clients[0].send(GET)
    assert (await clients[0].answer())[0] == 200


@pytest.mark.parametrize(
    ("sent", "limit"),
    [(b"GET /a HT", "head_s"), (b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nx", "body_s")],
)
@served(head_s=10.0, body_s=30.0)
async def test_a_request_that_does_not_arrive_in_time_is_told_so(system: Served, sent: bytes, limit: str):
    client = await system.connect()
    client.send(sent)
    await until(lambda: any(not connection.idle for connection in system.server.connections))
    (connection,) = system.server.connections
    most_s = getattr(system.server.limits, limit)
    assert not connection.overdue(connection.waits_since + most_s - 0.1)
    assert connection.overdue(connection.waits_since + most_s + 0.1)
    connection.expire()
    assert (await client.answer())[0] == 408


@served(keep_alive_s=75.0)
async def test_an_idle_connection_is_closed_after_its_time_without_a_word(system: Served):
    client = await system.connect()
    client.send(GET)
    await client.answer()
    (connection,) = system.server.connections
    assert not connection.overdue(connection.waits_since + 74)
    assert connection.overdue(connection.waits_since + 76)
    connection.expire()
    assert await client.closed()


@served()
async def test_a_request_that_is_being_answered_is_never_overdue(system: Served):
    system.application.held = True
    client = await system.connect()
    client.send(GET)
    await until(lambda: bool(system.application.exchanges))
    (connection,) = system.server.connections
    assert not connection.overdue(connection.waits_since + 10_000)


@served()
async def test_a_leaving_server_closes_idle_connections_and_answers_what_is_in_flight(system: Served):
    system.application.held = True
    idle, busy = await system.connect(), await system.connect()
    busy.send(GET)
    await until(lambda: len(system.server.connections) == 2 and bool(system.application.exchanges))
    system.server.call_soon(system.application.answer, system.application.exchanges[0])
    await system.server.close(5.0)
    assert await idle.closed()
    _, headers, body = await busy.answer()
    assert (headers["connection"], body) == ("close", b"/a ")
