"""The load itself, in a process of its own: open-loop arrivals over keep-alive connections, every answer checked.

A LoadSpec as one line of JSON on stdin; on stdout lines of JSON, each a list of `Asked`. It ends after its phases, or
soon after stdin is closed.
"""

import asyncio
import contextlib
import gc
import random
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any

import httptools
import msgspec
import uvloop

from tests.fault.load_records import HUNG_UP, Asked, LoadSpec, Question, answer_key

TELL_S = 0.02
"""How often what happened is told."""

TICK_S = 0.002
TOLERANCE = 1e-4
WAITING_MAX = 200_000


class _Answer(msgspec.Struct):
    predictions: list[float]
    version: str
    degraded: list[str]


class _Refusal(msgspec.Struct):
    code: str = ""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


def problem_of(question: Question, answer: _Answer) -> str:
    """Say what is wrong with a 200; empty where it is right."""
    expected = question.expected.get(answer_key(answer.version, answer.degraded))
    if expected is None:
        return f"version {answer.version!r} with {answer.degraded} cannot have answered"
    said = {"variant_fallback", "static_score"} & set(answer.degraded)
    if question.drawn and answer.version != question.drawn and not said:
        return f"version {answer.version} answered for {question.drawn} and does not say why"
    # Written so that a NaN is wrong too.
    if len(answer.predictions) != 1 or not abs(answer.predictions[0] - expected) <= TOLERANCE:
        return f"{answer.predictions} from version {answer.version} {answer.degraded}, expected {expected}"
    return ""


