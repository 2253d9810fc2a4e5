"""Time the replay of a generated log, and print seconds, peak memory and mismatches; then change one row, and again.

    python tests/benchmarks/assignment_replay.py [--rows 1000000] [--units 100000] [--threads 2]

The log is of one experiment with ten revisions: enrolment, weights, an arm more, overrides, a holdout, a winner. Every
row is drawn by the code that serves. The log is written to a temporary directory first, in a process of its own, so
that the peak is the replay's alone.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.assignment_replay import ReplayReport, replay
from tests.unit.analysis.assignment_replay.logged_history import RegisterHistory, Rows, arms, document

ROWS_PER_FILE = 50_000
HISTORY = "audit.jsonl"

SEVEN_TO_THREE = arms(7_000, 3_000)
THREE_ARMS = arms(4_000, 3_000, 3_000)
OVERRIDES = {f"user-{number}": "treatment" for number in range(100)}
REVISIONS = (
    document(enrol_bp=1_000),
    document(enrol_bp=2_500),
    document(enrol_bp=5_000),
    document(enrol_bp=5_000, variants=SEVEN_TO_THREE),
    document(enrol_bp=10_000, variants=SEVEN_TO_THREE),
    document(variants=SEVEN_TO_THREE, overrides=OVERRIDES),
    document(variants=THREE_ARMS, overrides=OVERRIDES),
    document(variants=THREE_ARMS, holdout={"name": "h", "bp": 500}),
    document(variants=THREE_ARMS),
    document(variants=THREE_ARMS, state="concluded", winner="treatment"),
)


def write_log(root: Path, rows: int, units: int) -> None:
    """Write the history, and a log in files of ROWS_PER_FILE rows."""
    history, some = RegisterHistory(), random.Random(0)
    names = [f"user-{number}" for number in range(units)]
    done, chunk = 0, Rows()
    for number, of_revision in enumerate(REVISIONS, 1):
        experiment = history.put(of_revision)
        while done < rows * number // len(REVISIONS):
            chunk.answer([experiment], some.choice(names))
            done += 1
            if len(chunk.rows) == ROWS_PER_FILE:
                chunk.write(root)
                chunk = Rows(done)
    if chunk.rows:
        chunk.write(root)
    history.write(root / HISTORY)


def change_one_row(root: Path) -> str:
    """Give one drawn row the next split bucket. Returns its prediction id."""
    path = min(root.glob("predictions/*/*/*/*.parquet"))
    table = pq.read_table(path, partitioning=None)
    buckets = table["split_bucket"].to_pylist()
    row = next(row for row, bucket in enumerate(buckets) if bucket is not None)
    buckets[row] = (buckets[row] + 1) % 10_000
    place = table.schema.get_field_index("split_bucket")
    changed = table.set_column(place, table.schema.field(place), pa.array(buckets, pa.int16()))
    pq.write_table(changed, path, compression="zstd")
    return table["prediction_id"][row].as_py()


def timed(root: Path, threads: int) -> tuple[ReplayReport, str]:
    """Replay the log, and say how it went."""
    started, cpu = time.perf_counter(), time.process_time()
    report = replay(root, [root / HISTORY], threads=threads)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    size = f"{report.rows:,} rows, {len(report.revisions)} revisions, {report.decisions:,} decisions"
    return report, f"{size}: {seconds:.2f} s, {cpu:.2f} s of CPU, mismatches: {report.mismatches}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_log(arguments.write, arguments.rows, arguments.units)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = ["--rows", str(arguments.rows), "--units", str(arguments.units)]
        subprocess.run([sys.executable, __file__, "--write", folder, *size], check=True)
        report, said = timed(root, arguments.threads)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{said}, peak {peak_mb:.0f} MB, {arguments.threads} threads")
        changed = change_one_row(root)
        again, said = timed(root, arguments.threads)
        print(f"{said} after one row was changed")
    examples = [example.prediction_id for one in again.mismatch_classes for example in one.examples]
    if report.mismatches or examples != [changed]:
        sys.exit("that is not what was to be found")


if __name__ == "__main__":
    main()
