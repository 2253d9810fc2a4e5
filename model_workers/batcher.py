"""Natural batching: while the model runs, rows gather; when it is free, everything gathered goes as one execution.

There is no timer. An idle model runs a lone row in the next turn of the event loop, together with whatever else this
turn brings, and the busier the model is, the larger its executions grow.

Every call gets exactly one answer or one error, whatever its batch-mates do: a cancelled one is left out, an expired
one is refused, and where an execution of several callers fails, each caller's rows are run again alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Protocol

import numpy as np

from model_workers.errors import Expired, QueueFull, ShuttingDown
from model_workers.executions import Done, Work
from model_workers.request_rows import Rows, Signature
from model_workers.runtimes.protocol import Arrays

QUEUE_ROWS_MAX = 16_384
"""Rows that wait for one version. At 2 µs a row of a small tree model they are 33 ms of work."""

Execute = Callable[[Arrays, Sequence[str]], Arrays]
Outcome = Arrays | Exception


class Executor(Protocol):
    """Where executions run. `done` is called back on the event loop."""

    def start(self, work: Work, rows: int, done: Done) -> None:
        """Begin `work`, and call `done` with what it returns: at once, or in a later turn of the loop."""
        ...


class BatchObserver(Protocol):
    """Who hears of executions, on the event loop."""

    def dequeued(self, queue_us: Sequence[int]) -> None:
        """Some calls leave the queue for one execution, each after so long."""
        ...

    def executed(self, rows: int, compute_us: int) -> None:
        """One execution of so many rows took so long."""
        ...


class Call:
    """One caller's rows on their way through the queue."""

    __slots__ = ("answer", "expires_us", "outputs", "queued_us", "rows")

    def __init__(
        self,
        rows: Rows,
        outputs: tuple[str, ...],
        queued_us: int,
        timeout_us: int | None,
        answer: asyncio.Future[Arrays],
    ) -> None:
        self.rows = rows
        self.outputs = outputs
        self.queued_us = queued_us
        self.expires_us = None if timeout_us is None else queued_us + timeout_us
        self.answer = answer


