"""Prints what the near cache costs beside an exact LRU, in µs and bytes: `python tests/benchmarks/near_cache.py`.

Each time is the best of several rounds. The share of hits is that of one draw of a million keys, Zipf-distributed, with
room for a tenth of them.
"""

import gc
import sys
import timeit
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from feature_store import NearCache

ROW = b"\xf5" * 232
KEYS = [b"sekisho:row:user_profile:u%d" % number for number in range(50_000)]
DRAWS, DISTINCT = 1_000_000, 100_000
CALLS, ROUNDS = 50_000, 7


class LeastRecentlyUsed:
    """The alternative: every hit moves its entry to the end of an OrderedDict."""

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[bytes, tuple[bytes | None, float]] = OrderedDict()
        self._entries_max = entries_max

    def fresh(self, key: bytes, read_since_s: float) -> tuple[bytes | None, float] | None:
        """Find a row."""
        entry = self._entries.get(key)
        if entry is None or entry[1] < read_since_s:
            return None
        self._entries.move_to_end(key)
        return entry

    def remember(self, key: bytes, row: bytes | None, read_at_s: float) -> None:
        """Keep a row."""
        self._entries[key] = (row, read_at_s)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)


Cache = NearCache | LeastRecentlyUsed


def best_us(step: Callable[[], object]) -> float:
    return min(timeit.repeat(step, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def timed(name: str, make: Callable[[int], Cache]) -> None:
    full = make(len(KEYS) + CALLS * ROUNDS)
    for key in KEYS:
        full.remember(key, ROW, 1.0)
    keys = cycle(KEYS)
    hit = best_us(lambda: full.fresh(next(keys), 1.0))
    again = best_us(lambda: full.remember(next(keys), ROW, 2.0))
    small, new = make(1_000), (b"sekisho:row:user_profile:n%d" % number for number in range(10**9))
    evict = best_us(lambda: small.remember(next(new), ROW, 1.0))
    print(f"{name:6} hit {hit:.2f} µs, read again {again:.2f} µs, new and another evicted {evict:.2f} µs")


def share_of_hits(cache: Cache, keys: list[bytes]) -> float:
    hits = 0
    for key in keys:
        if cache.fresh(key, 0.0) is None:
            cache.remember(key, ROW, 1.0)
        else:
            hits += 1
    return hits / len(keys)


def bytes_an_entry(cache: Cache) -> float:
    entries = 60_000
    gc.collect()
    tracemalloc.start()
    for key in range(entries):
        cache.remember(b"sekisho:row:user_profile:u%06d" % key, bytes(bytearray(ROW)), float(key))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / entries - len(ROW) - len(b"sekisho:row:user_profile:u000000")


def main() -> None:
    timed("CLOCK", lambda entries: NearCache(entries_max=entries, bytes_max=10**12))
    timed("LRU", LeastRecentlyUsed)
    ranks = np.random.default_rng(0).zipf(1.1, DRAWS * 2)
    keys = [b"sekisho:row:user_profile:u%d" % rank for rank in ranks[ranks <= DISTINCT][:DRAWS]]
    room = DISTINCT // 10
    clock, lru = share_of_hits(NearCache(entries_max=room), keys), share_of_hits(LeastRecentlyUsed(room), keys)
    print(f"hits with room for {room} of {DISTINCT} keys: CLOCK {clock:.1%}, LRU {lru:.1%}")
    takes = bytes_an_entry(NearCache()), bytes_an_entry(LeastRecentlyUsed(10**9))
    print("bytes of an entry beside its key and row: CLOCK {:.0f}, LRU {:.0f}".format(*takes))


if __name__ == "__main__":
    main()
