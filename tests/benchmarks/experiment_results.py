"""Time an experiment's report over generated logs, and print seconds, processor time and peak memory.

    python tests/benchmarks/experiment_results.py [--rows 300000] [--units 60000] [--epochs 2] [--threads 2]

Rows are of two arms over ten days, with an outcome for half of them, by prediction, and a past of as many rows again
before the experiment. The logs are written to a temporary directory first, in a process of its own, so that the peak is
the report's alone.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.experiment_results import ResultsRequest, encode_results, experiment_results
from contracts.outcome_record import OUTCOME_SCHEMA
from contracts.prediction_record import prediction_schema
from tests.benchmarks.drift_speed import filled

ROWS_PER_FILE = 250_000
FEATURES = 10
START_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
DAYS = 10

DOCUMENT = {
    "experiment": "bench",
    "model": "bench",
    "unit": "user",
    "state": "running",
    "variants": [{"name": "control", "version": "1", "bp": 5000}, {"name": "treatment", "version": "2", "bp": 5000}],
    "metrics": {
        "primary": "correct",
        "secondary": ["score", {"name": "buyers", "of": "per_unit", "numerator": "correct"}],
        "covariate_days": 14,
    },
}


def words(codes, dictionary):
    """Make a column of repeated words."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(dictionary))


def write_logs(root, rows, units, epochs):
    """Write predictions and outcomes."""
    rng = np.random.default_rng(0)
    names = [(f"view.f{number}", "FP32") for number in range(FEATURES)]
    schema = prediction_schema(entities=["user"], views=["view"], features=names, outputs=[("score", "FP32")])
    folder = root / "predictions/model=bench/date=2026-01-01/hour=00"
    told = root / "outcomes/date=2026-01-01/hour=00"
    for directory in (folder, told):
        directory.mkdir(parents=True)
    arms = rng.integers(0, 2, units)
    unit_names = pa.array([f"user-{number:08}" for number in range(units)])
    for number, start in enumerate(range(-rows, rows, ROWS_PER_FILE)):
        size = min(ROWS_PER_FILE, rows - start)
        place = start + np.arange(size)
        at_us = START_US + (place * (DAYS * DAY_US / rows)).astype("i8")
        unit = rng.integers(0, units, size)
        past = place < 0
        arm = words(np.ma.masked_array(arms[unit], past), ["control", "treatment"])
        ids = pa.array([f"01900000-0000-7000-8000-{n:012x}" for n in range(start + rows, start + rows + size)])
        given = {
            "prediction_id": ids,
            "ts": pa.array(at_us, pa.timestamp("us", tz="UTC")),
            "model": words(np.zeros(size), ["bench"]),
            "version": words(np.where(past, 0, arms[unit]), ["1", "2"]),
            "experiment": words(np.ma.masked_array(np.zeros(size), past), ["bench"]),
            "epoch": pa.array(np.maximum(0, place) * epochs // rows),
            "unit": unit_names.take(pa.array(unit)),
            "variant_assigned": arm,
            "variant_served": arm,
            "assignment_probability": pa.array(np.full(size, 0.5), mask=past),
            "total_us": pa.array(rng.lognormal(9, 0.5, size).astype("i4")),
            "y.score": pa.array(rng.random(size).astype("f4")),
        } | {f"f.{name}": pa.array(rng.normal(size=size).astype("f4")) for name, _ in names}
        table = [given[field.name] if field.name in given else filled(field, size) for field in schema]
        pq.write_table(pa.Table.from_arrays(table, schema=schema), folder / f"{number}.parquet", compression="zstd")
        write_outcomes(told / f"{number}.parquet", rng, ids, at_us)


def write_outcomes(path, rng, ids, at_us):
    """Tell an outcome of every other row, an hour later."""
    some = np.flatnonzero(rng.random(len(ids)) < 0.5)
    at = pa.array(at_us[some] + 3_600_000_000, pa.timestamp("us", tz="UTC"))
    given = {
        "prediction_id": ids.take(pa.array(some)),
        "row": pa.array(np.zeros(some.size, "i4")),
        "metric": pa.repeat("correct", some.size),
        "value": pa.array((rng.random(some.size) < 0.6).astype("f8")),
        "at": at,
        "received_at": at,
    }
    columns = [given[field.name] if field.name in given else filled(field, some.size) for field in OUTCOME_SCHEMA]
    pq.write_table(pa.Table.from_arrays(columns, schema=OUTCOME_SCHEMA), path, compression="zstd")


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--units", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_logs(arguments.write, arguments.rows, arguments.units, arguments.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        size = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "units", "epochs")]
        subprocess.run([sys.executable, __file__, "--write", folder, *size], check=True)
        started = time.perf_counter()
        results = experiment_results(DOCUMENT, Path(folder), ResultsRequest(threads=arguments.threads))
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{results.window.rows:,} rows of {results.window.units:,} units in {len(results.epochs)} epochs, as many rows "
        f"before, {len(results.metrics)} metrics, {len(encode_results(results)):,} bytes of report: {seconds:.1f} s "
        f"({used.ru_utime + used.ru_stime:.1f} s of processor time, imports included), peak "
        f"{used.ru_maxrss / 1024:.0f} MB, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
