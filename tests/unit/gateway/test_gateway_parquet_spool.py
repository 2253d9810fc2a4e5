import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.prediction_log import parquet_file
from gateway.prediction_log.packed_columns import packed_field
from gateway.prediction_log.parquet_file import Conversion, convert
from gateway.prediction_log.parquet_spool import FileNames, OpenSpool, left_behind

SCHEMA = pa.schema([pa.field("n", pa.int64()), pa.field("word", pa.dictionary(pa.int32(), pa.string()))])
TARGET = "predictions/model=m/date=2026-01-01/hour=00/host-boot-000001.parquet"


def batch(*numbers: int) -> pa.RecordBatch:
    words = pa.array([f"word-{n}" for n in numbers]).dictionary_encode().cast(SCHEMA.field("word").type)
    return pa.RecordBatch.from_arrays([pa.array(numbers, pa.int64()), words], schema=SCHEMA)


def left_by_a_dead_process(root: Path, *batches: pa.RecordBatch) -> Path:
    """Write a stream and let go of it without an end, as SIGKILL does. Returns its path."""
    spool = OpenSpool(root, TARGET, SCHEMA)
    for rows in batches:
        spool.append(rows)
    spool._file.end()
    return spool.path


def recover(root: Path) -> list[Conversion]:
    """Convert what is on disk, as a process that starts does."""
    return [convert(root, stream) for stream in left_behind(root)]


def rows_of(root: Path) -> list[int]:
    return pq.read_table(root / TARGET)["n"].to_pylist()


def test_a_closed_stream_becomes_parquet_under_its_target_and_is_gone(tmp_path):
    spool = OpenSpool(tmp_path, TARGET, SCHEMA)
    spool.append(batch(1, 2))
    spool.append(batch(3))
    spool.close()
    assert convert(tmp_path, spool.path) == Conversion(spool.path.name)
    table = pq.read_table(tmp_path / TARGET)
    assert table.to_pylist() == [{"n": n, "word": f"word-{n}"} for n in (1, 2, 3)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_stream_without_rows_becomes_no_file(tmp_path):
    OpenSpool(tmp_path, TARGET, SCHEMA).close()
    recover(tmp_path)
    assert not (tmp_path / TARGET).exists()
    assert list((tmp_path / "spool").iterdir()) == []


def test_no_reader_ever_sees_half_a_file(tmp_path):
    left_by_a_dead_process(tmp_path, batch(1))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_what_a_dead_process_left_is_finished_by_the_next_start(tmp_path):
    left_by_a_dead_process(tmp_path, batch(1, 2), batch(3))
    assert [conversion.fault for conversion in recover(tmp_path)] == [None]
    assert rows_of(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_stream_that_another_process_holds_is_left_alone(tmp_path):
    held = OpenSpool(tmp_path, TARGET, SCHEMA)
    held.append(batch(1))
    recover(tmp_path)
    assert not (tmp_path / TARGET).exists()
    held.append(batch(2))
    held.close()
    recover(tmp_path)
    assert rows_of(tmp_path) == [1, 2]


def test_a_stream_that_was_cut_at_any_byte_keeps_every_batch_before_the_cut(tmp_path):
    whole = left_by_a_dead_process(tmp_path, batch(1, 2), batch(3), batch(4, 5))
    content = whole.read_bytes()
    ends = []
    for count in (1, 2, 3):
        root = tmp_path / f"of-{count}"
        ends.append(left_by_a_dead_process(root, *[batch(1, 2), batch(3), batch(4, 5)][:count]).stat().st_size)
    assert ends[-1] == len(content)
    recovered = {}
    for cut in range(0, len(content) + 1, 3):
        root = tmp_path / f"cut-{cut}"
        (root / "spool").mkdir(parents=True)
        (root / "spool" / whole.name).write_bytes(content[:cut])
        recover(root)
        recovered[cut] = rows_of(root) if (root / TARGET).exists() else []
    whole_batches = {cut: sum(cut >= end for end in ends) for cut in recovered}
    assert recovered == {cut: [[], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5]][n] for cut, n in whole_batches.items()}


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, os.urandom(5_000)], ids=["empty", "garbage", "random"])
def test_a_stream_that_is_none_stops_no_start_and_no_other_stream(tmp_path, content):
    left_by_a_dead_process(tmp_path, batch(1))
    (tmp_path / "spool" / "aaa.arrows").write_bytes(content)
    recover(tmp_path)
    assert rows_of(tmp_path) == [1]


