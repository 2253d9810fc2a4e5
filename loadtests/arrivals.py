"""When an open-loop client sends: a schedule fixed beforehand, and a timer precise enough to keep it."""

import ctypes
import os
from collections.abc import Callable

import numpy as np

ARRIVALS_MAX = 10_000_000
"""The longest schedule: rate times seconds."""

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000


def poisson_arrivals_ns(rate_per_s: float, seconds: float, seed: int) -> list[int]:
    """Arrival times in ns after the start, ascending, all before `seconds`: a Poisson process of that rate.

    Independent callers arrive like this; a metronome would never make two requests meet.
    Raises ValueError where rate or duration is not positive, or the schedule longer than ARRIVALS_MAX.
    """
    if rate_per_s <= 0 or seconds <= 0 or rate_per_s * seconds > ARRIVALS_MAX:
        raise ValueError(f"{rate_per_s:g} arrivals a second for {seconds:g} s: at least 1, at most {ARRIVALS_MAX:,}")
    rng = np.random.default_rng(seed)
    # Given their number, the arrivals of a Poisson process are uniform and independent (Ross, Stochastic Processes,
    # theorem 2.3.1); fixing the number at its mean makes every round offer exactly the stated rate.
    times_ns = np.sort(rng.uniform(0, seconds, round(rate_per_s * seconds))) * _NS
    return [int(time_ns) for time_ns in times_ns]


class _TimerSpec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class PreciseTimer:
    """A one-shot timer of the monotonic clock, as a file descriptor for an event loop's `add_reader`.

    Event loops wait in whole milliseconds, which is longer than the latencies measured here; timerfd (Linux) wakes
    within tens of microseconds. Python has it from 3.13 on. Raises OSError.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))

    def wake_at(self, monotonic_ns: int) -> None:
        """Become readable at that time of `time.monotonic_ns`; at once where it has passed."""
        spec = _TimerSpec(0, 0, *divmod(monotonic_ns, _NS))
        self._checked(self._libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None))

    def acknowledge(self) -> None:
        """Take note of a wake-up, so that the descriptor is not readable any more."""
        os.read(self.fd, 8)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self.fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result


class Pacer:
    """Walks a schedule: calls `send(intended_ns)` for each arrival as its time comes.

    `lags_ns` is how late each was handed over, which is the generator's own fault and not the server's.
    """

    def __init__(self, arrivals_ns: list[int], send: Callable[[int], None], now_ns: Callable[[], int]) -> None:
        self._arrivals_ns, self._send, self._now_ns = arrivals_ns, send, now_ns
        self._next = 0
        self.lags_ns: list[int] = []

    @property
    def next_ns(self) -> int | None:
        """When the next arrival is due; None after the last."""
        return self._arrivals_ns[self._next] if self._next < len(self._arrivals_ns) else None

    def send_due(self) -> None:
        """Send everything that is due by now, in order."""
        while (due_ns := self.next_ns) is not None and due_ns <= (now_ns := self._now_ns()):
            self._next += 1
            self.lags_ns.append(now_ns - due_ns)
            self._send(due_ns)
