import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.prediction_log.parquet_spool import FileNames, OpenSpool, recover

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
    spool._file.close()
    return spool.path


def rows_of(root: Path) -> list[int]:
    return pq.read_table(root / TARGET)["n"].to_pylist()


def test_a_closed_stream_becomes_parquet_under_its_target_and_is_gone(tmp_path):
    spool = OpenSpool(tmp_path, TARGET, SCHEMA)
    spool.append(batch(1, 2))
    spool.append(batch(3))
    assert spool.close() == tmp_path / TARGET
    table = pq.read_table(tmp_path / TARGET)
    assert table.to_pylist() == [{"n": n, "word": f"word-{n}"} for n in (1, 2, 3)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_stream_without_rows_becomes_no_file(tmp_path):
    assert OpenSpool(tmp_path, TARGET, SCHEMA).close() is None
    assert not (tmp_path / TARGET).exists()
    assert list((tmp_path / "spool").iterdir()) == []


def test_no_reader_ever_sees_half_a_file(tmp_path):
    left_by_a_dead_process(tmp_path, batch(1))
    assert list(tmp_path.rglob("*.parquet")) == []


def test_what_a_dead_process_left_is_finished_by_the_next_start(tmp_path):
    left_by_a_dead_process(tmp_path, batch(1, 2), batch(3))
    assert recover(tmp_path) == 1
    assert rows_of(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_stream_that_another_process_holds_is_left_alone(tmp_path):
    held = OpenSpool(tmp_path, TARGET, SCHEMA)
    held.append(batch(1))
    assert recover(tmp_path) == 0
    held.append(batch(2))
    held.close()
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


def test_names_of_two_boots_never_meet():
    names = {FileNames("host", boot).name(sequence) for boot in ("a", "b") for sequence in (1, 2)}
    assert names == {"host-a-000001", "host-a-000002", "host-b-000001", "host-b-000002"}
