import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.prediction_log import parquet_process
from gateway.prediction_log.parquet_process import ParquetProcess
from gateway.prediction_log.parquet_spool import OpenSpool
from tests.integration.gateway_client import until

SCHEMA = pa.schema([pa.field("n", pa.int64())])
MODULE = "gateway.prediction_log"

# A gateway's part: it closes streams, hands them to its process, and is then killed by the test.
GIVES_AND_WAITS = """
import sys, time
from pathlib import Path
from gateway.prediction_log.parquet_process import ParquetProcess

root = Path(sys.argv[1])
process = ParquetProcess(root, time.monotonic)
for name in sys.argv[2:]:
    process.give(root / "spool" / name, 1)
process.tend()
print(process._process.pid, flush=True)
time.sleep(60)
"""


def target(number: int) -> str:
    return f"predictions/host-boot-{number:06d}.parquet"


def closed_stream(root: Path, number: int) -> Path:
    spool = OpenSpool(root, target(number), SCHEMA)
    spool.append(pa.RecordBatch.from_arrays([pa.array([number])], schema=SCHEMA))
    spool.close()
    return spool.path


def numbers_of(root: Path) -> list[int]:
    return sorted(n for path in root.rglob("*.parquet") for n in pq.read_table(path)["n"].to_pylist())


class HandClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def pid_of(process: ParquetProcess) -> int | None:
    return process._process.pid if process._process else None


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def tended_until(what: str, process: ParquetProcess, condition) -> None:
    def met() -> bool:
        process.tend()
        return condition()

    until(what, met)


@pytest.fixture
def process(tmp_path) -> Iterator[ParquetProcess]:
    made = ParquetProcess(tmp_path, time.monotonic)
    yield made
    assert made.finish(20.0)


def test_streams_that_are_given_become_parquet_and_are_counted_until_then(process, tmp_path):
    for number in (1, 2, 3):
        process.give(closed_stream(tmp_path, number), number)
    assert process.rows_unfinished == 6
    tended_until("all are made", process, lambda: process.rows_unfinished == 0)
    assert numbers_of(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "spool").iterdir()) == []


def test_the_process_gives_way_to_serving_and_no_ctrl_c_reaches_it(process, tmp_path):
    process.give(closed_stream(tmp_path, 1), 1)
    tended_until("it is made", process, lambda: process.rows_unfinished == 0)
    child = psutil.Process(pid_of(process))
    assert child.nice() >= psutil.Process().nice() + 10
    assert os.getsid(child.pid) != os.getsid(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_end_is_left_to_the_gateway(process, tmp_path, number):
    process.give(closed_stream(tmp_path, 1), 1)
    tended_until("it listens", process, lambda: process.rows_unfinished == 0)
    pid = pid_of(process)
    os.kill(pid, number)
    process.give(closed_stream(tmp_path, 2), 1)
    tended_until("the next one is made", process, lambda: process.rows_unfinished == 0)
    assert pid_of(process) == pid


def test_finishing_waits_for_every_stream_and_leaves_no_process(tmp_path):
    process = ParquetProcess(tmp_path, time.monotonic)
    process.tend()
    pid = pid_of(process)
    for number in range(5):
        process.give(closed_stream(tmp_path, number), 1)
    assert process.finish(20.0)
    assert numbers_of(tmp_path) == list(range(5))
    assert is_gone(pid)


def test_a_process_that_was_killed_at_its_work_is_replaced_and_the_files_are_made(process, tmp_path):
    process.tend()
    first = pid_of(process)
    os.kill(first, signal.SIGSTOP)
    for number in (1, 2):
        process.give(closed_stream(tmp_path, number), 1)
    process.tend()
    os.kill(first, signal.SIGKILL)
    tended_until("both are made", process, lambda: process.rows_unfinished == 0)
    assert numbers_of(tmp_path) == [1, 2]
    assert pid_of(process) not in {None, first}
    assert is_gone(first)


def test_a_half_made_file_of_a_killed_process_is_no_hindrance(process, tmp_path):
    stream = closed_stream(tmp_path, 1)
    unfinished = tmp_path / "predictions" / f".{stream.stem}.parquet.tmp"
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"PAR1 half")
    process.give(stream, 1)
    tended_until("it is made", process, lambda: process.rows_unfinished == 0)
    assert numbers_of(tmp_path) == [1]
    assert not unfinished.exists()


def test_finishing_makes_the_files_even_where_the_process_dies_meanwhile(tmp_path):
    process = ParquetProcess(tmp_path, time.monotonic)
    process.tend()
    os.kill(pid_of(process), signal.SIGKILL)
    process.give(closed_stream(tmp_path, 1), 1)
    assert process.finish(20.0)
    assert numbers_of(tmp_path) == [1]


