"""How long rows that are queued now will wait, told by how fast the queue has been drained of late.

Only what is measured while rows wait says anything about capacity: an idle version drains as fast as it is asked.
"""

from typing import Final

WINDOW_S: Final = 0.5
"""Over which the rate is measured, and then anew."""

KNOWN_AFTER_S: Final = 0.02
"""Rows that have waited for less say nothing yet."""


class DrainRate:
    """Of one version. Times are monotonic seconds; `rows_sent` is a count that only grows."""

    __slots__ = ("_began_s", "_progress_at_s", "_rate", "_sent_at_began", "_sent_at_progress")

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._rate: float | None = None
        """Rows a second in the last whole window."""

        self._progress_at_s = 0.0
        self._sent_at_began = self._sent_at_progress = 0

    def rows_wait(self, rows_sent: int, now_s: float) -> None:
        """Note that what is queued could not all be sent."""
        if self._began_s is None:
            self._began_s = self._progress_at_s = now_s
            self._sent_at_began = self._sent_at_progress = rows_sent
        elif rows_sent != self._sent_at_progress:
            self._progress_at_s, self._sent_at_progress = now_s, rows_sent

    def none_waits(self) -> None:
        """Note that the queue is empty."""
        self._began_s = self._rate = None

    def wait_s(self, rows_waiting: int, rows_sent: int, now_s: float) -> float:
        """Return how long a row that is queued now will wait; 0 where that is not known."""
        if self._began_s is None or not rows_waiting:
            return 0.0
        took_s = now_s - self._began_s
        if took_s < KNOWN_AFTER_S and self._rate is None:
            return 0.0
        rate = self._rate
        if rate is None:
            rate = (rows_sent - self._sent_at_began) / took_s
        if took_s >= WINDOW_S:
            rate = self._rate = (rows_sent - self._sent_at_began) / took_s
            self._began_s, self._sent_at_began = now_s, rows_sent
        # A queue that has stood still for a while is expected to do so for as long again.
        stood_still_s = now_s - self._progress_at_s
        return max(rows_waiting / rate, stood_still_s) if rate else max(took_s, stood_still_s)
