"""How many requests of one model may be in flight: found from how long they take.

A gateway that is given more than its workers can do answers all of it late, unless it answers a part of it at once
with "not now". Which part, is known from the latencies: while they are far below the deadline there is nothing to shed,
and once they come near it, only as many requests may be in flight as the workers get through in good time.

The method is that of Gradient2 of Netflix' concurrency-limits (the latency of now against that of the long run), with
Little's law for the step: requests in flight = requests a second times latency. That step lands where it should after
one measurement, whatever the delay until its effect is seen, where multiplying by the ratio of latencies would go on
cutting until it is. The other departures are there because to shed for a healthy model is worse than what a limit
prevents: the limit starts at its ceiling, which no queue can hold against it, and returns there once nothing presses
on it; and the latency of the long run is bounded by shares of the deadline.
"""

from typing import Final

WINDOW_S: Final = 0.1
"""How often `update` is to be called."""

LIMIT_MIN: Final = 16
"""Requests in flight that are admitted in any case: enough to fill a batch, and to see latencies fall."""

LONG_SHARE_MIN: Final = 0.25
LONG_SHARE_MAX: Final = 0.5
"""Of the deadline: bounds of the latency that the current one is compared with. Nothing is shed while latency is far
below the deadline; and a lasting overload cannot become what is usual."""

TOLERANCE: Final = 1.5
"""How many times that latency may be exceeded, as in Gradient2."""

ROUND_ANSWERS: Final = 25
"""Answers that a decision rests on, so that one slow batch is no overload."""

ROUND_S_MAX: Final = 0.5
"""After it a decision is taken on fewer answers."""

ROUND_ANSWERS_MIN: Final = 5
"""Fewer decide nothing."""

GROWTH: Final = 0.1
"""Share by which the limit grows in the time that a request takes, and at least in a window."""

LONG_RISES_S: Final = 60.0
LONG_FALLS_S: Final = 5.0
"""Time constants of the latency of the long run."""

OVER_S_MAX: Final = 2.0
"""Besides twice the deadline: a latency that has not fallen by then, although the limit has, is no queue. It is what
the model takes now, and counts as usual from here on, within the bounds above."""

CALM_S: Final = 2.0
"""Once nothing has pressed on the limit for so long, it is its ceiling again."""


class AdaptiveLimit:
    """The limit of one model. Times are monotonic seconds.

    deadline_s: the budget that its requests have. ceiling: the most that may ever be in flight.
    """

    __slots__ = (
        "_answers",
        "_ceiling",
        "_deadline_s",
        "_in_flight_most",
        "_latency_sum_s",
        "_long_s",
        "_over_since_s",
        "_pressed_at_s",
        "_round_began_s",
        "limit",
    )

    def __init__(self, deadline_s: float, ceiling: int) -> None:
        self._deadline_s, self._ceiling = deadline_s, ceiling
        self._long_s: float | None = None
        self._round_began_s: float | None = None
        self._over_since_s: float | None = None
        self._pressed_at_s = float("-inf")
        self._answers = self._in_flight_most = 0
        self._latency_sum_s = 0.0
        self.limit = ceiling
        """Requests that may be in flight now."""

    @property
    def latency_most_s(self) -> float:
        """The latency above which the limit falls."""
        least_s, most_s = self._deadline_s * LONG_SHARE_MIN, self._deadline_s * LONG_SHARE_MAX
        return TOLERANCE * min(max(self._long_s or 0.0, least_s), most_s)

    def completed(self, latency_s: float) -> None:
        """Count a request that was answered, or whose time ran out."""
        self._answers += 1
        self._latency_sum_s += latency_s

    def update(self, now_s: float, in_flight_most: int) -> None:
        """Set the limit anew; call it every WINDOW_S. in_flight_most: since the last call, the most at one time."""
        if self._round_began_s is None:
            self._round_began_s = now_s - WINDOW_S
        self._in_flight_most = max(self._in_flight_most, in_flight_most)
        round_s = now_s - self._round_began_s
        if round_s <= 0 or (self._answers < ROUND_ANSWERS and round_s < ROUND_S_MAX):
            return
        if 2 * self._in_flight_most >= self.limit:
            self._pressed_at_s = now_s
        if self._answers >= ROUND_ANSWERS_MIN:
            self._decide(now_s, round_s, self._latency_sum_s / self._answers)
        if now_s - self._pressed_at_s >= CALM_S:
            self.limit = self._ceiling
        self._round_began_s = now_s
        self._answers = self._in_flight_most = 0
        self._latency_sum_s = 0.0

    def _decide(self, now_s: float, round_s: float, latency_s: float) -> None:
        if self._long_s is None:
            self._long_s = latency_s
        latency_most_s = self.latency_most_s
        # Little's law: with so many in flight, at this throughput, each would take latency_most_s.
        fitting = int(self._answers / round_s * latency_most_s)
        is_over = latency_s > latency_most_s
        if is_over:
            self._pressed_at_s = now_s
            self._set(min(self.limit, fitting))
        elif self._pressed_at_s == now_s:
            self._set(max(self.limit + self._step(latency_s, round_s), fitting))
        self._learn(latency_s, now_s, round_s, is_over=is_over)

    def _set(self, limit: int) -> None:
        self.limit = min(max(limit, LIMIT_MIN), self._ceiling)

    def _step(self, latency_s: float, round_s: float) -> int:
        # The last step begins to show when a request has gone through: growing faster would overshoot.
        return max(1, int(self.limit * GROWTH * min(1.0, round_s / max(latency_s, WINDOW_S))))

    def _learn(self, latency_s: float, now_s: float, round_s: float, *, is_over: bool) -> None:
        assert self._long_s is not None
        if not is_over:
            self._over_since_s = None
        elif self._over_since_s is None:
            self._over_since_s = now_s
        elif now_s - self._over_since_s >= OVER_S_MAX + 2 * self._deadline_s:
            self._long_s = latency_s
        time_constant_s = LONG_RISES_S if latency_s > self._long_s else LONG_FALLS_S
        self._long_s += (latency_s - self._long_s) * min(1.0, round_s / time_constant_s)
