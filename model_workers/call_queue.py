"""Calls that wait for one model version: by priority, and within one priority in lanes by signature."""

from asyncio import Future
from collections import deque
from collections.abc import Iterator
from heapq import merge
from itertools import chain

from contracts.inference import PRIORITY_FIRST, PRIORITY_LAST
from model_workers.errors import Expired, QueueFull
from model_workers.request_rows import Rows, Signature
from model_workers.runtimes.protocol import Arrays


class Call:
    """One caller's rows on their way through the queue."""

    __slots__ = ("answer", "expires_us", "outputs", "priority", "queued_us", "rows")

    def __init__(
        self,
        rows: Rows,
        outputs: tuple[str, ...],
        queued_us: int,
        timeout_us: int | None,
        priority: int,
        answer: Future[Arrays],
    ) -> None:
        self.rows = rows
        self.outputs = outputs
        self.queued_us = queued_us
        self.expires_us = None if timeout_us is None else queued_us + timeout_us
        self.priority = priority
        self.answer = answer


class CallQueue:
    """Holds calls of at most `rows_max` rows together. `rows` is how many wait now.

    The first priority goes first, always: calls of a lower one wait as long as there are higher ones. Within a priority
    the lanes are served in turn, so that odd shapes neither break up the others' batches nor starve.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._lanes: list[dict[Signature, deque[Call]]] = [{} for _ in range(PRIORITY_FIRST, PRIORITY_LAST + 1)]
        self.rows = 0

    def add(self, call: Call) -> None:
        """Queue a call. Where its rows do not fit, the newest calls of lower priority make room and get QueueFull.

        Raises QueueFull where all of those together would not make room; they then stay.
        """
        if self.rows + call.rows.count > self._rows_max:
            self._make_room(call)
        lanes = self._lanes[call.priority - PRIORITY_FIRST]
        signature = call.rows.signature
        lane = lanes.get(signature)
        if lane is None:
            lane = lanes[signature] = deque()
        lane.append(call)
        self.rows += call.rows.count

    def take(self, rows_max: int, now_us: int) -> list[Call]:
        """Take the calls of the next execution: `rows_max` rows or one call. The queue must hold something.

        They come from the lane whose turn it is; what room they leave, calls of lower priority and the same signature
        fill. Cancelled and expired calls are dropped on the way, so that there may be none left to run.
        """
        batch: list[Call] = []
        level = 0
        while not self._lanes[level]:
            level += 1
        lanes = self._lanes[level]
        signature, lane = next(iter(lanes.items()))
        rows = self._move(lane, batch, 0, rows_max, now_us)
        del lanes[signature]
        if lane:
            lanes[signature] = lane  # at the end: the other lanes come first
        if batch and self.rows:
            for lower in self._lanes[level + 1 :]:
                if fill := lower.get(signature):
                    rows = self._move(fill, batch, rows, rows_max, now_us)
                    if not fill:
                        del lower[signature]
        return batch

    def clear(self) -> None:
        """Forget every call."""
        for lanes in self._lanes:
            lanes.clear()
        self.rows = 0

    def __iter__(self) -> Iterator[Call]:
        return chain(*(chain(*lanes.values()) for lanes in self._lanes))

    def _move(self, lane: deque[Call], batch: list[Call], rows: int, rows_max: int, now_us: int) -> int:
        """Move calls from a lane to a batch of `rows` rows, as far as they fit. Returns the rows it has then."""
        while lane and (not batch or rows + lane[0].rows.count <= rows_max):
            call = lane.popleft()
            self.rows -= call.rows.count
            if call.answer.done():
                continue  # its caller was cancelled while it waited
            if call.expires_us is not None and now_us >= call.expires_us:
                call.answer.set_exception(Expired(now_us - call.queued_us, call.expires_us - call.queued_us))
                continue
            batch.append(call)
            rows += call.rows.count
        return rows

    def _make_room(self, arriving: Call) -> None:
        waiting_rows = self.rows
        missing_rows = waiting_rows + arriving.rows.count - self._rows_max
        displaced: list[Call] = []
        for call in self._newest_below(arriving.priority):
            displaced.append(call)
            missing_rows -= call.rows.count
            if missing_rows <= 0:
                break
        else:
            raise QueueFull(waiting_rows, self._rows_max)
        for call in displaced:
            self._remove_newest(call)
            if not call.answer.done():
                call.answer.set_exception(QueueFull(waiting_rows, self._rows_max))

    def _newest_below(self, priority: int) -> Iterator[Call]:
        """Yield the calls of lower priority: the lowest ones first, and of those the newest."""
        for lanes in reversed(self._lanes[priority - PRIORITY_FIRST + 1 :]):
            yield from merge(*(reversed(lane) for lane in lanes.values()), key=lambda call: -call.queued_us)

    def _remove_newest(self, call: Call) -> None:
        lanes = self._lanes[call.priority - PRIORITY_FIRST]
        lane = lanes[call.rows.signature]
        lane.pop()
        if not lane:
            del lanes[call.rows.signature]
        self.rows -= call.rows.count
