"""Natural batching: while the model runs, rows gather; when it is free, everything gathered goes as one execution.

There is no timer. An idle model runs a lone row in the next turn of the event loop, together with whatever else this
turn brings, and the busier the model is, the larger its executions grow.

Every call gets exactly one answer or one error, whatever its batch-mates do: a cancelled one is left out, an expired
one is refused, one that waits may make room for a call of higher priority, and where an execution of several callers
fails, each caller's rows are run again alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Protocol

import numpy as np

from contracts.inference import PRIORITY_DEFAULT
from model_workers.call_queue import Call, CallQueue
from model_workers.errors import ShuttingDown
from model_workers.executions import Done, Work
from model_workers.request_rows import Rows
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
        self._batch_rows_max = batch_rows_max
        self._clock_us = clock_us
        self._free_slots = executions_max
        self._queue = CallQueue(queue_rows_max)
        self._start_scheduled = False
        self._executing: list[list[Call]] = []
        self._closed = False
        self._ended = asyncio.Event()

    @property
    def waiting_rows(self) -> int:
        """How many rows wait, those in execution not counted."""
        return self._queue.rows

    def submit(
        self, rows: Rows, outputs: tuple[str, ...], timeout_us: int | None, priority: int = PRIORITY_DEFAULT
    ) -> asyncio.Future[Arrays]:
        """Queue one caller's rows; its future yields their outputs.

        Instead it raises Expired, ShuttingDown, what `execute` raised, or QueueFull where calls of higher priority
        needed the room.

        timeout_us: the caller's budget; rows still waiting when their turn comes after it are not run. None: no budget.
        priority: 1 goes first, 3 last.
        Raises QueueFull and ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown
        answer: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        self._queue.add(Call(rows, outputs, self._clock_us(), timeout_us, priority, answer))
        self._schedule_start()
        return answer

    async def drain(self) -> None:
        """Refuse new calls; return once each accepted one has its answer or error and nothing runs any more.

        The model may be closed then. Waits as long as an execution takes: give it a timeout where the model may hang.
        """
        self._closed = True
        self._note_if_ended()
        await self._ended.wait()

    def abort(self) -> None:
        """Refuse new calls and fail each one that has no answer yet with ShuttingDown. What runs goes on, unheard."""
        self._closed = True
        for call in chain(*self._executing, self._queue):
            if not call.answer.done():
                call.answer.set_exception(ShuttingDown())
        self._queue.clear()
        self._note_if_ended()

    def _schedule_start(self) -> None:
        # Never at once: the requests that were read in the same turn of the loop are about to be submitted too.
        if self._free_slots and self._queue.rows and not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_next)

    def _start_next(self) -> None:
        self._start_scheduled = False
        while self._free_slots and self._queue.rows:
            now_us = self._clock_us()
            batch = self._queue.take(self._batch_rows_max, now_us)
            if batch:
                self._observer.dequeued([now_us - call.queued_us for call in batch])
                self._free_slots -= 1
                self._executing.append(batch)
                rows = sum(call.rows.count for call in batch)
                work = partial(run_batch, self._execute, batch, self._clock_us)
                self._executor.start(work, rows, partial(self._finish, batch, rows))
        if self._closed:
            self._note_if_ended()

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
        if self._closed:
            self._note_if_ended()

    def _note_if_ended(self) -> None:
        if not self._queue.rows and not self._executing:
            self._ended.set()


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
