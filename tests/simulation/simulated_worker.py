"""A worker at the other end of a simulated connection: one queue, one batch at a time, and its faults.

It reads and writes bytes, so that the gateway's own connections, dispatcher and readiness checks are what is simulated
with: nothing of them is replaced.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import log
from random import Random
from typing import Any

import numpy as np

from contracts.inference import InferenceResponse, encode_response, tensor_of

ROW_BYTES = 8
"""Of the simulated model: two FP32."""

ERROR = b'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 17\r\n\r\n{"error": "sick"}'
READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
NETWORK_S = 0.000_2

Condition = Callable[[float], float]
"""By the time: a factor, or a share."""


def always(value: float) -> Condition:
    """Return the same at any time."""
    return lambda _: value


AS_USUAL = always(1.0)
NEVER = always(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What is wrong with a worker, by the seconds since the load began; nothing, unless said."""

    slowness: Condition = AS_USUAL
    """A factor to the time that a batch takes."""

    failing: Condition = NEVER
    """Share of batches that are answered with 503."""

    fails_at_once: bool = True
    """Else after the time that the batch takes, so that a failure costs as much as an answer."""

    stopped: Callable[[float], bool] = lambda _: False
    """Whether it computes and answers nothing, while its connections stay: SIGSTOP."""


@dataclass(slots=True, eq=False)
class _Job:
    transport: "WorkerTransport"
    rows: int
    """0: a readiness check."""

    fails: bool = False


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """One worker. A batch takes batch_s + rows * row_s on average, exponentially distributed in its last third; one in
    `pause_every` takes ten times that, as with a garbage collection. load_begins_s: what behaviours count from."""

    behaviour: Behaviour
    random: Random
    load_begins_s: float
    batch_s: float
    row_s: float
    pause_every: int = 200
    rows: int = 0
    _queue: deque[_Job] = field(default_factory=deque)
    _busy: bool = False

    def receive(self, transport: "WorkerTransport", request: bytes) -> None:
        """Take one request in."""
        self._queue.append(_Job(transport, _rows_of(request)))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        since_s = loop.time() - self.load_begins_s
        self._busy = False
        if self.behaviour.stopped(since_s):
            self._busy = True
            loop.call_later(0.1, self._next)
            return
        while self._queue:
            job = self._queue.popleft()
            if job.transport.closed:
                continue  # the gateway has hung up: what is not begun is not computed
            if not job.rows:
                job.transport.answer(READY)
                continue
            job.fails = self.random.random() < self.behaviour.failing(since_s)
            if job.fails and self.behaviour.fails_at_once:
                job.transport.answer(ERROR)
                continue
            self._busy = True
            self.rows += job.rows
            loop.call_later(self._takes_s(job.rows, since_s), self._done, job)
            return

    def _takes_s(self, rows: int, since_s: float) -> float:
        usual_s = (self.batch_s + self.row_s * rows) * (2 / 3 - log(1.0 - self.random.random()) / 3)
        pause = 10.0 if self.random.random() * self.pause_every < 1.0 else 1.0
        return usual_s * pause * self.behaviour.slowness(since_s)

    def _done(self, job: _Job) -> None:
        job.transport.answer(ERROR if job.fails else _scores(job.rows))
        self._next()


class WorkerTransport(asyncio.Transport):
    """The gateway's end of a connection to a simulated worker."""

    def __init__(self, protocol: asyncio.Protocol, worker: SimulatedWorker) -> None:
        super().__init__()
        self._protocol, self._worker = protocol, worker
        self.closed = False

    def write(self, data: Any) -> None:
        asyncio.get_running_loop().call_later(NETWORK_S, self._worker.receive, self, bytes(data))

    def answer(self, data: bytes) -> None:
        """Send the gateway something."""
        asyncio.get_running_loop().call_later(NETWORK_S, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self.closed:
            self._protocol.data_received(data)

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed


def _rows_of(request: bytes) -> int:
    head, _, _ = request.partition(b"\r\n\r\n")
    if head.startswith(b"GET"):
        return 0
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return (int(fields[b"content-length"]) - int(fields[b"inference-header-content-length"])) // ROW_BYTES


@cache
def _scores(rows: int) -> bytes:
    tensor = tensor_of("y", np.zeros(rows, "f4"), "FP32")
    head, chunks = encode_response(InferenceResponse(model_name="echo", model_version="1", outputs=(tensor,)), {"y"})
    body = head + b"".join(chunks)
    return b"HTTP/1.1 200 OK\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b" % (
        len(head),
        len(body),
        body,
    )
