"""Rows that wait for a worker: those that are to be sent once more before all others, then the rest, as they came."""

from collections import deque
from typing import Final

from gateway.dispatch.batch import Submission
from gateway.dispatch.replica import Replica
from gateway.errors import DeadlineExceeded, Overloaded

ROWS_WAITING_MAX: Final = 65_536
"""Rows that may wait for one version; beyond it callers are shed at once."""


class RowQueue:
    """The queue of one model version. batch_rows_max: the most rows that its workers take at once."""

    __slots__ = ("_again", "_batch_rows_max", "_label", "_waiting", "rows")

    def __init__(self, label: str, batch_rows_max: int) -> None:
        self._label, self._batch_rows_max = label, batch_rows_max
        self._waiting: deque[Submission] = deque()
        self._again: deque[Submission] = deque()
        self.rows = 0
        """Rows that wait; 0 where it is empty, as every submission has one or more."""

    @property
    def first_again(self) -> Submission | None:
        """What is to be sent once more, and may have a replica to avoid."""
        return self._again[0] if self._again else None

    @property
    def has_new(self) -> bool:
        """Whether rows wait that were never sent."""
        return bool(self._waiting)

    def put(self, submission: Submission) -> None:
        """Queue new rows. Raises Overloaded where too many wait."""
        rows = self.rows + submission.rows
        if rows > ROWS_WAITING_MAX:
            raise Overloaded(f"{self._label}: {self.rows} rows wait already, the most is {ROWS_WAITING_MAX}")
        self._waiting.append(submission)
        self.rows = rows

    def put_again(self, submission: Submission) -> None:
        """Queue rows that were sent before; whatever their number, they are counted already."""
        self._again.append(submission)
        self.rows += submission.rows

    def take(self, replica: Replica, now: float) -> list[Submission]:
        """Take the next batch for a replica; none where all that waited has expired or was given up.

        What has expired is failed here, before it costs a worker anything.
        """
        taken: list[Submission] = []
        rows = 0
        while True:
            queue = self._again if self._again and self._again[0].avoid is not replica else self._waiting
            if not queue:
                return taken
            submission = queue[0]
            if taken and (
                submission.alone
                or rows + submission.rows > self._batch_rows_max
                or submission.row_shapes != taken[0].row_shapes
            ):
                return taken
            queue.popleft()
            self.rows -= submission.rows
            if submission.answer.done():
                continue
            if submission.expires_at <= now:
                submission.fail(DeadlineExceeded("waiting for a worker", (now - submission.submitted_at) * 1000))
                continue
            taken.append(submission)
            rows += submission.rows
            if submission.alone:
                return taken

    def empty(self) -> list[Submission]:
        """Take everything."""
        everything = [*self._again, *self._waiting]
        self._again.clear()
        self._waiting.clear()
        self.rows = 0
        return everything
