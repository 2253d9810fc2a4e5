"""Who else is there while one caller misbehaves: a client that asks all the time, and what the process holds."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psutil

from tests.integration.gateway_client import Client, Reply, until

WAIT_S_MAX = 5.0
"""The longest that a well-behaved caller may wait because of others. Most of it is for a busy machine."""

PAUSE_S = 0.002


class SteadyClient:
    """Sends well-formed requests one after the other, on one connection, and checks every answer.

    ask: sends one request whose answer depends on a number, and says what is wrong with the answer.
    """

    def __init__(self, port: int, ask: Callable[[Client, int], str | None]) -> None:
        self._port, self._ask = port, ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)
        self.answers = 0
        self.longest_s = 0.0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(30)

    def check(self) -> None:
        """Fail unless two more answers come, and all so far were right and in time."""
        seen = self.answers
        until("the steady client is answered", lambda: self.answers >= seen + 2 or self.problems)
        assert self.problems == []
        assert self.longest_s < WAIT_S_MAX

    def _run(self) -> None:
        draw = random.Random(5)
        with Client(self._port) as client:
            while not self._stopping.wait(PAUSE_S):
                began_s = time.monotonic()
                try:
                    problem = self._ask(client, draw.randrange(1_000))
                except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                    problem = f"{type(error).__name__}: {error}"
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.answers += 1
                if problem is not None:
                    self.problems.append(problem)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds of the machine."""

    descriptors: int
    memory_mb: float

    @classmethod
    def by(cls, pid: int) -> Self:
        """Look now."""
        process = psutil.Process(pid)
        return cls(process.num_fds(), process.memory_info().rss / 1e6)


def infer_basket(client: Client, number: int, path: str = "/v2/models/basket/infer") -> str | None:
    """Infer one row of the model `basket` and say what is wrong with the answer."""
    body = {
        "inputs": [
            {"name": "amounts", "datatype": "FP32", "shape": [1, 3], "data": [number, 1, 2]},
            {"name": "visits", "datatype": "INT64", "shape": [1], "data": [number]},
            {"name": "tier", "datatype": "BYTES", "shape": [1], "data": [f"t{number}"]},
        ],
        "outputs": [{"name": "total"}, {"name": "visits_twice"}, {"name": "tier_echo"}],
    }
    expected = {"total": [number + 3.0], "visits_twice": [2 * number], "tier_echo": [f"t{number}"]}
    reply = client.ask("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
    return None if _outputs(reply) == expected else f"{number}: {reply.status} {reply.body[:200]!r}"


def _outputs(reply: Reply) -> dict[str, Any] | None:
    if reply.status != 200:
        return None
    return {output["name"]: output["data"] for output in reply.json["outputs"]}
