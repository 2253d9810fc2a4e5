"""Bodies that are still to come: who is asked before they are read, and who goes when there are too many of them."""

import asyncio
from dataclasses import dataclass, field

import pytest

from http_server.connection import BODY_BYTES_UNASKED
from http_server.exchange import Refusal
from http_server.server import HttpServer, Limits
from tests.unit.http_server.served import Echo, RawClient, Served, served, until

LARGE = 200_000


@dataclass
class Doorkeeper(Echo):
    """Takes large bodies, of those who say the word."""

    asked: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)

    def body_bytes_max(self, target: bytes) -> int:
        return LARGE

    def before_body(self, method: str, target: bytes, fields: dict[bytes, bytes]) -> Refusal | None:
        self.asked.append((method, target, fields.get(b"word")))
        return None if fields.get(b"word") == b"yes" else (401, b"x-why: no word\r\n", b"say the word")


def kept(system: Served) -> Doorkeeper:
    doorkeeper = Doorkeeper(system.application.held)
    system.application = system.server.application = doorkeeper
    system.server.before_body = doorkeeper.before_body
    return doorkeeper


def post(size: int, *lines: bytes, target: bytes = b"/p") -> bytes:
    headers = b"".join(line + b"\r\n" for line in (b"host: h", *lines))
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (target, headers, size)


def test_a_server_asks_an_application_that_looks_ahead_and_no_other():
    async def hooks() -> list[object]:
        doorkeeper = Doorkeeper()
        return [HttpServer(application, Limits()).before_body for application in (doorkeeper, Echo())]

    asked, unasked = asyncio.run(hooks())
    assert asked is not None
    assert unasked is None


@served()
async def test_who_may_not_send_a_large_body_is_told_before_it_is_read(system: Served):
    doorkeeper = kept(system)
    client = await system.connect()
    client.send(post(LARGE) + b"x" * 100)
    status, headers, body = await client.answer()
    assert (status, headers["x-why"], headers["connection"], body) == (401, "no word", "close", b"say the word")
    assert await client.closed()
    assert doorkeeper.asked == [("POST", b"/p", None)]
    assert (doorkeeper.exchanges, system.server.held_bytes) == ([], 0)


@served()
async def test_who_may_not_send_is_not_given_leave_to(system: Served):
    kept(system)
    client = await system.connect()
    client.send(post(4, b"expect: 100-continue"))
    assert (await client.reader.readline()).startswith(b"HTTP/1.1 401 ")


@served()
async def test_who_may_send_is_given_leave_and_read_and_asked_once(system: Served):
    doorkeeper = kept(system)
    client = await system.connect()
    client.send(post(LARGE, b"word: yes", b"expect: 100-continue"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    for _ in range(4):
        client.send(b"x" * (LARGE // 4))
        await client.writer.drain()
    assert len((await client.answer())[2]) == len(b"/p ") + LARGE
    assert doorkeeper.asked == [("POST", b"/p", b"yes")]


@pytest.mark.parametrize("pieces", [1, 2])
@served()
async def test_a_small_request_is_served_without_being_asked_about_also_in_two_pieces(system: Served, pieces: int):
    doorkeeper = kept(system)
    client = await system.connect()
    head, body = post(BODY_BYTES_UNASKED), b"x" * BODY_BYTES_UNASKED
    if pieces == 1:
        client.send(head + body)
    else:
        client.send(head)
        await until(lambda: any(not connection.idle for connection in system.server.connections))
        client.send(body)
    assert (await client.answer())[0] == 200
    assert doorkeeper.asked == []


@served()
async def test_a_chunked_body_is_asked_about_once_it_is_large(system: Served):
    doorkeeper = kept(system)
    client = await system.connect()
    client.send(b"POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(BODY_BYTES_UNASKED // 1_000 + 1):
        assert doorkeeper.asked == []
        client.send(b"3e8\r\n" + b"x" * 1_000 + b"\r\n")
        await client.writer.drain()
    assert (await client.answer())[0] == 401


@served()
async def test_an_early_refusal_waits_for_the_answers_before_it(system: Served):
    system.application.held = True
    doorkeeper = kept(system)
    client = await system.connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n" + post(LARGE))
    await until(lambda: bool(doorkeeper.asked))
    doorkeeper.answer(doorkeeper.exchanges[0])
    assert [(await client.answer())[0] for _ in range(2)] == [200, 401]


async def hold(system: Served, size: int) -> RawClient:
    before = system.server.held_bytes
    client = await system.connect()
    client.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n" + b"x" * size)
    await until(lambda: system.server.held_bytes != before)
    return client


@served(held_bytes_max=2_500)
async def test_of_unfinished_bodies_the_largest_makes_room_and_small_requests_go_on(system: Served):
    small, giant, other = await hold(system, 500), await hold(system, 990), await hold(system, 900)
    caller = await system.connect()
    caller.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 200\r\n\r\n" + b"x" * 200)
    assert (await caller.answer())[0] == 200
    status, _, body = await giant.answer()
    assert (status, b"make room" in body) == (503, True)
    for client, missing in ((small, 500), (other, 100)):
        client.send(b"x" * missing)
        assert (await client.answer())[0] == 200
    assert system.server.held_bytes == 0


@served(held_bytes_max=2_500)
async def test_of_unfinished_bodies_the_one_that_took_longest_makes_room_before_larger_ones(system: Served):
    slow = await hold(system, 700)
    (connection,) = system.server.connections
    connection.waits_since -= 20.0
    quick = [await hold(system, 950) for _ in range(2)]
    assert (await slow.answer())[0] == 503
    for client in quick:
        client.send(b"x" * 50)
        assert (await client.answer())[0] == 200


@served(held_bytes_max=2_500)
async def test_a_connection_that_was_idle_for_long_has_not_held_its_body_for_long(system: Served):
    quick = await system.connect()
    quick.send(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
    await quick.answer()
    (connection,) = system.server.connections
    connection.waits_since -= 70.0
    for _ in range(2):
        await hold(system, 900)
    for each in system.server.connections - {connection}:
        each.waits_since -= 1.0
    quick.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1_000)
    assert (await quick.answer())[0] == 200
    assert system.server.held_bytes == 900  # of the slow ones, one had to go


@served(held_bytes_max=2_500)
async def test_who_sends_more_than_all_may_hold_is_refused_itself(system: Served):
    kept(system)
    client = await system.connect()
    client.send(post(LARGE, b"word: yes") + b"x" * 3_000)
    assert (await client.answer())[0] == 503
    assert await client.closed()


@served(held_bytes_max=2_500)
async def test_bodies_that_wait_behind_an_answer_make_room_as_well(system: Served):
    system.application.held = True
    patient = await system.connect()
    patient.send(
        b"".join(b"POST /%d HTTP/1.1\r\nhost: h\r\ncontent-length: 700\r\n\r\n" % n + b"x" * 700 for n in range(4))
    )
    await until(lambda: system.server.held_bytes == 2_100)
    caller = await system.connect()
    caller.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 600\r\n\r\n" + b"x" * 600)
    await until(lambda: len(system.application.exchanges) == 2)
    for exchange in list(system.application.exchanges):
        system.application.answer(exchange)
    assert (await caller.answer())[0] == 200
    assert [(await patient.answer())[0] for _ in range(2)] == [200, 503]
    assert await patient.closed()
