"""Who asks properly all the while: every answer must be right, and in time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.hostile.answers import AnswerReader

PAUSE_S = 0.01
ANSWER_S_MAX = 10.0
PROBLEMS_MAX = 20


@dataclass(frozen=True, slots=True)
class GoodRequest:
    """A well-formed request, and what is wrong with an answer's status and body; None where it is right."""

    data: bytes
    problem: Callable[[int, bytes], str | None]


@dataclass(slots=True)
class GoodTally:
    """What the good callers saw."""

    answers: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def add(self, latency_s: float, problem: str | None) -> None:
        """Count one answer, or its absence."""
        self.answers += 1
        self.latencies_s.append(latency_s)
        if problem is not None:
            self.wrong += 1
            if len(self.problems) < PROBLEMS_MAX:
                self.problems.append(problem)

    def quantile_ms(self, q: float) -> float:
        """Latency below which the share `q` lies."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else float("nan")


async def good_caller(port: int, requests: Sequence[GoodRequest], tally: GoodTally, enough: Callable[[], bool]) -> None:
    """Ask one after the other, on one connection that the server has no reason to end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers, number = AnswerReader(), 0
    try:
        while not enough():
            request = requests[number % len(requests)]
            number += 1
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    problem = await _ask(reader, writer, answers, request)
            except (OSError, ValueError) as error:  # TimeoutError is an OSError
                tally.add(time.monotonic() - began_s, f"{type(error).__name__}: {error}")
                return
            tally.add(time.monotonic() - began_s, problem)
            await asyncio.sleep(PAUSE_S)
    finally:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: AnswerReader, request: GoodRequest
) -> str | None:
    writer.write(request.data)
    while True:
        data = await reader.read(65_536)
        if not data:
            raise ConnectionError("the server closed the connection of a good caller")
        for answer in answers.feed(data):
            return request.problem(answer.status, answer.body)
