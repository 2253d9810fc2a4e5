"""Natural batching: while batches are in flight, rows gather; when a connection is free, all that has gathered goes as
one.

No timer. An idle gateway sends at once, so batching adds nothing where there is nothing to batch. Everything that is
submitted in one turn of the event loop leaves together: rows whose features arrived in one read reach the worker in one
batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.dispatch.output_decoder import OutputDecoder, Outputs
from gateway.dispatch.request_encoder import RequestEncoder, RowShapes
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer, WorkerConnection
from gateway.dispatch.worker_pool import Replica, WorkerPool
from gateway.errors import DeadlineExceeded, GatewayError, Overloaded, WorkerRefused, WorkerUnavailable
from gateway.model_signature import ModelSignature

ROWS_WAITING_MAX: Final = 65_536
"""Rows that may wait for one version; beyond it callers are shed at once."""

ATTEMPTS_MAX: Final = 2
"""Sends of one caller's rows: what a dying worker held goes once more, to whichever replica is left."""

TIMEOUT_EXACT_BELOW_US: Final = 10_000
"""What is left of a budget is told to workers in whole milliseconds from here on, rounded down: at most a tenth."""

SWEEP_S: Final = 0.02
"""How often batches in flight are looked at for a stalled worker."""


class Scores(msgspec.Struct):
    """One caller's share of a batch: by output, a list with an entry a row."""

    outputs: Outputs
    finite: bool
    """False where some number is NaN or infinite."""

    queue_us: int
    infer_us: int


class _Submission(msgspec.Struct):
    inputs: tuple[bytes, ...]
    rows: int
    expires_at: float
    answer: asyncio.Future[Scores]
    submitted_at: float
    row_shapes: RowShapes | None = None
    """Where they are not the declared ones. Only rows of one shape share a batch."""

    attempts: int = 0
    alone: bool = False
    """Send without batch-mates: its batch was refused, and only one of the callers may be at fault."""


@dataclass(slots=True, eq=False)
class _Batch:
    submissions: list[_Submission]
    rows: int
    replica: Replica
    sent_at: float
    expires_at: float = 0.0


