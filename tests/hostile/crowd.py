"""Many hostile connections at once, and what became of every request."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.hostile.answers import Answer, AnswerReader, NotAnAnswer, problem_of
from tests.hostile.hostile_requests import Hostile, HostileRequests

ANSWER_S_MAX = 15.0
"""After which a connection hangs: longer than a server gives an unfinished head."""

HALF_WAITS_S = 0.1
"""How long the sender of something unfinished waits before it shuts its side, which must end the connection."""

BATCH_MAX = 24
SLOW_SHARE = 0.01
OFFENDERS_MAX = 20
SHOWN_BYTES = 600

CLOSED, HUNG, AFTER_CLOSE = "closed", "hung", "after a close"


@dataclass(frozen=True, slots=True)
class Offender:
    """A request that was answered as none may be."""

    port: str
    kind: str
    problem: str
    request: bytes
    answer: bytes


@dataclass(slots=True)
class Tally:
    """Outcomes of requests by (port, kind, status or CLOSED or HUNG)."""

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    offenders: list[Offender] = field(default_factory=list)
    offences: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    connections: int = 0

    def add(self, port: str, hostile: Hostile, outcome: str) -> None:
        """Count one request."""
        self.outcomes[port, hostile.kind, outcome] += 1
        self.requests += 1

    def offence(self, port: str, hostile: Hostile, problem: str, answer: bytes = b"") -> None:
        """Keep a request that was treated as none may be."""
        self.offences[f"{port}: {problem[:60]}"] += 1
        if len(self.offenders) < OFFENDERS_MAX:
            self.offenders.append(
                Offender(port, hostile.kind, problem, hostile.data[:SHOWN_BYTES], answer[:SHOWN_BYTES])
            )


class _Caller(asyncio.Protocol):
    """One hostile connection: a batch at a time, as many answers as are owed."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self.answers: list[Answer] = []
        self.problem = ""
        self.closed = asyncio.Event()
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self.answers += self._reader.feed(data)
        except NotAnAnswer as error:
            self.problem = str(error)
            self.abort()
        self.came.set()

    def eof_received(self) -> bool:
        self.closed.set()
        self.came.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.came.set()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def write(self, data: bytes) -> None:
        """Send, unless the server has ended the connection already."""
        if self.transport is not None and not self.closed.is_set():
            self.transport.write(data)

    async def answered(self, count: int) -> None:
        """Wait until so many answers have come, or the connection has ended."""
        while len(self.answers) < count and not self.closed.is_set():
            self.came.clear()
            await self.came.wait()


async def hostile_connection(
    port_name: str, port: int, requests: HostileRequests, random: Random, tally: Tally, enough: Callable[[], bool]
) -> None:
    """Send batch after batch, on a new connection wherever the last one ended."""
    loop = asyncio.get_running_loop()
    caller: _Caller | None = None
    while not enough():
        if caller is None:
            _, caller = await loop.create_connection(_Caller, "127.0.0.1", port)
            tally.connections += 1
        if not await _send_batch(caller, port_name, requests.batch(random.randrange(1, BATCH_MAX + 1)), random, tally):
            caller.abort()
            caller = None
    if caller is not None:
        caller.abort()


async def _send_batch(caller: _Caller, port: str, batch: list[Hostile], random: Random, tally: Tally) -> bool:
    """Send a batch and judge its answers. Returns whether the connection can take another."""
    caller.answers.clear()
    data = b"".join(hostile.data for hostile in batch)
    if random.random() < SLOW_SHARE and len(data) > 1:
        at = random.randrange(1, len(data))
        caller.write(data[:at])
        await asyncio.sleep(random.uniform(0.0, 0.3))
        data = data[at:]
    caller.write(data)
    owed = sum(hostile.framed for hostile in batch)
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            await caller.answered(owed)
        if not batch[-1].framed:
            await _finish(caller, owed + 1)
    except TimeoutError:
        return _judge_hang(caller, port, batch, tally)
    return _judge(caller, port, batch, tally)


async def _finish(caller: _Caller, count: int) -> None:
    """Nobody knows what is owed to the last one: an answer, or the end of the connection once its sender stops."""
    try:
        async with asyncio.timeout(HALF_WAITS_S):
            await caller.answered(count)
    except TimeoutError:
        if caller.transport is not None and not caller.closed.is_set():
            caller.transport.write_eof()
        async with asyncio.timeout(ANSWER_S_MAX):
            await caller.closed.wait()


def _judge(caller: _Caller, port: str, batch: list[Hostile], tally: Tally) -> bool:
    closes = False
    for i, hostile in enumerate(batch):
        if i < len(caller.answers):
            answer = caller.answers[i]
            tally.add(port, hostile, str(answer.status))
            closes = answer.closes
            problem = problem_of(answer)
            if problem is not None:
                tally.offence(port, hostile, problem, answer.body)
        elif closes:
            tally.outcomes[port, hostile.kind, AFTER_CLOSE] += 1  # it was never read, and does not count
        else:
            tally.add(port, hostile, CLOSED)
            if hostile.framed:
                tally.offence(port, hostile, caller.problem or "the connection ended without an answer")
            closes = True
    return not closes and batch[-1].framed and not caller.closed.is_set()


def _judge_hang(caller: _Caller, port: str, batch: list[Hostile], tally: Tally) -> bool:
    hung = batch[min(len(caller.answers), len(batch) - 1)]
    tally.add(port, hung, HUNG)
    tally.offence(port, hung, f"no answer and no end within {ANSWER_S_MAX:g} s")
    return False
