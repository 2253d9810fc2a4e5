"""Natural batching: while batches are in flight, rows gather; when a connection is free, all that has gathered goes as
one.

No timer. An idle gateway sends at once, so batching adds nothing where there is nothing to batch. Everything that is
submitted in one turn of the event loop leaves together: rows whose features arrived in one read reach the worker in one
batch.

What a replica fails to answer goes once more, before all that waits, to another one. What it is late with goes there as
well, while it may still answer (a hedge): whichever answers first serves. The retry budget bounds both.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.dispatch.batch import Batch, Scores, Submission, timeout_for_worker_us
from gateway.dispatch.drain_rate import DrainRate
from gateway.dispatch.latency_quantile import LatencyQuantile
from gateway.dispatch.output_decoder import OutputDecoder
from gateway.dispatch.replica import Replica
from gateway.dispatch.request_encoder import RequestEncoder, RowShapes
from gateway.dispatch.retry_budget import RetryBudget
from gateway.dispatch.row_queue import RowQueue
from gateway.dispatch.worker_connection import ConnectionLost, WorkerAnswer, WorkerConnection
from gateway.dispatch.worker_pool import WorkerPool
from gateway.errors import DeadlineExceeded, WorkerRefused, WorkerUnavailable
from gateway.model_signature import ModelSignature

FAILURES_MAX: Final = 2
"""Of one caller's rows, whether they were sent again or hedged: then they have failed."""

SWEEP_S: Final = 0.02
"""How often batches in flight are looked at for a stalled worker."""

ABOUT_THE_ROWS: Final = frozenset({400, 413, 422})
"""Refusals that may say what they mean: these rows are bad. Every other one below 500 is of the replica: it, or a proxy
before it, does not serve what it was asked for."""

NOT_FOR_THE_ROWS: Final = frozenset({502, 503, 504})
"""Failures that a worker, or a proxy before it, gives whatever it was sent."""

TOO_MANY: Final = 429

OUT_OF_TIME: Final = 504

LONG_RATIO: Final = 3.0
"""To the time after which a batch is late. One that ran out of its callers' time sooner says that they had too little
left, and nothing of the worker: in an overload that is what happens first."""

HEDGE_AFTER_S_MIN: Final = 0.001
"""Sooner than this nothing is sent twice: it would be the event loop's own delays that are answered."""

HEDGE_AFTER_S_UNKNOWN: Final = 0.05
"""While too few answers have been seen to know what is late."""

URGENT_SHARE: Final = 0.5
"""Of the time that a batch had when it was sent: after it, a second attempt may take what others wait for."""

UNWANTED_S_MAX: Final = 0.03
"""How long a replica may still take over a batch that others have answered. A healthy one is soon done, and its
connection is worth keeping; one that is not done by then is cut off, and computes nothing that it has not begun."""