class Batcher:
    """Gathers the calls of one model version into executions. Lives on one event loop.

    execute: runs rows and returns the named outputs; called by `executor`, never here.
    batch_rows_max: rows of one execution; a call of more rows goes alone, and `execute` splits it.
    queue_rows_max: rows that may wait, those in execution not counted.
    executions_max: executions in flight at once.
    clock_us: a monotonic clock in µs.
    """

    def __init__(
        self,
        execute: Execute,
        executor: Executor,
        *,
        batch_rows_max: int,
        queue_rows_max: int,
        executions_max: int,
        clock_us: Callable[[], int],
        observer: BatchObserver,
    ) -> None:
        self._execute, self._executor, self._observer = execute, executor, observer
        self._batch_rows_max, self._queue_rows_max = batch_rows_max, queue_rows_max
        self._clock_us = clock_us
        self._free_slots = executions_max
        # One lane a signature, served in turn, so that odd shapes neither break up the others' batches nor starve.
        self._lanes: dict[Signature, deque[Call]] = {}
        self._start_scheduled = False
        self._executing: list[list[Call]] = []
        self._closed = False
        self.waiting_rows = 0

    def submit(self, rows: Rows, outputs: tuple[str, ...], timeout_us: int | None) -> asyncio.Future[Arrays]:
        """Queue one caller's rows; its future yields their outputs, or Expired, ShuttingDown, or what `execute` raised.

        timeout_us: the caller's budget; rows still waiting when it is spent are not run. None: no budget.
        Raises QueueFull and ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown
        if self.waiting_rows + rows.count > self._queue_rows_max:
            raise QueueFull(self.waiting_rows, self._queue_rows_max)
        answer: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        call = Call(rows, outputs, self._clock_us(), timeout_us, answer)
        lane = self._lanes.get(rows.signature)
        if lane is None:
            lane = self._lanes[rows.signature] = deque()
        lane.append(call)
        self.waiting_rows += rows.count
        self._schedule_start()
        return answer

    def abort(self) -> None:
        """Refuse new calls and fail each one that has no answer yet with ShuttingDown."""
        self._closed = True
        for call in chain(*self._executing, *self._lanes.values()):
            if not call.answer.done():
                call.answer.set_exception(ShuttingDown())
        self._lanes.clear()
        self.waiting_rows = 0

    def _schedule_start(self) -> None:
        # Never at once: the requests that were read in the same turn of the loop are about to be submitted too.
        if self._free_slots and self._lanes and not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        self._start_scheduled = False
        while self._free_slots and self._lanes:
            batch = self._take_batch()
            if batch:
                self._free_slots -= 1
                self._executing.append(batch)
                rows = sum(call.rows.count for call in batch)
                work = partial(run_batch, self._execute, batch, self._clock_us)
                self._executor.start(work, rows, partial(self._finish, batch, rows))

    def _take_batch(self) -> list[Call]:
        """Take calls from the lane whose turn it is: batch_rows_max rows or one call, none where none is alive."""
        signature, lane = next(iter(self._lanes.items()))
        now_us = self._clock_us()
        batch: list[Call] = []
        rows = 0
        while lane and (not batch or rows + lane[0].rows.count <= self._batch_rows_max):
            call = lane.popleft()
            self.waiting_rows -= call.rows.count
            if call.answer.done():
                continue  # its caller was cancelled while it waited
            if call.expires_us is not None and now_us >= call.expires_us:
                call.answer.set_exception(Expired(now_us - call.queued_us, call.expires_us - call.queued_us))
                continue
            batch.append(call)
            rows += call.rows.count
        del self._lanes[signature]
        if lane:
            self._lanes[signature] = lane  # at the end: the other lanes come first
        if batch:
            self._observer.dequeued([now_us - call.queued_us for call in batch])
        return batch

    def _finish(self, batch: list[Call], rows: int, finished: tuple[list[Outcome], int]) -> None:
        outcomes, compute_us = finished
        self._executing.remove(batch)
        self._free_slots += 1
        # Before the answers: what waits then starts before their callers wake up to write them.
        self._schedule_start()
        for call, outcome in zip(batch, outcomes, strict=True):
            if call.answer.done():
                continue
            if isinstance(outcome, Exception):
                call.answer.set_exception(outcome)
            else:
                call.answer.set_result(outcome)
        self._observer.executed(rows, compute_us)


def run_batch(execute: Execute, batch: Sequence[Call], clock_us: Callable[[], int]) -> tuple[list[Outcome], int]:
    """Run calls as one execution: an outcome for each, in order, and the time it took in µs. Never raises.

    Where that fails and there are several callers, each is run alone, so that a poison row fails its own caller only.
    """
    began_us = clock_us()
    outcomes = _run_together(execute, batch)
    if len(batch) > 1 and isinstance(outcomes[0], Exception):
        outcomes = [outcome for call in batch for outcome in _run_together(execute, [call])]
    return outcomes, clock_us() - began_us


def _run_together(execute: Execute, calls: Sequence[Call]) -> list[Outcome]:
    try:
        # Concatenated also where there is only one: the copy is aligned, which a view into a body need not be.
        inputs = {name: np.concatenate([call.rows.arrays[name] for call in calls]) for name in calls[0].rows.arrays}
        names = list(dict.fromkeys(name for call in calls for name in call.outputs))
        answers = execute(inputs, names)
        return [
            {name: answers[name][start:end] for name in call.outputs}
            for call, (start, end) in zip(calls, _spans(calls), strict=True)
        ]
    except Exception as error:  # noqa: BLE001 - whatever a model raises is the answer of the callers whose rows it ran
        return [error] * len(calls)


def _spans(calls: Sequence[Call]) -> list[tuple[int, int]]:
    return list(pairwise(accumulate((call.rows.count for call in calls), initial=0)))
