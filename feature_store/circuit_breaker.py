"""Decides whether a read may be sent to a store that may be slow or gone. Pure: the caller says what time it is."""

from collections.abc import Callable
from enum import Enum
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""Failures in a row, with no answer between them."""

OPEN_S_MIN: Final = 0.25
OPEN_S_MAX: Final = 2.0
"""The time before a probe doubles from the least to the most, each shortened at random by up to a half, so that the
processes of a gateway do not probe together."""

REFUSED: Final = 0


class BreakerState(Enum):
    """CLOSED: every read is sent. OPEN: none is. HALF_OPEN: one was, the probe, whose end decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after failures in a row; then lets one probe at a time pass, ever later, until one is answered.

    `admit` gives each read the number of the period that it belongs to, with which its end is told: `succeeded`,
    `failed` or `withdrawn`. What ends in a later period than it began in says nothing about the store as it is now, and
    is ignored. draw() → uniform in [0, 1). M. Nygard, Release It! (2nd edition, 2018), "Circuit Breaker".
    """

    __slots__ = ("_draw", "_failures", "_open_s", "_probe_at_s", "opened", "period", "state", "suspects")

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self.period = 1
        """What `admit` gives now, where it admits."""
        self.suspects = False
        """False: CLOSED, and the last read was answered. `admit` then gives `period` and `succeeded` changes nothing,
        so that a caller in a hurry needs neither."""
        self._failures = 0
        self._open_s = OPEN_S_MIN
        self._probe_at_s = 0.0
        self.state = BreakerState.CLOSED
        self.opened = 0
        """Times that it left CLOSED."""

    def admit(self, now_s: float) -> int:
        """Ask to send a read: its period, or REFUSED. The read admitted while OPEN is the probe."""
        if self.state is BreakerState.CLOSED:
            return self.period
        if self.state is BreakerState.HALF_OPEN or now_s < self._probe_at_s:
            return REFUSED
        self._enter(BreakerState.HALF_OPEN)
        return self.period

    def succeeded(self, period: int) -> None:
        """Note an answer."""
        if period != self.period:
            return
        self._failures = 0
        self.suspects = False
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = OPEN_S_MIN
            self._enter(BreakerState.CLOSED)

    def failed(self, period: int, now_s: float) -> None:
        """Note a time-out or a fault of the connection."""
        if period != self.period:
            return
        self._failures += 1
        self.suspects = True
        if self.state is BreakerState.HALF_OPEN:
            self._open(now_s)
        elif self._failures >= FAILURES_TO_OPEN:
            self.opened += 1
            self._open(now_s)

    def withdrawn(self, period: int) -> None:
        """Note that a read was not sent after all. Where it was the probe, the next read may be."""
        if period == self.period and self.state is BreakerState.HALF_OPEN:
            self._enter(BreakerState.OPEN)

    def _open(self, now_s: float) -> None:
        self._probe_at_s = now_s + self._open_s * (1 - self._draw() / 2)
        self._open_s = min(self._open_s * 2, OPEN_S_MAX)
        self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self.state = state
        self.period += 1
