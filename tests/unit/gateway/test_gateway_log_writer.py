from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from gateway.prediction_log import log_writer
from gateway.prediction_log.log_writer import DISK_REST_S, LogWriter, entry_bytes
from gateway.prediction_log.parquet_spool import FileNames, OpenSpool
from tests.integration.gateway_client import until

NOON_US = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp() * 1e6)
HOUR_US = 3_600_000_000


class Entry(NamedTuple):
    ts_us: int
    row_count: int
    number: int


class Table:
    """A table whose entries are numbers; those below zero cannot be written."""

    def __init__(self, name: str = "numbers", column: str = "n") -> None:
        self.directory, self.label = f"predictions/model={name}", name
        self.schema = pa.schema([pa.field(column, pa.int64())])

    def batch(self, entries: Sequence[Entry]) -> pa.RecordBatch:
        numbers = [entry.number for entry in entries for _ in range(entry.row_count)]
        if min(numbers) < 0:
            raise ZeroDivisionError(min(numbers))
        return pa.RecordBatch.from_arrays([pa.array(numbers, pa.int64())], schema=self.schema)


class HandClock:
    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log(tmp_path: Path, clock: HandClock) -> Iterator[LogWriter]:
    writer = LogWriter(tmp_path / "log", FileNames("host", "boot"), 60.0, clock)
    yield writer
    writer.close()


def offer(log: LogWriter, number: int, *, rows: int = 1, table: Table, ts_us: int = NOON_US, size: int = 10) -> bool:
    return log.offer(table, Entry(ts_us, rows, number), size)


def numbers_of(root: Path) -> list[int]:
    return sorted(ds.dataset(root / "log" / "predictions", format="parquet").to_table()["n"].to_pylist())


def test_closing_writes_everything_that_was_offered(log, tmp_path):
    log.start()
    table = Table()
    for number in range(1_000):
        assert offer(log, number, table=table)
    log.close()
    assert numbers_of(tmp_path) == list(range(1_000))
    counts = log.counts()
    assert (counts.offered, counts.written, counts.pending, counts.dropped) == (1_000, 1_000, 0, {})


def test_rows_lie_in_the_partition_of_their_own_hour(log, tmp_path):
    log.start()
    table = Table()
    for hour in (0, 1, 13):
        offer(log, hour, table=table, ts_us=NOON_US + hour * HOUR_US)
    log.close()
    folders = {
        path.parent.relative_to(tmp_path / "log" / "predictions/model=numbers") for path in tmp_path.rglob("*.parquet")
    }
    assert {str(folder) for folder in folders} == {
        "date=2026-01-01/hour=12", "date=2026-01-01/hour=13", "date=2026-01-02/hour=01",
    }  # fmt: skip


def test_a_file_closes_at_its_age_and_not_before(log, clock, tmp_path):
    log.start()
    table = Table()
    offer(log, 1, table=table)
    until("the row is on disk", lambda: log.rows_in_open_files == 1)
    clock.now_us += 59_000_000
    offer(log, 2, table=table)
    until("the second one too", lambda: log.rows_in_open_files == 2)
    assert list(tmp_path.rglob("*.parquet")) == []
    clock.now_us += 2_000_000
    until("the file is closed", lambda: log.rows_in_open_files == 0)
    assert numbers_of(tmp_path) == [1, 2]


def test_rows_of_another_schema_never_share_a_file(log, tmp_path):
    log.start()
    offer(log, 1, table=Table(column="n"))
    offer(log, 2, table=Table(column="m"))
    log.close()
    columns = sorted(ds.dataset(path).schema.names[0] for path in tmp_path.rglob("*.parquet"))
    assert columns == ["m", "n"]


def test_more_rows_than_may_wait_are_dropped_and_counted(log, monkeypatch):
    monkeypatch.setattr(log_writer, "ROWS_PENDING_MAX", 10)
    table = Table()
    assert offer(log, 1, rows=9, table=table)
    assert not offer(log, 2, rows=2, table=table)
    assert offer(log, 3, table=table)
    assert not offer(log, 4, table=table)
    counts = log.counts()
    assert (counts.offered, counts.pending, counts.dropped) == (13, 10, {"rows_full": 3})


def test_more_bytes_than_may_wait_are_dropped_and_counted(log, monkeypatch):
    monkeypatch.setattr(log_writer, "BYTES_PENDING_MAX", 100)
    table = Table()
    assert offer(log, 1, table=table, size=90)
    assert not offer(log, 2, table=table, size=11)
    assert offer(log, 3, table=table, size=10)
    assert log.counts().dropped == {"bytes_full": 1}


def test_room_that_was_written_free_may_be_taken_again(log, monkeypatch):
    monkeypatch.setattr(log_writer, "ROWS_PENDING_MAX", 10)
    table = Table()
    assert offer(log, 1, rows=10, table=table)
    assert not log.has_room(1, 1)
    log.start()
    until("there is room", lambda: log.has_room(10, 1))
    assert offer(log, 2, rows=10, table=table)


def test_whether_there_is_room_is_what_offering_would_find(log, monkeypatch):
    monkeypatch.setattr(log_writer, "ROWS_PENDING_MAX", 10)
    monkeypatch.setattr(log_writer, "BYTES_PENDING_MAX", 100)
    table = Table()
    assert log.has_room(10, 100)
    assert not log.has_room(11, 1)
    assert not log.has_room(1, 101)
    offer(log, 1, rows=4, table=table, size=40)
    assert log.has_room(6, 60)
    assert not log.has_room(7, 1)
    assert not log.has_room(1, 61)