class BatchDispatcher:
    """Sends the rows of many callers to one model version's workers.

    clock: seconds, the one that deadlines are told by.
    """

    def __init__(self, signature: ModelSignature, pool: WorkerPool, clock: Callable[[], float]) -> None:
        self._signature, self._pool, self._clock = signature, pool, clock
        self._rules = pool.rules
        self._loop = asyncio.get_running_loop()
        self._queue = RowQueue(signature.label, signature.batch_rows_max)
        self._scheduled = self._sweeping = False
        self._in_flight: dict[Batch, None] = {}
        self._decoder = OutputDecoder(signature)
        self._encoder = RequestEncoder(signature)
        self._label = signature.label
        self._latencies = LatencyQuantile()
        self._hedging: asyncio.TimerHandle | None = None
        self._drain = DrainRate()
        self.budget = RetryBudget()
        self._requests_unrecorded = 0
        self.batches_sent = 0
        self.rows_sent = 0
        self.retried = self.hedged = self.hedges_won = 0
        """Callers whose rows were sent once more: for a failure; for being late; those of the latter that it served."""

    def expected_wait_s(self) -> float:
        """Return how long rows that are queued now will wait before they are sent; 0 where none wait."""
        return self._drain.wait_s(self._queue.rows, self.rows_sent, self._clock())

    @property
    def rows_waiting(self) -> int:
        """Rows that wait for a worker."""
        return self._queue.rows

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._queue.rows and not self._in_flight

    def submit(
        self, inputs: tuple[bytes, ...], rows: int, expires_at: float, row_shapes: RowShapes | None = None
    ) -> asyncio.Future[Scores]:
        """Queue one caller's rows. inputs: by input of the signature, the raw elements of `rows` rows.

        The future fails with DeadlineExceeded, WorkerUnavailable or WorkerRefused. Raises Overloaded where too many
        wait, WorkerUnavailable where no replica can be reached.
        """
        if not self._pool.reachable:
            raise WorkerUnavailable(f"{self._label}: no worker can be reached")
        answer: asyncio.Future[Scores] = self._loop.create_future()
        self._queue.put(Submission(inputs, rows, expires_at, answer, self._clock(), row_shapes))
        self._requests_unrecorded += 1
        self._schedule()
        return answer

    def wake(self) -> None:
        """Look at the queue again: a connection has come or gone."""
        if self._pool.reachable:
            if self._queue.rows:
                self._schedule()
            return
        for submission in self._queue.empty():
            submission.fail(WorkerUnavailable(f"{self._label}: the last worker is gone"))

    # Sending -------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._queue.rows:
            chosen = self._pick()
            if chosen is None:
                self._drain.rows_wait(self.rows_sent, self._clock())
                return
            now = self._clock()
            submissions = self._queue.take(chosen[0], now)
            if submissions:
                self._send(submissions, *chosen, now)
        self._drain.none_waits()

    def _pick(self) -> tuple[Replica, WorkerConnection] | None:
        again = self._queue.first_again
        if again is not None:
            chosen = self._pool.pick(again.avoid)
            if chosen is not None:
                if chosen[0] is again.avoid:
                    again.avoid = None  # there is no other
                return chosen
        # Rows that can only go to a busy replica hold nobody up who can go to another.
        return self._pool.pick() if self._queue.has_new else None

    def _send(self, submissions: list[Submission], replica: Replica, connection: WorkerConnection, now: float) -> None:
        rows = sum([s.rows for s in submissions])
        expires_at = max([s.expires_at for s in submissions])
        batch = Batch(submissions, rows, replica, connection, now, expires_at)
        request = self._encoder.encode(
            replica.host_header,
            self._tensors(submissions),
            rows,
            timeout_for_worker_us(expires_at - now),
            submissions[0].row_shapes,
        )
        replica.outstanding_rows += rows
        self.budget.record(self._requests_unrecorded, now)
        self._requests_unrecorded = 0
        self.batches_sent += 1
        self.rows_sent += rows
        self._in_flight[batch] = None
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        if self._pool.has_peers:
            self._watch_for_lateness(replica, now)
        connection.exchange(request, lambda answer: self._answered(batch, answer))

    def _tensors(self, submissions: list[Submission]) -> list[bytes]:
        if len(submissions) == 1:
            return list(submissions[0].inputs)
        return [b"".join([s.inputs[i] for s in submissions]) for i in range(len(self._signature.inputs))]

    def _sweep(self) -> None:
        # A worker that has stalled is cut off when nobody in the batch can wait any longer. The callers themselves have
        # been told by their own deadlines, so this may be late, and one timer serves all batches.
        now = self._clock()
        for batch in list(self._in_flight):
            if batch.hedged and batch.expires_at > now + UNWANTED_S_MAX and not batch.is_wanted:
                batch.expires_at = now + UNWANTED_S_MAX
            if batch.expires_at <= now:
                batch.connection.give_up("the worker did not answer in time")
        if self._in_flight:
            self._loop.call_later(SWEEP_S, self._sweep)
        else:
            self._sweeping = False

    # Hedging -------------------------------------------------------------------------------------------------------

    def _watch_for_lateness(self, replica: Replica, now: float) -> None:
        if replica.silent_since_s is None:
            replica.silent_since_s = now
        if self._hedging is None and self._rules.hedge:
            self._hedging = self._loop.call_later(self._hedge_after_s(), self._hedge_late)

    def _hedge_after_s(self) -> float:
        late_s = self._latencies.value_s
        return HEDGE_AFTER_S_UNKNOWN if late_s is None else max(late_s, HEDGE_AFTER_S_MIN)

    def _is_long_for_a_batch(self, took_s: float) -> bool:
        return took_s > LONG_RATIO * self._hedge_after_s()

    def _hedge_late(self) -> None:
        # Batches lie in the order in which they were sent, so one timer, set for the oldest, serves all.
        now, after_s = self._clock(), self._hedge_after_s()
        next_s: float | None = None
        for batch in self._in_flight:
            if batch.hedged:
                continue
            next_s = batch.sent_at + after_s - now
            if next_s > 0:
                break
            self._hedge(batch, now, after_s)
            next_s = after_s  # what was not to be had now may be so then
        self._hedging = None
        if next_s is not None:
            self._hedging = self._loop.call_later(max(next_s, HEDGE_AFTER_S_MIN), self._hedge_late)

    def _hedge(self, batch: Batch, now: float, after_s: float) -> None:
        # Only what a replica that has nothing to do can take: near capacity many batches are late, and a second attempt
        # takes the place of another's first. What a silent replica has held for half of its time is sent all the same.
        silent_since_s = batch.replica.silent_since_s
        is_silent = silent_since_s is not None and now - silent_since_s >= after_s
        is_urgent = is_silent and now - batch.sent_at >= URGENT_SHARE * (batch.expires_at - batch.sent_at)
        if not is_urgent and not self._pool.has_idle_other(batch.replica):
            return
        late = [s for s in batch.submissions if not s.answer.done() and s.copies == 1 and s.expires_at > now]
        if not self._pool.has_other(batch.replica) or not self._affords(len(late), now):
            return
        batch.hedged = True
        self.hedged += len(late)
        for submission in late:
            submission.copies += 1
            self._send_again(submission, batch.replica)
        self._schedule()

    def _affords(self, requests: int, now: float) -> bool:
        return not self._rules.budget or self.budget.spend(requests, now)

    # Answers -------------------------------------------------------------------------------------------------------

    def _answered(self, batch: Batch, answer: WorkerAnswer | ConnectionLost) -> None:
        del self._in_flight[batch]
        replica, now = batch.replica, self._clock()
        replica.outstanding_rows -= batch.rows
        if isinstance(answer, ConnectionLost):
            if batch.hedged:
                self._latencies.observe(now - batch.sent_at)
            if batch.hedged and not batch.is_wanted:
                self._pool.was_late(replica, now)
            elif batch.expires_at > now or self._is_long_for_a_batch(now - batch.sent_at):
                self._pool.failed(replica, now)
            self._failed(batch, WorkerUnavailable, str(answer), now)
        elif answer.status == 200:
            self._deliver(batch, answer, now)
        elif answer.status in ABOUT_THE_ROWS:
            self._pool.refused_rows(replica, now)
            self._refused(batch, _told(answer))
        else:
            self._came_to_nothing(batch, answer, now)
        if self._queue.rows:
            self._schedule()

    def _came_to_nothing(self, batch: Batch, answer: WorkerAnswer, now: float) -> None:
        replica, status = batch.replica, answer.status
        if status < 500 and status != TOO_MANY:
            self._pool.refused(replica, now)
        elif answer.retry_after_s is not None:
            self._pool.rests(replica, answer.retry_after_s, now)
        elif status != OUT_OF_TIME or self._is_long_for_a_batch(now - batch.sent_at):
            self._pool.failed(replica, now)
        by_rows = status >= 500 and status not in NOT_FOR_THE_ROWS
        self._failed(batch, WorkerUnavailable, _told(answer), now, answered=True, by_rows=by_rows)

    def _deliver(self, batch: Batch, answer: WorkerAnswer, now: float) -> None:
        try:
            outputs, finite = self._decoder.decode(answer.body, answer.header_length, batch.rows)
        except ValueError as error:
            self._pool.failed(batch.replica, now)
            self._failed(batch, WorkerRefused, str(error), now, answered=True)
            return
        self._succeeded(batch, now)
        infer_us = int((now - batch.sent_at) * 1e6)
        at = 0
        for submission in batch.submissions:
            end = at + submission.rows
            if submission.refused_by is not None:
                self._served_after_all(submission, batch.replica, now)
            if not submission.answer.done():
                if submission.copies > 1:
                    self.hedges_won += submission.avoid is not batch.replica
                queue_us = int((batch.sent_at - submission.submitted_at) * 1e6)
                share = outputs if submission.rows == batch.rows else [values[at:end] for values in outputs]
                submission.answer.set_result(Scores(share, finite, queue_us, infer_us))
            at = end

    def _succeeded(self, batch: Batch, now: float) -> None:
        if self._pool.has_peers:
            latency_s = now - batch.sent_at
            self._latencies.observe(latency_s)
            self._pool.succeeded(batch.replica, latency_s, now)

    def _refused(self, batch: Batch, reason: str) -> None:
        if len(batch.submissions) == 1:
            self._refused_alone(batch.submissions[0], batch.replica, reason)
            return
        # Somebody's rows are poison. Each goes once more by itself, so that only theirs fails.
        for submission in batch.submissions:
            submission.alone = True
            if not _leaves_to_copy(submission):
                self._queue.put_again(submission)

    def _refused_alone(self, submission: Submission, replica: Replica, reason: str) -> None:
        """Ask another replica for its opinion of one caller's rows. Two that refuse them are proof, one is none.

        Not from the budget: whoever sends bad rows would spend it for all others. It is one attempt, which computes
        nothing where the rows are bad.
        """
        is_first = submission.refused_by is None
        if is_first:
            submission.refused_by = replica
        if submission.answer.done() or _leaves_to_copy(submission):
            return
        if is_first and self._rules.retry and self._pool.has_other(replica):
            self.retried += 1
            submission.alone = True
            self._send_again(submission, replica)
        else:
            # The same one twice, since the others failed: nobody could tell.
            kind = WorkerRefused if is_first or submission.refused_by is not replica else WorkerUnavailable
            submission.fail(kind(f"{self._label}: {reason}"))

    def _served_after_all(self, submission: Submission, replica: Replica, now: float) -> None:
        # The rows are good, so the refusal was the replica's fault. Nothing else that a caller can bring about by its
        # rows counts against a replica that refuses them.
        refused_by, submission.refused_by = submission.refused_by, None
        if refused_by is not None and refused_by is not replica:
            self._pool.failed(refused_by, now)

    def _failed(
        self,
        batch: Batch,
        kind: type[WorkerUnavailable | WorkerRefused],
        reason: str,
        now: float,
        *,
        answered: bool = False,
        by_rows: bool = False,
    ) -> None:
        """Send rows that came to nothing once more, or fail them.

        answered: the replica lives, and is not asked for the same rows again. by_rows: they may be what it fails on;
        where there are several callers they go once more by themselves, so that only the one at fault is failed.
        """
        apart = by_rows and len(batch.submissions) > 1
        may_retry = self._rules.retry and (not answered or apart or self._pool.has_other(batch.replica))
        for submission in batch.submissions:
            submission.failures += 1
            if submission.answer.done() or _leaves_to_copy(submission):
                continue
            if submission.expires_at <= now:
                waited_ms = (now - submission.submitted_at) * 1000
                submission.fail(DeadlineExceeded("waiting for the worker's answer", waited_ms))
            elif may_retry and submission.failures < FAILURES_MAX and self._affords(1, now):
                self.retried += 1
                submission.alone = submission.alone or apart
                self._send_again(submission, batch.replica)
            else:
                submission.fail(kind(f"{self._label}: {reason}"))

    def _send_again(self, submission: Submission, but: Replica) -> None:
        submission.avoid = but
        self._queue.put_again(submission)


def _leaves_to_copy(submission: Submission) -> bool:
    """Give up one place of several in which these rows wait or are under way. Whether there was another."""
    if submission.copies == 1:
        return False
    submission.copies -= 1
    return True


def _told(answer: WorkerAnswer) -> str:
    return f"the worker answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
