"""The log's queue and its writer thread. Offering never waits; what does not fit is dropped and counted by reason."""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa

from gateway.prediction_log.log_table import LogTable
from gateway.prediction_log.parquet_process import ParquetProcess
from gateway.prediction_log.parquet_spool import FileNames, OpenSpool, left_behind

ROWS_PENDING_MAX: Final = 200_000
BYTES_PENDING_MAX: Final = 256 * 1024 * 1024
"""Rows and bytes that may wait for the writer. More is dropped: a slow disk must not become anybody's latency."""

DECODED_BYTES_PER_BYTE: Final = 16
"""What a byte of JSON takes as Python objects: 1 in long strings, 7 to 18 in lists of numbers and small instances."""

APPEND_INTERVAL_S: Final = 0.2
"""How long an entry may wait in memory: what a killed process can lose."""

APPEND_INTERVAL_MIN_S: Final = 0.02
"""The least time between two looks at the queue, which come as often as it has one append's worth."""

ROWS_PER_APPEND_MAX: Final = 512
"""Rows that are written in one piece. More cost less each; but no call may hold the interpreter's lock for long, since
requests wait for it."""

ENTRIES_PER_FREE_MAX: Final = 64
"""Entries that are freed in one call: a dozen objects each, and the lock is held until the last."""

APPEND_PAUSE_S: Final = 0.002
"""Between two pieces: the event loop catches up with what it was kept from."""

FILE_ROWS_MAX: Final = 500_000
FILE_BYTES_MAX: Final = 256 * 1024 * 1024
LOSS_TOLD_EVERY_S: Final = 60.0
"""Rows that are lost are told at once, and those lost after them together, this often; the counts have all."""

CLOSE_TIMEOUT_S: Final = 30.0
HOUR_US: Final = 3_600_000_000

DISK_REST_S: Final = 1.0
"""After a failed append nothing is tried for so long: each try leaves a broken stream behind, and a line in the log."""

FileKey = tuple[LogTable, int]
"""Rows share a file where the table, and with it the columns, and the hour are the same."""

logger = logging.getLogger(__name__)


class Entry(Protocol):
    """What is offered: when it happened (UTC) and how many rows it makes."""

    @property
    def ts_us(self) -> int:
        """Microseconds since 1970."""
        ...

    @property
    def row_count(self) -> int:
        """Rows."""
        ...


