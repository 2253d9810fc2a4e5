"""When an open-loop client sends: a schedule fixed beforehand, and a timer precise enough to keep it."""

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np

ARRIVALS_MAX = 1_000_000_000
"""The longest schedule: rate times seconds."""

PIECE_S = 0.25
"""A schedule is made in pieces of this length: a long one takes no memory, and making one holds up nothing."""

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000


def poisson_arrivals_ns(rate_per_s: float, seconds: float, seed: int) -> Iterator[list[int]]:
    """Arrival times in ns after the start, ascending, all before `seconds`, in pieces: a Poisson process of that rate.

    Independent callers arrive like this; a metronome would never make two requests meet.
    Raises ValueError where rate or duration is not positive, or the schedule longer than ARRIVALS_MAX.
    """
    if rate_per_s <= 0 or seconds <= 0 or rate_per_s * seconds > ARRIVALS_MAX:
        raise ValueError(f"{rate_per_s:g} arrivals a second for {seconds:g} s: at least 1, at most {ARRIVALS_MAX:,}")
    rng = np.random.default_rng(seed)
    edges_s = np.append(np.arange(0, seconds, PIECE_S), seconds)
    # Given their number, the arrivals of a Poisson process are uniform and independent (Ross, Stochastic Processes,
    # theorem 2.3.1), and so the numbers in the pieces are multinomial; fixing the whole number at its mean makes every
    # round offer exactly the stated rate.
    counts = rng.multinomial(round(rate_per_s * seconds), np.diff(edges_s) / seconds)
    return (_piece_ns(rng, *edge_s, count) for edge_s, count in zip(pairwise(edges_s.tolist()), counts, strict=True))


def _piece_ns(rng: np.random.Generator, from_s: float, until_s: float, count: int) -> list[int]:
    times_ns: list[int] = (np.sort(rng.uniform(from_s, until_s, count)) * _NS).astype(np.int64).tolist()
    return times_ns


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

    pieces: ascending times in ns after start_ns. `late` is told how late each was handed over, in ns, which is the
    generator's own fault and not the server's.
    """

    def __init__(
        self,
        pieces: Iterable[list[int]],
        start_ns: int,
        send: Callable[[int], None],
        late: Callable[[int], None],
        now_ns: Callable[[], int],
    ) -> None:
        self._arrivals_ns = (start_ns + offset_ns for piece in pieces for offset_ns in piece)
        self._send, self._late, self._now_ns = send, late, now_ns
        self.next_ns = next(self._arrivals_ns, None)
        """When the next arrival is due; None after the last."""

    def send_due(self) -> None:
        """Send everything that is due by now, in order."""
        while (due_ns := self.next_ns) is not None and due_ns <= (now_ns := self._now_ns()):
            self._late(now_ns - due_ns)
            self._send(due_ns)
            self.next_ns = next(self._arrivals_ns, None)
