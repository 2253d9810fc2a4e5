"""Time a drift report over a generated log, and print seconds and peak memory.

    python tests/benchmarks/drift_speed.py [--rows 1000000] [--features 30] [--threads 2]

The log is written to a temporary directory first, in a process of its own, so that the peak is the report's alone.
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

from analysis import compare, encode_profile, make_profile, read_profile
from contracts.prediction_record import prediction_schema

ROWS_PER_FILE = 250_000
WORDS_EVERY = 8
"""One feature in eight is text of forty categories."""


def feature_names(features):
    """Name the features and tell their types."""
    return [(f"view.f{number}", "BYTES" if number % WORDS_EVERY == 0 else "FP32") for number in range(features)]


def values(rng, datatype, rows):
    """Draw one column."""
    if datatype == "BYTES":
        return pa.array([f"category-{code}" for code in range(40)]).take(pa.array(rng.integers(0, 40, rows)))
    return pa.array(rng.normal(size=rows).astype("f4"))


def write_log(root, rows, features):
    """Write the baseline profile and the log's files."""
    rng = np.random.default_rng(0)
    names = feature_names(features)
    training = {name: values(rng, datatype, 50_000) for name, datatype in names} | {"y.score": rng.random(50_000)}
    (root / "profile.json").write_bytes(encode_profile(make_profile(pa.table(training), model="bench", version="1")))
    schema = prediction_schema(entities=["user"], views=["view"], features=names, outputs=[("score", "FP32")])
    folder = root / "predictions/model=bench/date=2026-01-01/hour=00"
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        size = min(ROWS_PER_FILE, rows - start)
        given = {f"f.{name}": values(rng, datatype, size) for name, datatype in names}
        given["y.score"] = pa.array(rng.random(size).astype("f4"))
        given["ts"] = pa.array(np.datetime64("2026-01-01", "us") + np.arange(size), pa.timestamp("us", tz="UTC"))
        given["prediction_id"] = pa.array(np.arange(start, start + size)).cast(pa.string())
        for name, value in {"model": "bench", "version": "1", "status.view": "PRESENT", "variant_served": "a"}.items():
            given[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(size, "i4")), [value])
        arrays = [given[field.name] if field.name in given else filled(field, size) for field in schema]
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema), folder / f"h-b-{number}.parquet", compression="zstd"
        )


def filled(field, size):
    """Fill a column that no statistic reads."""
    if field.nullable:
        return pa.nulls(size, field.type)
    if pa.types.is_list(field.type):
        return pa.array([[]] * size, field.type)
    value = "r" if pa.types.is_string(field.type) else field.name == "sample_weight"
    return pa.repeat(value, size).cast(field.type)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write_log(arguments.write, arguments.rows, arguments.features)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = ["--rows", str(arguments.rows), "--features", str(arguments.features)]
        subprocess.run([sys.executable, __file__, "--write", folder, *size], check=True)
        profile = read_profile(root / "profile.json")
        started = time.perf_counter()
        report = compare(profile, root, "bench", threads=arguments.threads)
        seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{report.window.rows} rows x {len(report.features)} features, outcome {report.outcome}: "
        f"{seconds:.2f} s, peak {peak_mb:.0f} MB, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
