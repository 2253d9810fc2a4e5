"""Parts that a test drives by hand: a clock, a pool whose connections answer when told, an event loop for one test."""

import asyncio
import functools
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contracts.inference import InferenceResponse, decode_request, encode_response, tensor_of
from contracts.manifest import Artifact, Input, Manifest, Output
from gateway.dispatch.dispatch_rules import DispatchRules
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer
from gateway.model_signature import ModelSignature, signature_of


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


async def turns(count: int = 3) -> None:
    """Let the event loop go round, so that what was scheduled has run."""
    for _ in range(count):
        await asyncio.sleep(0)


class HandClock:
    """A clock in seconds that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def signature_of_echo(batch_rows_max: int = 64) -> ModelSignature:
    """Declare a model of two float columns whose score is the first of them."""
    manifest = Manifest(
        model="echo",
        version="1",
        runtime="onnxruntime",
        artifact=Artifact("model.onnx", "0" * 64),
        inputs=(Input("x", "FP32", (-1, 2), ("view:a", "view:b")),),
        outputs=(Output("y", "FP32"),),
        created_at="2026-01-01T00:00:00Z",
        batch_rows_max=batch_rows_max,
    )
    return signature_of(manifest)


def rows_of(*values: float) -> tuple[bytes, ...]:
    """Make the inputs of as many rows as values are given."""
    return (b"".join(struct.pack("<2f", value, -1) for value in values),)


@dataclass(eq=False)
class FakeReplica:
    """A replica as the dispatcher sees it."""

    url: str = "http://worker:1"
    host_header: bytes = b"worker:1"
    outstanding_rows: int = 0
    silent_since_s: float | None = None


@dataclass(eq=False)
class FakeConnection:
    """A connection that keeps what was sent until the test answers it."""

    replica: FakeReplica
    sent: list[list[float]] = field(default_factory=list)
    timeouts_us: list[int] = field(default_factory=list)
    on_answer: Callable[[WorkerAnswer | ConnectionLost], None] | None = None
    alive: bool = True

    @property
    def idle(self) -> bool:
        return self.alive and self.on_answer is None

    def exchange(self, parts: list[bytes], on_answer: Callable[[Any], None]) -> None:
        assert self.idle
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        length = int(head.lower().split(b"inference-header-content-length: ")[1].split(b"\r\n")[0])
        request = decode_request(body, length)
        self.sent.append(request.inputs[0].array()[:, 0].tolist())
        self.timeouts_us.append(request.timeout_us)
        self.on_answer = on_answer

    def abort(self, reason: str) -> None:
        self.lose(reason)

    def give_up(self, reason: str) -> None:
        self.lose(reason)

    def lose(self, reason: str = "reset") -> None:
        """End the connection; what is under way is lost."""
        self.alive = False
        self._report(ConnectionLost(reason))

    def answer(self, scores: list[float] | None = None) -> None:
        """Answer what was sent last: its own first column, unless scores are given."""
        self._report(echo(self.sent[-1] if scores is None else scores))

    def refuse(self, status: int, retry_after_s: float | None = None) -> None:
        """Answer with an error."""
        self._report(WorkerAnswer(status, None, b'{"error": "no"}', retry_after_s))

    def _report(self, answer: WorkerAnswer | ConnectionLost) -> None:
        on_answer, self.on_answer = self.on_answer, None
        if on_answer is not None:
            on_answer(answer)


class FakePool:
    """A pool of a few connections to one replica each. `noted`: what it was told of its replicas, in order."""

    def __init__(self, connections: int = 1, rules: DispatchRules | None = None) -> None:
        self.connections = [FakeConnection(FakeReplica()) for _ in range(connections)]
        self.reachable = True
        self.has_peers = connections > 1
        self.rules = rules or DispatchRules()
        self.noted: list[tuple[str, FakeReplica]] = []

    def pick(self, but: FakeReplica | None = None) -> tuple[FakeReplica, FakeConnection] | None:
        idle = [c for c in self.connections if c.idle]
        chosen = next(
            (c for c in idle if c.replica is not but), idle[0] if idle and len(self.connections) == 1 else None
        )
        return None if chosen is None else (chosen.replica, chosen)

    def has_other(self, replica: FakeReplica) -> bool:
        return any(c.replica is not replica for c in self.connections)

    def has_idle_other(self, replica: FakeReplica) -> bool:
        return any(c.replica is not replica and not c.replica.outstanding_rows for c in self.connections)

    def succeeded(self, replica: FakeReplica, latency_s: float, now_s: float) -> None:
        self.noted.append(("succeeded", replica))

    def failed(self, replica: FakeReplica, now_s: float) -> None:
        self.noted.append(("failed", replica))

    def refused(self, replica: FakeReplica, now_s: float) -> None:
        self.noted.append(("refused", replica))

    def refused_rows(self, replica: FakeReplica, now_s: float) -> None:
        self.noted.append(("refused rows", replica))

    def rests(self, replica: FakeReplica, asked_s: float, now_s: float) -> None:
        self.noted.append((f"rests {asked_s:g}", replica))

    def was_late(self, replica: FakeReplica, now_s: float) -> None:
        self.noted.append(("was late", replica))


def echo(scores: list[float]) -> WorkerAnswer:
    """Make a worker's answer."""
    response = InferenceResponse(
        model_name="echo", model_version="1", outputs=(tensor_of("y", np.array(scores, "f4"), "FP32"),)
    )
    head, chunks = encode_response(response, {"y"})
    return WorkerAnswer(200, len(head), head + b"".join(chunks))