@dataclass(slots=True)
class LogCounts:
    """Rows by fate. `offered = written + dropped + pending` holds at every instant."""

    offered: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Rows that wait in memory."""
        return self.offered - self.written - sum(self.dropped.values())


class LogWriter:
    """Takes entries from the event loop and writes them from a thread of its own; a process makes Parquet of them.

    file_seconds: the age at which a file is closed and becomes Parquet. clock_us: UTC microseconds.
    """

    def __init__(self, root: Path, names: FileNames, file_seconds: float, clock_us: Callable[[], int]) -> None:
        self._root, self._names, self._file_seconds, self._clock_us = root, names, file_seconds, clock_us
        self._queue: deque[tuple[LogTable, Entry, int]] = deque()
        self._bytes_offered = self._bytes_taken = 0
        self._sequence = 0
        self._open: dict[FileKey, tuple[OpenSpool, int]] = {}
        self._parquet = ParquetProcess(root, time.monotonic)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        # Two threads count: the loop what it offers and drops, the writer what it writes and drops. Each has its own
        # dictionary, so that no count is lost between a read and a write.
        self._dropped_by_loop: dict[str, int] = {}
        self._dropped_by_writer: dict[str, int] = {}
        self._offered = self._written = self._lost_by_loop = self._lost_by_writer = 0
        self._lost_untold, self._told_at_us = 0, -inf
        self._disk_fault: Exception | None = None
        self._disk_rests_until_us = 0

    def start(self) -> None:
        """Make the directory, have finished what a dead process left, and write. Raises OSError where it cannot."""
        self._root.mkdir(parents=True, exist_ok=True)
        streams = left_behind(self._root)
        if streams:
            logger.info(
                "there are streams of other processes: the dead ones' are finished", extra={"files": len(streams)}
            )
        for stream in streams:
            self._parquet.give(stream, rows=0)
        # Here, since to make a process holds the interpreter for milliseconds, and nobody is served yet.
        self._parquet.tend()
        self._thread.start()

    def offer(self, table: LogTable, entry: Entry, entry_bytes: int) -> bool:
        """Queue an entry, or drop and count it. Never waits. Returns whether it was queued."""
        rows = entry.row_count
        self._offered += rows
        if self._rows_pending > ROWS_PENDING_MAX:
            return self._drop("rows_full", rows)
        if self._bytes_pending + entry_bytes > BYTES_PENDING_MAX:
            return self._drop("bytes_full", rows)
        self._bytes_offered += entry_bytes
        self._queue.append((table, entry, entry_bytes))
        return True

    def has_room(self, rows: int, size: int) -> bool:
        """Whether entries of so many rows and bytes in all would be queued, were they offered now."""
        return self._rows_pending + rows <= ROWS_PENDING_MAX and self._bytes_pending + size <= BYTES_PENDING_MAX

    def counts(self) -> LogCounts:
        """Count rows by fate."""
        dropped = dict(self._dropped_by_loop)
        for reason, rows in list(self._dropped_by_writer.items()):
            dropped[reason] = dropped.get(reason, 0) + rows
        return LogCounts(self._offered, self._written, dropped)

    @property
    def rows_in_open_files(self) -> int:
        """Rows that are on disk, in streams that are not Parquet yet."""
        return sum(spool.rows for spool, _ in list(self._open.values())) + self._parquet.rows_unfinished

    def close(self) -> None:
        """Write everything that was offered and close every file; returns when it is done, or after CLOSE_TIMEOUT_S."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_TIMEOUT_S)
            if self._thread.is_alive():
                logger.error("the log was not written in time", extra={"rows_pending": self.counts().pending})

    @property
    def _rows_pending(self) -> int:
        return self._offered - self._written - self._lost_by_loop - self._lost_by_writer

    @property
    def _bytes_pending(self) -> int:
        return self._bytes_offered - self._bytes_taken

    def _drop(self, reason: str, rows: int) -> bool:
        self._lost_by_loop += rows
        self._dropped_by_loop[reason] = self._dropped_by_loop.get(reason, 0) + rows
        return False

    # The writer's thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping, interval_s = False, APPEND_INTERVAL_S
        while not stopping:
            stopping = self._stop.wait(interval_s)
            # Only what is there now. "While there is any" would, under load, append row by row without a pause, and
            # take the interpreter lock from the event loop all the time.
            waiting = len(self._queue)
            interval_s = next_interval_s(interval_s, waiting)
            while waiting:
                waiting -= self._append_some(waiting)
                if waiting:
                    self._stop.wait(APPEND_PAUSE_S)
            self._close_files(everything=stopping)
            self._parquet.tend()
        if not self._parquet.finish(CLOSE_TIMEOUT_S):
            logger.error("log files stay streams", extra={"rows": self._parquet.rows_unfinished})

    def _append_some(self, entries_max: int) -> int:
        """Write the oldest entries, ROWS_PER_APPEND_MAX rows or a few more. Returns how many entries they were."""
        groups: defaultdict[tuple[LogTable, int], list[Entry]] = defaultdict(list)
        entries = rows = size = 0
        while entries < entries_max and rows < ROWS_PER_APPEND_MAX:
            table, entry, entry_bytes = self._queue.popleft()
            groups[table, entry.ts_us // HOUR_US].append(entry)
            entries += 1
            rows += entry.row_count
            size += entry_bytes
        self._bytes_taken += size
        for (table, hour), of_group in groups.items():
            self._append(table, hour, of_group)
            while of_group:
                del of_group[-ENTRIES_PER_FREE_MAX:]
        return entries

    def _append(self, table: LogTable, hour: int, entries: Sequence[Entry]) -> None:
        try:
            batch = table.batch(entries)
        except Exception as error:  # noqa: BLE001 - whatever an entry holds, the thread must live
            self._lose("unwritable", entries, error)
            return
        key = (table, hour)
        if self._disk_fault is not None and self._clock_us() < self._disk_rests_until_us:
            self._lose("disk", entries, self._disk_fault)
            return
        try:
            self._spool(key, batch.schema).append(batch)
        except (OSError, pa.ArrowException) as error:
            self._lose("disk", entries, error)
            self._disk_fault = error
            self._disk_rests_until_us = self._clock_us() + int(DISK_REST_S * 1e6)
            # The stream takes nothing more: close it and begin another.
            if key in self._open:
                self._close(key)
        else:
            self._disk_fault = None
            self._written += batch.num_rows

    def _lose(self, reason: str, entries: Sequence[Entry], error: Exception) -> None:
        rows = sum(entry.row_count for entry in entries)
        self._lost_by_writer += rows
        self._dropped_by_writer[reason] = self._dropped_by_writer.get(reason, 0) + rows
        self._lost_untold += rows
        now_us = self._clock_us()
        if now_us - self._told_at_us > LOSS_TOLD_EVERY_S * 1e6:  # a full disk would fill the other log as well
            logger.error("rows of the log were lost", extra={"rows": self._lost_untold, "reason": repr(error)[:500]})
            self._lost_untold, self._told_at_us = 0, now_us

    def _spool(self, key: FileKey, schema: pa.Schema) -> OpenSpool:
        opened = self._open.get(key)
        if opened is None:
            self._sequence += 1
            target = f"{_partition(*key)}/{self._names.name(self._sequence)}.parquet"
            opened = self._open[key] = (OpenSpool(self._root, target, schema), self._clock_us())
        return opened[0]

    def _close_files(self, *, everything: bool) -> None:
        now_us = self._clock_us()
        for key, (spool, opened_us) in list(self._open.items()):
            old = now_us - opened_us > self._file_seconds * 1e6
            if everything or old or spool.rows >= FILE_ROWS_MAX or spool.bytes >= FILE_BYTES_MAX:
                self._close(key)

    def _close(self, key: FileKey) -> None:
        spool = self._open[key][0]
        spool.close()
        self._parquet.give(spool.path, spool.rows)
        del self._open[key]


def next_interval_s(interval_s: float, entries: int) -> float:
    """Say when to look at the queue again, where so many entries came within `interval_s`.

    The busier it is, the sooner: several appends in a row would hold requests up by all of their time at once.
    """
    due_s = interval_s * ROWS_PER_APPEND_MAX / max(1, entries)
    return min(max(due_s, APPEND_INTERVAL_MIN_S), APPEND_INTERVAL_S)


def _partition(table: LogTable, hour: int) -> str:
    at = datetime.fromtimestamp(hour * 3600, UTC)
    return f"{table.directory}/date={at:%Y-%m-%d}/hour={at:%H}"


def entry_bytes(inputs: Sequence[Any], body_bytes: int) -> int:
    """Estimate what an entry holds in memory: feature bytes, the decoded request, a kilobyte of everything else."""
    return 1024 + DECODED_BYTES_PER_BYTE * body_bytes + sum(map(len, inputs))
