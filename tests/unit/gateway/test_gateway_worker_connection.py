import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.clock import monotonic
from gateway.dispatch import worker_connection
from gateway.dispatch.worker_address import address_of
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer, WorkerConnection
from gateway.dispatch.worker_pool import WorkerPool
from tests.unit.gateway.gateway_fakes import in_loop, turns

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ninference-header-content-length: 3\r\n\r\nabcde"
WHOLE = WorkerAnswer(200, 3, b"abcde")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Worker:
    """A server on loopback that does with each connection what the test says, and the client's side of one."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.lost: list[WorkerConnection] = []

    async def __aenter__(self) -> "Worker":
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._serve(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.connection = await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.abort("the test ends")
        self._server.close()
        await self._server.wait_closed()
        await turns(5)

    async def connect(self) -> WorkerConnection:
        loop = asyncio.get_running_loop()
        make = lambda: WorkerConnection(self.lost.append)  # noqa: E731 - create_connection wants a function
        return (await loop.create_connection(make, "127.0.0.1", self.port))[1]

    async def ask(self) -> WorkerAnswer | ConnectionLost:
        answers: asyncio.Queue[WorkerAnswer | ConnectionLost] = asyncio.Queue()
        self.connection.exchange([b"GET / HTTP/1.1\r\n", b"\r\n"], answers.put_nowait)
        answer = await asyncio.wait_for(answers.get(), 5)
        await turns()
        assert answers.empty(), "told twice"
        return answer


def answering(*parts: bytes, then_close: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            if then_close:
                return

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            return

    return until_closed


@in_loop
async def test_one_connection_carries_exchange_after_exchange():
    async with Worker(answering(ANSWER)) as worker:
        for _ in range(5):
            assert await worker.ask() == WHOLE
            assert worker.connection.idle
        assert worker.lost == []


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@in_loop
async def test_an_answer_in_slices_of_any_size_is_put_together(size):
    slices = [ANSWER[at : at + size] for at in range(0, len(ANSWER), size)]
    async with Worker(answering(*slices)) as worker:
        assert await worker.ask() == WHOLE
        assert await worker.ask() == WHOLE


@in_loop
async def test_a_chunked_answer_is_put_together():
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    async with Worker(answering(chunked)) as worker:
        assert await worker.ask() == WorkerAnswer(200, None, b"abcde")


@in_loop
async def test_a_header_length_does_not_outlive_its_answer():
    plain = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}"
    answers = iter([ANSWER, plain])

    async def serve(reader, writer):
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.read()

    async with Worker(serve) as worker:
        assert await worker.ask() == WHOLE
        assert await worker.ask() == WorkerAnswer(400, None, b"{}")


BROKEN = {
    "garbage": b"\x00\x01\x02 what is this",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "half an answer": ANSWER[:-2],
    "no answer at all": b"",
    "a content length that is no number": ANSWER.replace(b": 5", b": five"),
    "two content lengths": ANSWER.replace(b"content-length: 5\r\n", b"content-length: 5\r\ncontent-length: 6\r\n", 1),
    "a header length that is no number": ANSWER.replace(b": 3", b": -3"),
    "a header length that is too long": ANSWER.replace(b": 3", b": " + b"9" * 13),
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)),
}


@pytest.mark.parametrize("claim", BROKEN)
@in_loop
async def test_what_is_no_whole_answer_is_told_once_as_a_lost_connection(claim):
    async with Worker(answering(BROKEN[claim], then_close=True)) as worker:
        answer = await worker.ask()
        assert isinstance(answer, ConnectionLost), answer
        assert not worker.connection.idle
        assert worker.lost == [worker.connection]


@in_loop
async def test_a_connection_that_changes_its_protocol_is_not_asked_again():
    async with Worker(answering(b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")) as worker:
        assert (await worker.ask()).status == 101
        assert worker.lost == [worker.connection]


@in_loop
async def test_an_answer_larger_than_is_read_is_cut_off(monkeypatch):
    monkeypatch.setattr(worker_connection, "ANSWER_BYTES_MAX", 100_000)
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n" + b"x" * 100_001
    async with Worker(answering(large)) as worker:
        answer = await worker.ask()
        assert isinstance(answer, ConnectionLost)
        assert "100000 bytes" in str(answer) or "not HTTP" in str(answer)


@in_loop
async def test_one_header_that_never_ends_is_cut_off():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        for _ in range(1_000):
            writer.write(b"a" * 65_536)
            await writer.drain()

    async with Worker(serve) as worker:
        assert isinstance(await worker.ask(), ConnectionLost)


@in_loop
async def test_bytes_that_nobody_asked_for_end_the_connection():
    async def serve(reader, writer):
        writer.write(ANSWER)
        await reader.read()

    async with Worker(serve) as worker:
        for _ in range(1_000):
            if worker.lost:
                break
            await asyncio.sleep(0.001)
        assert worker.lost == [worker.connection]
        assert not worker.connection.idle


@pytest.mark.parametrize("extra", [1, 20, len(ANSWER) - 2, len(ANSWER)])
@in_loop
async def test_a_second_answer_behind_the_first_is_never_taken_for_that_of_the_next_request(extra):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        second = ANSWER.replace(b"abcde", b"WRONG")
        writer.write(ANSWER + second[:extra])
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(second[extra:] + ANSWER)
        await writer.drain()
        await reader.read()

    async with Worker(serve) as worker:
        assert await worker.ask() == WHOLE
        if worker.connection.idle:
            assert isinstance(await worker.ask(), ConnectionLost)


@in_loop
async def test_a_worker_that_says_close_is_not_asked_again_on_that_connection():
    closing = ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
    async with Worker(answering(closing, then_close=True)) as worker:
        assert await worker.ask() == WHOLE
        assert not worker.connection.idle


@in_loop
async def test_an_exchange_on_a_connection_that_has_ended_is_told_of_its_loss_at_once_and_once():
    async with Worker(answering(ANSWER)) as worker:
        worker.connection.abort("ended")
        answer = await worker.ask()
        assert isinstance(answer, ConnectionLost)
        assert "before anything was sent" in str(answer)
        assert not worker.connection.idle


@in_loop
async def test_aborting_tells_the_exchange_under_way_once():
    async def serve(reader, writer):
        await reader.read()

    async with Worker(serve) as worker:
        asked = asyncio.ensure_future(worker.ask())
        await turns()
        worker.connection.abort("enough")
        answer = await asked
        assert str(answer) == "enough"
        assert worker.lost == [worker.connection]


@in_loop
async def test_a_pool_connects_tells_of_it_and_replaces_what_was_lost():
    async with Worker(answering(ANSWER)) as worker:
        pool = WorkerPool((address_of(f"http://127.0.0.1:{worker.port}"),), monotonic)
        changed = asyncio.Event()
        pool.on_change = changed.set
        assert not pool.reachable
        assert pool.pick() is None
        pool.start()
        await asyncio.wait_for(changed.wait(), 5)
        assert pool.reachable
        replica, connection = pool.pick()
        changed.clear()
        connection.abort("lost")
        assert pool.reachable, "a connection that merely ended does not make the worker unreachable"
        await asyncio.wait_for(changed.wait(), 5)
        assert connection not in replica.connections
        await pool.close()
        assert replica.connections == [] or all(not c.idle for c in replica.connections)


@in_loop
async def test_a_pool_whose_worker_listens_nowhere_says_so():
    async with Worker(answering(ANSWER)) as worker:
        port = worker.port
    pool = WorkerPool((address_of(f"http://127.0.0.1:{port}"),), monotonic)
    changed = asyncio.Event()
    pool.on_change = changed.set
    pool.start()
    await asyncio.wait_for(changed.wait(), 5)
    assert not pool.reachable
    assert pool.pick() is None
    await pool.close()


@in_loop
async def test_a_pool_picks_the_replica_with_the_fewest_outstanding_rows():
    async with Worker(answering(ANSWER)) as one, Worker(answering(ANSWER)) as other:
        pool = WorkerPool(tuple(address_of(f"http://127.0.0.1:{w.port}") for w in (one, other)), monotonic)
        pool.start()
        for _ in range(1_000):
            if all(replica.connections for replica in pool.replicas):
                break
            await asyncio.sleep(0.001)
        first, second = pool.replicas
        first.outstanding_rows = 5
        assert pool.pick()[0] is second
        second.outstanding_rows = 6
        assert pool.pick()[0] is first
        await pool.close()
