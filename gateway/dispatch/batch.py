"""What a dispatcher holds: one caller's rows until they are answered, and the batch that they travel in."""

import asyncio
from typing import Final

import msgspec

from gateway.dispatch.output_decoder import Outputs
from gateway.dispatch.replica import Replica
from gateway.dispatch.request_encoder import RowShapes
from gateway.dispatch.worker_connection import WorkerConnection
from gateway.errors import GatewayError

TIMEOUT_EXACT_BELOW_US: Final = 10_000
"""What is left of a budget is told to workers in whole milliseconds from here on, rounded down: at most a tenth."""


class Scores(msgspec.Struct):
    """One caller's share of a batch: by output, a list with an entry a row."""

    outputs: Outputs
    finite: bool
    """False where some number is NaN or infinite."""

    queue_us: int
    infer_us: int


class Submission(msgspec.Struct):
    """One caller's rows, and the future that it waits for."""

    inputs: tuple[bytes, ...]
    rows: int
    expires_at: float
    answer: asyncio.Future[Scores]
    submitted_at: float
    row_shapes: RowShapes | None = None
    """Where they are not the declared ones. Only rows of one shape share a batch."""

    copies: int = 1
    """In how many places it waits or is under way: one more with each hedge."""

    failures: int = 0
    alone: bool = False
    """Send without batch-mates: its batch was refused, and only one of the callers may be at fault."""

    avoid: Replica | None = None
    """The replica that failed with these rows, or is late with them."""

    refused_by: Replica | None = None
    """The replica that found fault with these rows, sent by themselves."""

    def fail(self, error: GatewayError) -> None:
        """Tell the caller, unless it has its answer or has gone."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Batch(msgspec.Struct, eq=False):
    """Rows under way to one replica. Hashed by identity."""

    submissions: list[Submission]
    rows: int
    replica: Replica
    connection: WorkerConnection
    sent_at: float
    expires_at: float
    """When it is given up."""

    hedged: bool = False
    """Whether copies of its rows went to another replica."""

    @property
    def is_wanted(self) -> bool:
        """Whether some caller still waits for it."""
        return any(not submission.answer.done() for submission in self.submissions)


def timeout_for_worker_us(left_s: float) -> int:
    """Say how long a worker may take, in µs: whole milliseconds where there are many.

    A worker remembers requests by their JSON part, which this number is in.
    """
    left_us = int(left_s * 1e6)
    return max(1, left_us if left_us < TIMEOUT_EXACT_BELOW_US else left_us - left_us % 1_000)