class BatchDispatcher:
    """Sends the rows of many callers to one model version's workers.

    clock: seconds, the one that deadlines are told by.
    """

    def __init__(self, signature: ModelSignature, pool: WorkerPool, clock: Callable[[], float]) -> None:
        self._signature, self._pool, self._clock = signature, pool, clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Submission] = deque()
        self._scheduled = self._sweeping = False
        self._in_flight: dict[_Batch, WorkerConnection] = {}
        self._decoder = OutputDecoder(signature)
        self._encoder = RequestEncoder(signature)
        self._label = signature.label
        self.rows_waiting = 0
        self.batches_sent = 0
        self.rows_sent = 0

    def submit(
        self, inputs: tuple[bytes, ...], rows: int, expires_at: float, row_shapes: RowShapes | None = None
    ) -> asyncio.Future[Scores]:
        """Queue one caller's rows. inputs: by input of the signature, the raw elements of `rows` rows.

        The future fails with DeadlineExceeded, WorkerUnavailable or WorkerRefused. Raises Overloaded where too many
        wait, WorkerUnavailable where no replica can be reached.
        """
        if not self._pool.reachable:
            raise WorkerUnavailable(f"{self._label}: no worker can be reached")
        if self.rows_waiting + rows > ROWS_WAITING_MAX:
            raise Overloaded(f"{self._label}: {self.rows_waiting} rows wait already, the most is {ROWS_WAITING_MAX}")
        answer: asyncio.Future[Scores] = self._loop.create_future()
        self._waiting.append(_Submission(inputs, rows, expires_at, answer, self._clock(), row_shapes))
        self.rows_waiting += rows
        self._schedule()
        return answer

    def wake(self) -> None:
        """Look at the queue again: a connection has come or gone."""
        if not self._waiting:
            return
        if self._pool.reachable:
            self._schedule()
            return
        while self._waiting:
            submission = self._waiting.popleft()
            self.rows_waiting -= submission.rows
            _fail(submission, WorkerUnavailable(f"{self._label}: the last worker is gone"))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting:
            chosen = self._pool.pick()
            if chosen is None:
                return
            now = self._clock()
            submissions = self._gather(now)
            if submissions:
                replica, connection = chosen
                self._send(_Batch(submissions, sum([s.rows for s in submissions]), replica, now), connection)

    def _gather(self, now: float) -> list[_Submission]:
        # What has expired or was cancelled while it waited is dropped here, before it costs a worker anything.
        gathered: list[_Submission] = []
        rows = 0
        while self._waiting:
            submission = self._waiting[0]
            if gathered and (
                submission.alone
                or rows + submission.rows > self._signature.batch_rows_max
                or submission.row_shapes != gathered[0].row_shapes
            ):
                break
            self._waiting.popleft()
            self.rows_waiting -= submission.rows
            if submission.answer.done():
                continue
            if submission.expires_at <= now:
                _fail(submission, DeadlineExceeded("waiting for a worker", (now - submission.submitted_at) * 1000))
                continue
            gathered.append(submission)
            rows += submission.rows
            if submission.alone:
                break
        return gathered

    def _send(self, batch: _Batch, connection: WorkerConnection) -> None:
        replica = batch.replica
        expires_at = max([s.expires_at for s in batch.submissions])
        request = self._encoder.encode(
            replica.host_header,
            self._tensors(batch),
            batch.rows,
            timeout_for_worker_us(expires_at - batch.sent_at),
            batch.submissions[0].row_shapes,
        )
        replica.outstanding_rows += batch.rows
        self.batches_sent += 1
        self.rows_sent += batch.rows
        batch.expires_at = expires_at
        self._in_flight[batch] = connection
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        connection.exchange(request, lambda answer: self._answered(batch, answer))

    def _sweep(self) -> None:
        # A worker that has stalled is cut off when nobody in the batch can wait any longer. The callers themselves have
        # been told by their own deadlines, so this may be late, and one timer serves all batches.
        now = self._clock()
        for batch, connection in list(self._in_flight.items()):
            if batch.expires_at <= now:
                connection.abort("the worker did not answer in time")
        if self._in_flight:
            self._loop.call_later(SWEEP_S, self._sweep)
        else:
            self._sweeping = False

    def _tensors(self, batch: _Batch) -> list[bytes]:
        if len(batch.submissions) == 1:
            return list(batch.submissions[0].inputs)
        return [b"".join([s.inputs[i] for s in batch.submissions]) for i in range(len(self._signature.inputs))]

    def _answered(self, batch: _Batch, answer: WorkerAnswer | ConnectionLost) -> None:
        self._in_flight.pop(batch, None)
        batch.replica.outstanding_rows -= batch.rows
        if isinstance(answer, ConnectionLost):
            self._lost(batch, answer)
        elif answer.status == 200:
            self._deliver(batch, answer)
        elif len(batch.submissions) > 1 and 400 <= answer.status < 500:
            # Somebody's rows are poison. Each goes once more by itself, so that only theirs fails.
            for submission in reversed(batch.submissions):
                submission.alone = True
                self._requeue(submission)
        else:
            reason = (
                f"{self._label}: the worker answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
            )
            self._fail_all(batch, WorkerRefused if answer.status < 500 else WorkerUnavailable, reason)
        if self._waiting:
            self._schedule()

    def _deliver(self, batch: _Batch, answer: WorkerAnswer) -> None:
        try:
            outputs, finite = self._decoder.decode(answer.body, answer.header_length, batch.rows)
        except ValueError as error:
            self._fail_all(batch, WorkerRefused, f"{self._label}: {error}")
            return
        infer_us = int((self._clock() - batch.sent_at) * 1e6)
        if len(batch.submissions) == 1:
            submission = batch.submissions[0]
            if not submission.answer.done():
                queue_us = int((batch.sent_at - submission.submitted_at) * 1e6)
                submission.answer.set_result(Scores(outputs, finite, queue_us, infer_us))
            return
        at = 0
        for submission in batch.submissions:
            end = at + submission.rows
            if not submission.answer.done():
                queue_us = int((batch.sent_at - submission.submitted_at) * 1e6)
                share = [values[at:end] for values in outputs]
                submission.answer.set_result(Scores(share, finite, queue_us, infer_us))
            at = end

    def _lost(self, batch: _Batch, loss: ConnectionLost) -> None:
        now = self._clock()
        for submission in reversed(batch.submissions):
            submission.attempts += 1
            if submission.expires_at <= now:
                waited_ms = (now - submission.submitted_at) * 1000
                _fail(submission, DeadlineExceeded("waiting for the worker's answer", waited_ms))
            elif submission.attempts >= ATTEMPTS_MAX:
                _fail(submission, WorkerUnavailable(f"{self._label}: {loss}"))
            else:
                self._requeue(submission)

    def _requeue(self, submission: _Submission) -> None:
        self._waiting.appendleft(submission)
        self.rows_waiting += submission.rows

    def _fail_all(self, batch: _Batch, kind: type[WorkerRefused | WorkerUnavailable], reason: str) -> None:
        # An exception each: one that is raised in many tasks gathers all of their tracebacks.
        for submission in batch.submissions:
            _fail(submission, kind(reason))


def timeout_for_worker_us(left_s: float) -> int:
    """Say how long a worker may take, in µs: whole milliseconds where there are many.

    A worker remembers requests by their JSON part, which this number is in.
    """
    left_us = int(left_s * 1e6)
    return max(1, left_us if left_us < TIMEOUT_EXACT_BELOW_US else left_us - left_us % 1_000)


def _fail(submission: _Submission, error: GatewayError) -> None:
    if not submission.answer.done():
        submission.answer.set_exception(error)
