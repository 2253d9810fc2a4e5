"""The two clocks of the gateway. Everything else takes one of them as a parameter."""

import time


def wall_us() -> int:
    """Microseconds since 1970, UTC: for what is stored and compared across machines."""
    return time.time_ns() // 1000


def wall_s() -> float:
    """Seconds since 1970, UTC: for the dates of HTTP and of keys."""
    return wall_us() / 1e6


monotonic = time.perf_counter
"""Seconds from an arbitrary start, never set back: for durations and deadlines."""