def test_rows_that_cannot_be_written_are_counted_and_stop_no_others(log, tmp_path):
    log.start()
    good, bad = Table("good"), Table("bad")
    for number in range(50):
        offer(log, number, table=good)
        offer(log, -1, rows=2, table=bad)
    log.close()
    counts = log.counts()
    assert counts.offered == 150 == counts.written + sum(counts.dropped.values()) + counts.pending
    assert (counts.written, counts.dropped, counts.pending) == (50, {"unwritable": 100}, 0)
    assert numbers_of(tmp_path) == list(range(50))


def test_a_disk_that_cannot_be_written_costs_rows_and_not_the_writer(log, clock, tmp_path):
    log.start()
    (tmp_path / "log" / "spool").rmdir() if (tmp_path / "log" / "spool").exists() else None
    (tmp_path / "log" / "spool").write_text("in the way")
    table = Table()
    offer(log, 1, table=table)
    until("the loss is counted", lambda: log.counts().dropped == {"disk": 1})
    (tmp_path / "log" / "spool").unlink()
    offer(log, 2, table=table)
    until("it is left alone for a moment", lambda: log.counts().dropped == {"disk": 2})
    clock.now_us += int(DISK_REST_S * 1e6)
    offer(log, 3, table=table)
    log.close()
    assert numbers_of(tmp_path) == [3]
    assert log.counts().pending == 0


def test_losses_are_told_at_once_and_then_together_once_a_minute(log, clock, tmp_path, caplog):
    log.start()
    table = Table()
    with caplog.at_level("ERROR"):
        for lost, now_us in ((1, NOON_US), (2, NOON_US + 59_000_000), (3, NOON_US + 61_000_000)):
            clock.now_us = now_us
            offer(log, -1, table=table)  # it cannot be written
            until("the loss is counted", lambda lost=lost: log.counts().dropped == {"unwritable": lost})
        until("it is told", lambda: len(told(caplog)) == 2)
    assert told(caplog) == [1, 2]


def told(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [record.rows for record in caplog.records if "rows of the log were lost" in record.message]


def test_the_queue_is_looked_at_sooner_the_more_comes_and_never_later_than_a_killed_process_may_lose():
    rows = log_writer.ROWS_PER_APPEND_MAX
    assert log_writer.next_interval_s(0.2, 0) == 0.2
    assert log_writer.next_interval_s(0.2, rows // 2) == 0.2
    assert log_writer.next_interval_s(0.2, 4 * rows) == pytest.approx(0.05)
    assert log_writer.next_interval_s(0.05, rows // 2) == pytest.approx(0.1)
    assert log_writer.next_interval_s(0.02, 100 * rows) == log_writer.APPEND_INTERVAL_MIN_S


def test_every_piece_of_a_long_queue_is_written_and_counted_with_the_rest(log, tmp_path, monkeypatch):
    monkeypatch.setattr(log_writer, "ROWS_PER_APPEND_MAX", 7)
    table, other = Table(), Table("others")
    for number in range(200):
        offer(log, number, table=other if number % 5 == 0 else table, rows=number % 3 + 1)
    seen = []

    def all_written() -> bool:
        counts = log.counts()
        seen.append(counts.offered == counts.written + counts.pending)
        return counts.pending == 0

    log.start()
    until("all is written", all_written)
    log.close()
    assert all(seen)
    assert numbers_of(tmp_path) == sorted(number for number in range(200) for _ in range(number % 3 + 1))


def test_no_row_leaves_the_open_files_before_its_parquet_is_there(log, clock, tmp_path):
    log.start()
    offer(log, 1, table=Table())
    until("the row is on disk", lambda: log.rows_in_open_files == 1)
    clock.now_us += 61_000_000
    until("the file is closed", lambda: log.rows_in_open_files == 0)
    assert numbers_of(tmp_path) == [1]


def test_streams_of_a_dead_process_become_parquet_after_a_start_and_a_living_ones_stay(log, tmp_path):
    root = tmp_path / "log"
    batch = Table().batch([Entry(NOON_US, 1, 7)])
    dead, living = (OpenSpool(root, f"predictions/{name}.parquet", batch.schema) for name in ("dead", "living"))
    for spool in (dead, living):
        spool.append(batch)
    dead._file.end()
    log.start()
    log.close()
    assert [path.stem for path in tmp_path.rglob("*.parquet")] == ["dead"]
    assert [path.stem for path in (root / "spool").iterdir()] == ["living"]
    living.close()


def test_a_closed_log_leaves_no_process(log):
    before = set(psutil.Process().children())
    log.start()
    (child,) = set(psutil.Process().children()) - before
    offer(log, 1, table=Table())
    log.close()
    assert not child.is_running()


def test_an_entry_is_taken_to_hold_its_request_as_well_as_its_features():
    small, large = entry_bytes((b"x" * 100, b"y" * 20), 50), entry_bytes((b"x" * 100, b"y" * 20), 1_000_050)
    assert small > 170
    assert large - small >= 1_000_000


def test_a_log_directory_that_cannot_be_made_is_an_error_at_the_start(tmp_path, clock):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        LogWriter(tmp_path / "file" / "log", FileNames("h", "b"), 60.0, clock).start()
