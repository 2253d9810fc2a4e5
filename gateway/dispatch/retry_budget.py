"""How many retries and hedges may go out: a share of the requests that were sent of late.

Where every worker is slow, each request wants a second attempt, and second attempts make them slower yet. The budget
bounds what they may add, whatever goes wrong. Finagle's RetryBudget is the source of the method.
"""

from typing import Final

RETRY_SHARE: Final = 0.2
"""Of the requests of the last WINDOW_S: what retries and hedges may be, together."""

RETRIES_MIN: Final = 10
"""That may go out in a window however few the requests: with one request a second a share would allow two. A replica is
left out after five failures in a row, with two batches under way: those who prove it bad shall not pay for it."""

WINDOW_S: Final = 10
"""In slots of one second: the one that has begun, and the nine before it."""


class RetryBudget:
    """Requests and retries of the last ten seconds. Times are monotonic seconds."""

    __slots__ = ("_requests", "_second", "_slot", "_spent", "_turns_at_s", "refused")

    def __init__(self) -> None:
        self._requests = [0] * WINDOW_S
        self._spent = [0] * WINDOW_S
        self._second = self._slot = 0
        self._turns_at_s = float("-inf")
        self.refused = 0
        """Requests that were not sent again because the budget was spent."""

    def record(self, requests: int, now_s: float) -> None:
        """Count first attempts."""
        if now_s >= self._turns_at_s:
            self._turn(now_s)
        self._requests[self._slot] += requests

    def spend(self, requests: int, now_s: float) -> bool:
        """Take that many retries out of the budget, or none and return False where fewer are left."""
        if self.left(now_s) < requests:
            self.refused += requests
            return False
        self._spent[self._slot] += requests
        return True

    def left(self, now_s: float) -> int:
        """Return how many retries may go out now."""
        if now_s >= self._turns_at_s:
            self._turn(now_s)
        allowed = max(RETRIES_MIN, int(sum(self._requests) * RETRY_SHARE))
        return max(0, allowed - sum(self._spent))

    def _turn(self, now_s: float) -> None:
        second = int(now_s)
        for passed in range(max(self._second + 1, second - WINDOW_S + 1), second + 1):
            self._requests[passed % WINDOW_S] = self._spent[passed % WINDOW_S] = 0
        self._second, self._slot, self._turns_at_s = second, second % WINDOW_S, second + 1.0
