"""Rows that a reader remembers, so that it need not ask Redis for them, or has them when Redis does not answer."""

from collections import deque
from typing import Final

import msgspec

from feature_store.row_layout import ROW_BYTES_MAX

NEAR_CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
NEAR_CACHE_ENTRIES_MAX: Final = 100_000
"""Of one process, whichever is reached first."""

ENTRY_OVERHEAD_BYTES: Final = 200
"""What an entry takes beside the characters of its key and row: measured by tests/benchmarks/near_cache.py."""

SECOND_ROUNDS_MAX: Final = 32
"""Entries that one eviction lets live because they were used: it must not walk all of them at once."""


# Not tracked by the garbage collector, which would otherwise walk 100,000 of them in one pause.
class RememberedRow(msgspec.Struct, gc=False):
    """One packed row, or None where there was none, and when it was asked for (`read_at_s`)."""

    row: bytes | None
    read_at_s: float
    used: bool = False


class NearCache:
    """Packed rows by key, each with the time it was read; those that nobody asks for are forgotten first.

    Rows are kept as they are stored, not decoded: decoding takes a microsecond, and whether a row is too old by its
    event time has to be told when it is used. That there is no row is remembered too. Eviction is CLOCK (a queue in
    which what was used since gets a second round): a hit sets a flag, where LRU moves an entry.
    """

    __slots__ = ("_bytes_max", "_entries", "_entries_max", "_queue", "bytes_held", "hits", "misses", "stale_served")

    def __init__(self, *, bytes_max: int = NEAR_CACHE_BYTES_MAX, entries_max: int = NEAR_CACHE_ENTRIES_MAX) -> None:
        self._bytes_max, self._entries_max = bytes_max, entries_max
        self._entries: dict[bytes, RememberedRow] = {}
        self._queue: deque[bytes] = deque()
        self.bytes_held = 0
        """Bytes of all entries, overhead included."""
        self.hits = 0
        """Rows that were young enough to be served without asking."""
        self.misses = 0
        self.stale_served = 0
        """Rows served because Redis did not answer."""

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: bytes, read_since_s: float) -> RememberedRow | None:
        """Find what was read at or after that time: a row, or that there is none. None: ask Redis."""
        entry = self._entries.get(key)
        if entry is None or entry.read_at_s < read_since_s:
            self.misses += 1
            return None
        entry.used = True
        self.hits += 1
        return entry

    def stale(self, key: bytes, read_since_s: float) -> bytes | None:
        """Find a row, however the store is now, that was read at or after that time. None: there is none."""
        entry = self._entries.get(key)
        if entry is None or entry.row is None or entry.read_at_s < read_since_s:
            return None
        entry.used = True
        self.stale_served += 1
        return entry.row

    def remember(self, key: bytes, row: bytes | None, read_at_s: float) -> None:
        """Keep a row, or that there is none, unless a later reading of it is kept already."""
        if row is not None and len(row) > ROW_BYTES_MAX:
            return  # no row that could be used
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = RememberedRow(row, read_at_s)
            self._queue.append(key)
            self.bytes_held += ENTRY_OVERHEAD_BYTES + len(key) + _size(row)
        elif entry.read_at_s <= read_at_s:
            self.bytes_held += _size(row) - _size(entry.row)
            entry.row, entry.read_at_s = row, read_at_s
        while len(self._entries) > self._entries_max or self.bytes_held > self._bytes_max:
            self._forget_one()

    def _forget_one(self) -> None:
        key = self._queue.popleft()
        for _round in range(SECOND_ROUNDS_MAX):
            entry = self._entries[key]
            if not entry.used:
                break
            entry.used = False
            self._queue.append(key)
            key = self._queue.popleft()
        entry = self._entries.pop(key)
        self.bytes_held -= ENTRY_OVERHEAD_BYTES + len(key) + _size(entry.row)


def _size(row: bytes | None) -> int:
    return 0 if row is None else len(row)