def die(process: ParquetProcess) -> None:
    pid = pid_of(process)
    os.kill(pid, signal.SIGKILL)
    tended_until("its death is seen", process, lambda: pid_of(process) != pid)


def test_each_death_doubles_the_wait_before_the_next_start_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_process, "RESTART_DELAY_MAX_S", 1.0)
    clock = HandClock()
    process = ParquetProcess(tmp_path, clock)
    process.tend()
    for delay_s in (0.5, 1.0, 1.0):
        die(process)
        clock.now_s += delay_s - 0.01
        process.tend()
        assert pid_of(process) is None
        clock.now_s += 0.02
        process.tend()
        assert pid_of(process) is not None
    assert process.finish(20.0)


def test_a_stream_that_kills_its_process_each_time_is_left_and_the_others_are_made(tmp_path, caplog):
    clock = HandClock()
    process = ParquetProcess(tmp_path, clock)
    deadly, harmless = closed_stream(tmp_path, 1), closed_stream(tmp_path, 2)
    process.tend()
    os.kill(pid_of(process), signal.SIGSTOP)  # stands for a stream that it does not survive
    process.give(deadly, 1)
    process.give(harmless, 1)
    with caplog.at_level(logging.ERROR):
        for attempt in range(parquet_process.ATTEMPTS_MAX):
            if attempt:
                clock.now_s += 100
                process.tend()
                os.kill(pid_of(process), signal.SIGSTOP)
            die(process)
    assert process.rows_unfinished == 1
    assert [r.message for r in caplog.records][-1] == "a log file stays a stream"
    clock.now_s += 100
    tended_until("the other one is made", process, lambda: process.rows_unfinished == 0)
    assert process.finish(20.0)
    assert (numbers_of(tmp_path), deadly.exists()) == ([2], True)


def test_a_stream_that_cannot_be_converted_is_named_and_not_waited_for(process, tmp_path, caplog):
    (tmp_path / "predictions").write_text("in the way")
    stream = closed_stream(tmp_path, 1)
    process.give(stream, 1)
    with caplog.at_level(logging.ERROR):
        tended_until("it is given up", process, lambda: process.rows_unfinished == 0)
    (record,) = caplog.records
    assert (record.message, record.file) == ("a log file stays a stream", stream.name)
    assert stream.exists()


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path, monkeypatch, caplog):
    process = ParquetProcess(tmp_path, time.monotonic)
    process.give(closed_stream(tmp_path, 1), 1)
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(sys, "executable", str(tmp_path / "nothing"))
        process.tend()
    assert "cannot be started" in caplog.text
    assert process.finish(20.0)
    assert numbers_of(tmp_path) == [1]


def test_of_a_gateway_that_was_killed_every_given_stream_is_finished_and_no_process_is_left(tmp_path):
    names = [closed_stream(tmp_path, number).name for number in range(3)]
    arguments = [sys.executable, "-c", GIVES_AND_WAITS, str(tmp_path), *names]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as gateway:
        child = psutil.Process(int(gateway.stdout.readline()))
        assert MODULE in child.cmdline()
        gateway.kill()
    until("the process has ended", lambda: is_gone(child.pid))
    assert numbers_of(tmp_path) == [0, 1, 2]


def test_a_process_that_hangs_at_the_end_is_killed_and_its_rows_are_told(tmp_path, caplog):
    process = ParquetProcess(tmp_path, time.monotonic)
    process.tend()
    pid = pid_of(process)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stream = closed_stream(tmp_path, 1)
    process.give(stream, 7)
    with caplog.at_level(logging.ERROR):
        assert not process.finish(0.3)
    assert is_gone(pid)
    assert stream.exists(), "for the next start"
    (record,) = [record for record in caplog.records if "hung" in record.message]
    assert (record.pid, record.rows_unfinished) == (pid, 7)


def test_a_process_that_has_streams_and_says_nothing_is_replaced(tmp_path):
    clock = HandClock()
    process = ParquetProcess(tmp_path, clock)
    process.tend()
    pid = pid_of(process)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    clock.now_s += 10 * parquet_process.SILENCE_S_MAX  # nothing was given: it owes no word
    process.tend()
    assert pid_of(process) == pid
    process.give(closed_stream(tmp_path, 1), 1)
    clock.now_s += parquet_process.SILENCE_S_MAX
    process.tend()
    assert pid_of(process) == pid
    clock.now_s += 1
    process.tend()
    assert is_gone(pid)
    clock.now_s += parquet_process.RESTART_DELAY_S

    def made() -> bool:
        process.tend()
        return numbers_of(tmp_path) == [1]

    until("the stream is Parquet", made)
    assert process.finish(10)