@pytest.mark.parametrize("target", ["../../outside.parquet", "/outside.parquet"])
def test_a_stream_cannot_write_outside_of_the_log(tmp_path, target):
    root = tmp_path / "a" / "log"
    path = left_by_a_dead_process(root, batch(1))
    path.write_bytes(path.read_bytes().replace(TARGET.encode(), target.ljust(len(TARGET)).encode()))
    recover(root)
    assert list(tmp_path.rglob("outside*")) == []


def test_a_stream_that_another_process_has_converted_is_none_to_convert(tmp_path):
    path = left_by_a_dead_process(tmp_path, batch(1))
    recover(tmp_path)
    assert convert(tmp_path, path) == Conversion(path.name)
    assert rows_of(tmp_path) == [1]


def test_a_stream_whose_place_is_taken_stays_and_says_why(tmp_path):
    path = left_by_a_dead_process(tmp_path, batch(1))
    (tmp_path / "predictions").write_text("in the way")
    (conversion,) = recover(tmp_path)
    assert "predictions" in conversion.fault
    (tmp_path / "predictions").unlink()
    assert recover(tmp_path) == [Conversion(path.name)]
    assert rows_of(tmp_path) == [1]


def test_rows_of_several_row_groups_and_words_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_file, "ROW_GROUP_ROWS", 4)
    left_by_a_dead_process(tmp_path, *[batch(n, n + 1, n % 2) for n in range(10)])
    recover(tmp_path)
    assert pq.ParquetFile(tmp_path / TARGET).num_row_groups == 5
    numbers = [number for n in range(10) for number in (n, n + 1, n % 2)]
    table = pq.read_table(tmp_path / TARGET)
    assert table.to_pylist() == [{"n": n, "word": f"word-{n}"} for n in numbers]
    assert table.schema.field("word").type == SCHEMA.field("word").type


def test_packed_columns_are_columns_of_their_own_in_the_file_and_floats_have_no_statistics(tmp_path):
    field = packed_field("packed", ["a", "b"], np.dtype("<f4"))
    schema = pa.schema([SCHEMA.field("n"), field])
    spool = OpenSpool(tmp_path, TARGET, schema)
    for first in (0, 2):
        values = np.arange(first, first + 6, dtype="<f4").reshape(3, 2)
        packed = pa.Array.from_buffers(field.type, 3, [None, pa.py_buffer(values.tobytes())])
        spool.append(pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), packed], schema=schema).slice(first // 2))
    spool.close()
    recover(tmp_path)
    read = pq.read_table(tmp_path / TARGET)
    assert read["a"].to_pylist() == [0, 2, 4, 4, 6]
    assert read["b"].to_pylist() == [1, 3, 5, 5, 7]
    assert (read.schema.names, read.schema.field("a").type) == (["n", "a", "b"], pa.float32())
    columns = [pq.ParquetFile(tmp_path / TARGET).metadata.row_group(0).column(i) for i in range(3)]
    assert [column.is_stats_set for column in columns] == [True, False, False]


@pytest.mark.parametrize("taken", [0, 1, 100, 300])
def test_a_disk_that_fills_within_a_batch_leaves_the_batches_before_it_and_nothing_else(tmp_path, monkeypatch, taken):
    spool = OpenSpool(tmp_path, TARGET, SCHEMA)
    spool.append(batch(1, 2))
    room = [taken]

    def full(fd: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[: room[0]])
        room[0] -= written
        return written

    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            spool.append(batch(3))
    spool.close()  # there is space again: what failed must not be written now
    assert recover(tmp_path) == [Conversion(spool.path.name)]
    assert rows_of(tmp_path) == [1, 2]


def test_names_of_two_boots_never_meet():
    names = {FileNames("host", boot).name(sequence) for boot in ("a", "b") for sequence in (1, 2)}
    assert names == {"host-a-000001", "host-a-000002", "host-b-000001", "host-b-000002"}
