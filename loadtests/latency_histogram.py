"""Latencies of any number of requests in a few kilobytes, with percentiles that are right within half a per cent."""

from collections.abc import Mapping
from itertools import accumulate
from math import ceil

RELATIVE_ERROR_MAX = 1 / 256
"""How far a percentile may be from the value that was measured. Below 256 ns it is exact."""

LATENCY_NS_MAX = 2**40 - 1
"""About 18 minutes; what is longer counts as this long."""

_PER_OCTAVE = 128
_EXACT_BITS = 8
_BUCKETS = (40 - _EXACT_BITS) * _PER_OCTAVE + 2 * _PER_OCTAVE


class LatencyHistogram:
    """Counts by bucket, 128 of equal width for each doubling, as HdrHistogram has them (G. Tene, hdrhistogram.org)."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_ns = 0

    def record(self, latency_ns: int) -> None:
        """Count one latency; a negative one counts as 0."""
        if not 0 <= latency_ns <= LATENCY_NS_MAX:
            latency_ns = min(max(0, latency_ns), LATENCY_NS_MAX)
        self.count += 1
        self.max_ns = max(self.max_ns, latency_ns)
        # Written in place rather than called: this is the generator's hot path.
        shift = latency_ns.bit_length() - _EXACT_BITS
        self._counts[latency_ns if shift <= 0 else shift * _PER_OCTAVE + (latency_ns >> shift)] += 1

    def add(self, other: "LatencyHistogram") -> None:
        """Count all that another one has counted."""
        self._counts = list(map(int.__add__, self._counts, other._counts))
        self.count += other.count
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, share: float) -> float:
        """Nearest-rank percentile, as the middle of its bucket; 0 where nothing was counted.

        Raises ValueError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise ValueError(f"no percentile {share}")
        if self.count == 0:
            return 0.0
        # The rounding undoes binary fractions: 0.07 * 100 is a hair above 7, whose ceiling would be 8.
        rank = ceil(round(share * self.count, 9))
        reached = accumulate(self._counts)
        bucket = next(i for i, until_here in enumerate(reached) if until_here >= rank)
        # The last bucket's middle may lie beyond the largest value, which is known.
        return min(_middle_ns(bucket), float(self.max_ns))

    def buckets(self) -> dict[int, int]:
        """Give the count of each bucket that is not empty."""
        return {bucket: count for bucket, count in enumerate(self._counts) if count}

    @staticmethod
    def from_buckets(buckets: Mapping[int, int], max_ns: int) -> "LatencyHistogram":
        """Make the histogram that told its `buckets` and `max_ns`. Raises IndexError where a bucket does not exist."""
        made = LatencyHistogram()
        for bucket, count in buckets.items():
            made._counts[bucket] = count
        made.count, made.max_ns = sum(buckets.values()), max_ns
        return made


def _middle_ns(bucket: int) -> float:
    if bucket < 2 * _PER_OCTAVE:
        return float(bucket)
    shift = bucket // _PER_OCTAVE - 1
    return float(((bucket - shift * _PER_OCTAVE) << shift) + ((1 << shift) - 1) / 2)