class _Client(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._closes = False
        self.question, self.due_s, self.sent_s = -1, 0.0, 0.0

    def ask(self, number: int, due_s: float) -> None:
        assert self._transport is not None
        self.question, self.due_s, self.sent_s = number, due_s, time.monotonic()
        self._transport.write(self._load.requests[number])

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._load.lost(self, f"no HTTP: {error}")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._load.lost(self, f"connection lost: {exc or 'closed'}")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection" and value.lower() == b"close":
            self._closes = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status, body, self._body = self._parser.get_status_code(), self._body, b""
        if self._closes and self._transport is not None:
            self._transport.close()
            self._transport = None
        self._load.answered(self, status, body, stays=not self._closes)


class _Load:
    def __init__(self, spec: LoadSpec) -> None:
        self._spec = spec
        self._random = random.Random(spec.seed)
        self.requests = [_request_bytes(question) for question in spec.questions]
        self._idle: deque[_Client] = deque()
        self._busy: set[_Client] = set()
        self._waiting: deque[tuple[int, float]] = deque()
        self._connecting = 0
        self._port = 0
        self._told: list[Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        """Ask what is due, until the phases are over or it is told to stop; then wait for what is under way."""
        telling = asyncio.create_task(self._tell())
        for due_s in self._arrivals():
            left_s = due_s - time.monotonic()
            if left_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopped.wait(), left_s)
            if self.stopped.is_set():
                break
            self._due(due_s)
        give_up_s = time.monotonic() + self._spec.answer_s_max
        while (self._busy or self._waiting or self._tasks) and time.monotonic() < give_up_s:  # noqa: ASYNC110 - of three
            await asyncio.sleep(TICK_S)
        for client in [*self._busy, *self._idle]:
            client.abort()
        await asyncio.sleep(2 * TELL_S)
        telling.cancel()

    def answered(self, client: _Client, status: int, body: bytes, *, stays: bool) -> None:
        number, done_s = client.question, time.monotonic()
        client.question = -1
        self._busy.discard(client)
        self._told.append(self._fate(number, client.due_s, done_s, status, body))
        if not stays:
            self._turn()
        elif self._waiting:
            self._send(client, *self._waiting.popleft())
        else:
            self._idle.append(client)
        if self._waiting and not stays:
            self._connect()

    def lost(self, client: _Client, why: str) -> None:
        """Forget a connection; one that nobody was using may be closed at any time."""
        if client.question >= 0:
            self._told.append(Asked(client.question, client.due_s, time.monotonic(), 0, failure=why))
            client.question = -1
            self._turn()
        self._busy.discard(client)
        if client in self._idle:
            self._idle.remove(client)

    def _fate(self, number: int, due_s: float, done_s: float, status: int, body: bytes) -> Asked:
        try:
            if status != 200:
                return Asked(number, due_s, done_s, status, code=_decode_refusal(body).code)
            answer = _decode_answer(body)
        except msgspec.MsgspecError as error:
            return Asked(number, due_s, done_s, status, failure=f"not what it must be: {error}")
        problem = problem_of(self._spec.questions[number], answer)
        return Asked(number, due_s, done_s, status, answer.version, tuple(answer.degraded), failure=problem)

    def _arrivals(self) -> Iterator[float]:
        at_s = time.monotonic() + 0.05
        for phase in self._spec.phases:
            ends_s = at_s + phase.seconds
            due_s = at_s
            while (due_s := due_s + self._random.expovariate(phase.rate_per_s)) < ends_s:
                yield due_s
            at_s = ends_s

    def _due(self, due_s: float) -> None:
        number = self._random.randrange(len(self.requests))
        if self._random.random() < self._spec.hang_up_share:
            self._spawn(self._hang_up(number, due_s))
        elif self._idle:
            self._send(self._idle.popleft(), number, due_s)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append((number, due_s))
            self._connect()

    def _send(self, client: _Client, number: int, due_s: float) -> None:
        self._busy.add(client)
        client.ask(number, due_s)

    def _turn(self) -> None:
        self._port = (self._port + 1) % len(self._spec.ports)

    def _connect(self) -> None:
        if self._connecting + len(self._busy) + len(self._idle) < self._spec.connections_max:
            self._connecting += 1
            self._spawn(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        client = None
        why = ""
        for _ in self._spec.ports:
            port = self._spec.ports[self._port]
            try:
                async with asyncio.timeout(self._spec.answer_s_max):
                    _, client = await loop.create_connection(lambda: _Client(self), "127.0.0.1", port)
                break
            except OSError as error:  # TimeoutError is one
                why = f"no connection: {type(error).__name__}"
                self._turn()
        self._connecting -= 1
        if client is None:
            if self._waiting:
                number, due_s = self._waiting.popleft()
                self._told.append(Asked(number, due_s, time.monotonic(), 0, failure=why))
        elif self._waiting:
            self._send(client, *self._waiting.popleft())
        else:
            self._idle.append(client)

    async def _hang_up(self, number: int, due_s: float) -> None:
        request = self.requests[number]
        part = request[: self._random.randrange(1, len(request) + 1)]
        if self._random.random() < 0.5:
            part = request
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._spec.ports[self._port])
            writer.write(part)
            await asyncio.sleep(self._random.uniform(0, 0.01))
            writer.transport.abort()
        except OSError as error:
            self._told.append(Asked(number, due_s, time.monotonic(), 0, failure=f"no connection: {error}"))
        else:
            self._told.append(Asked(number, due_s, time.monotonic(), 0, failure=HUNG_UP))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._end_hangs()
            if self._told:
                told, self._told = self._told, []
                sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
                sys.stdout.buffer.flush()

    def _end_hangs(self) -> None:
        now_s = time.monotonic()
        for client in [c for c in self._busy if now_s - c.sent_s > self._spec.answer_s_max]:
            self._told.append(Asked(client.question, client.due_s, now_s, 0, failure="no answer in time"))
            client.question = -1
            client.abort()


def _request_bytes(question: Question) -> bytes:
    body = question.body.encode()
    headers = {"host": "gateway", "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **question.headers}.items())
    return f"POST {question.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _run(spec: LoadSpec) -> None:
    load = _Load(spec)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), load.stopped.set)
    await load.run()


def main() -> int:
    """Run the load that stdin specifies."""
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadSpec)
    gc.freeze()
    gc.disable()  # a collection would look like the server's latency; the process ends before it matters
    uvloop.run(_run(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main())
