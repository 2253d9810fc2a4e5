"""What a row of the prediction log costs the gateway's process, from the queue to the operating system.

Run: .venv/bin/python tests/benchmarks/prediction_log.py
Rows are as a live gateway offers them: 50 float32 of one view, one score, an experiment that gives one row in ten the
other variant, whose version has a table of its own. `building` is entries → Arrow columns and `appending` is columns →
bytes in the stream, each of all the flush's rows at once; `thread` is all the processor time that the writer's own
thread takes for a row, grouping, freeing and both of the former included. `lock held` is the longest piece in which
no other thread could have had the interpreter, as told by one that does nothing but look at the clock: it belongs to
the event loop, and a request waits for it. The least of many rounds is printed: other programs can only add.
"""

import argparse
import gc
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))

from contracts.manifest import Output
from experiments import assign, parse_experiment
from feature_store import FeatureStatus, ProjectedRow
from gateway.clock import wall_us
from gateway.identifiers import uuid7_maker
from gateway.predict_request import PredictRequest
from gateway.prediction_log.log_writer import LogWriter
from gateway.prediction_log.parquet_spool import FileNames, OpenSpool
from gateway.prediction_log.prediction_table import LoggedColumns, PredictionEntry, PredictionTable

FEATURES = 50
ROWS_PER_FLUSH = (50, 500, 2_000)
ROUNDS = 30
SWITCH_INTERVAL_S = 0.000_01
"""Asked for this soon, the lock is given as soon as it can be: what is seen is what cannot be interrupted."""

EXPERIMENT = parse_experiment(
    {
        "experiment": "bench",
        "model": "bench",
        "unit": "user",
        "state": "running",
        "variants": [
            {"name": "control", "version": "1", "bp": 9_000},
            {"name": "treatment", "version": "2", "bp": 1_000},
        ],
    }
)


def table(version: str) -> PredictionTable:
    """Make a version's table."""
    features = tuple((f"user_profile.f{i}", "FP32") for i in range(FEATURES))
    outputs = tuple((output.name, output.dtype) for output in (Output("score", "FP32"),))
    return PredictionTable("bench", version, ("user",), LoggedColumns(("user_profile",), (features,), (outputs,)))


def entries(count: int) -> list[PredictionEntry]:
    """Make entries of which, as in a live gateway, no two share an object but the experiment and its variants."""
    random = Random(1)
    new_id = uuid7_maker(wall_us, random)
    made = []
    for number in range(count):
        user = f"u{random.randrange(1_000_000)}"
        assignment = assign([EXPERIMENT], user, {})
        packed = struct.pack(f"<{FEATURES}f", *(random.random() for _ in range(FEATURES)))
        entry = PredictionEntry(
            ts_us=wall_us(),
            prediction_id=new_id(),
            request_id=new_id(),
            request=PredictRequest(entities={"user": user}),
            unit=user,
            assignment=assignment,
            variant_served=assignment.variant.name if assignment.variant else None,
            row_count=1,
            inputs=(packed,),
            found=[(ProjectedRow((packed,), FeatureStatus.PRESENT, wall_us() - number),)],
            outputs=[[random.random()]],
            degraded=(),
            error_code=None,
            features_us=random.randrange(300, 2_000),
            queue_us=random.randrange(300, 2_000),
            infer_us=random.randrange(300, 2_000),
            total_us=random.randrange(2_000, 5_000),
        )
        made.append(entry)
    return made


def least(rounds: int, piece: Callable[[], object]) -> float:
    """Return the least time that a piece takes, in seconds."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        piece()
        best = min(best, time.perf_counter() - begun)
    return best


@contextmanager
def watched_clock(gaps: list[float]) -> Iterator[None]:
    """Look at the clock in another thread meanwhile, and add the largest gap between two looks to `gaps`."""
    ended = False
    looking = threading.Event()

    def look() -> None:
        largest = 0.0
        last = time.perf_counter()
        while not ended:
            now = time.perf_counter()
            largest, last = max(largest, now - last), now
            looking.set()
        gaps.append(largest)

    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    thread = threading.Thread(target=look)
    thread.start()
    looking.wait()
    try:
        yield
    finally:
        ended = True
        thread.join()
        sys.setswitchinterval(before)


class Bench:
    """A log in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._tables = {version: table(version) for version in ("1", "2")}
        schema = self._tables["1"].batch(entries(1)).schema
        self._spool = OpenSpool(directory, "predictions/bench.parquet", schema)
        self._log = LogWriter(directory, FileNames("host", "boot"), 3_600, wall_us)
        self._log.start()
        (self._thread,) = (thread for thread in threading.enumerate() if thread.name == "prediction-log")
        self._clock = time.pthread_getcpuclockid(self._thread.ident or 0)

    def building(self, rows: int, rounds: int) -> float:
        """Seconds to make the columns of a flush."""
        made = entries(rows)
        return least(rounds, lambda: self._tables["1"].batch(made))

    def appending(self, rows: int, rounds: int) -> float:
        """Seconds to append them."""
        batch = self._tables["1"].batch(entries(rows))
        return least(rounds, lambda: self._spool.append(batch))

    def offer(self, rows: int) -> None:
        """Offer a flush's rows to the writer, keeping none, and return when they are written."""
        gc.collect()
        before = self._log.counts().written
        made = entries(rows)
        while made:
            entry = made.pop()
            version = entry.assignment.variant.version if entry.assignment.variant else "1"
            self._log.offer(self._tables[version], entry, 1_024)
        del entry
        while self._log.counts().written < before + rows:
            time.sleep(0.01)
        time.sleep(0.02)  # freed is what was written: that is the thread's work too

    def thread(self, rows: int, rounds: int) -> float:
        """Seconds of processor time that the writer's thread takes for a flush."""
        best = float("inf")
        for _ in range(rounds):
            before = time.clock_gettime(self._clock)
            self.offer(rows)
            best = min(best, time.clock_gettime(self._clock) - before)
        return best

    def lock_held(self, rows: int, rounds: int) -> float:
        """Seconds of the longest piece that could not be interrupted while a flush was written."""
        gaps: list[float] = []
        made = [entries(rows) for _ in range(rounds)]
        for flush in made:
            while flush:
                entry = flush.pop()
                self._log.offer(self._tables["1"], entry, 1_024)
            del entry
            with watched_clock(gaps):
                while self._log.counts().pending:
                    time.sleep(0.01)
                time.sleep(0.02)
        return min(gaps)

    def close(self) -> None:
        """Close the log."""
        self._log.close()
        self._spool.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS_PER_FLUSH))
    arguments = parser.parse_args()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        for rows in arguments.rows:
            pieces = [measure(rows, arguments.rounds) * 1e6 for measure in (bench.building, bench.appending)]
            building, appending = (piece / rows for piece in pieces)
            thread = bench.thread(rows, arguments.rounds) * 1e6 / rows
            held = bench.lock_held(rows, arguments.rounds) * 1e3
            print(
                f"{rows:5} rows a flush: building {building:5.2f}, appending {appending:5.2f}, "
                f"thread {thread:5.2f} µs a row; lock held {held:.2f} ms",
                flush=True,
            )
        bench.close()


if __name__ == "__main__":
    main()
