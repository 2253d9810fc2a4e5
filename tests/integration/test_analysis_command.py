import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.prediction_record import prediction_schema

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ROWS = 1_500
FEATURES = [("patient.age", "FP32"), ("patient.country", "BYTES"), ("request.hour", "INT64")]


def run(*arguments, environment=None):
    """Run `sekisho-analysis` with warnings as errors, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "analysis", *map(str, arguments)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def sample(seed, age):
    rng = np.random.default_rng(seed)
    return {
        "patient.age": rng.normal(age, 12, ROWS).astype("f4"),
        "patient.country": rng.choice(["JP", "DE"], ROWS),
        "request.hour": rng.integers(0, 24, ROWS),
    }, rng.beta(2, 5, ROWS).astype("f4")


def write_log(root, day, seed, age=50.0, version="1"):
    features, scores = sample(seed, age)
    schema = prediction_schema(
        entities=["patient"], views=["patient"], features=FEATURES, outputs=[("probability", "FP32")]
    )
    columns = {
        "prediction_id": [f"{day}-{row}" for row in range(ROWS)],
        "request_id": ["r"] * ROWS,
        "ts": np.datetime64(f"{day}T10:00:00", "us") + np.arange(ROWS) * np.timedelta64(1, "s"),
        "model": ["diagnosis"] * ROWS,
        "version": [version] * ROWS,
        "degraded": [[]] * ROWS,
        "schema_version": [1] * ROWS,
        "sample_weight": [1.0] * ROWS,
        "status.patient": ["PRESENT"] * ROWS,
        "forced": [False] * ROWS,
        "shadow": [False] * ROWS,
        **dict.fromkeys(("row", "features_us", "queue_us", "infer_us", "total_us"), [0] * ROWS),
        **{f"f.{name}": values for name, values in features.items()},
        "y.probability": scores,
    }
    arrays = []
    for field in schema:
        if field.name not in columns:
            arrays.append(pa.nulls(ROWS, field.type))
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array(columns[field.name]).dictionary_encode())
        else:
            arrays.append(pa.array(columns[field.name]).cast(field.type))
    folder = root / f"model=diagnosis/date={day}/hour=10"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), folder / "host-boot-0.parquet", compression="zstd")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A training table, its profile, and a log: one day like the training data, one day that drifted."""
    folder = tmp_path_factory.mktemp("analysis")
    features, scores = sample(1, 50.0)
    pq.write_table(pa.table(features | {"y.probability": scores}), folder / "train.parquet")
    write_log(folder / "predictions", "2026-01-01", seed=2)
    write_log(folder / "predictions", "2026-01-08", seed=3, age=62.0)
    made = run(
        "profile", "--data", folder / "train.parquet", "--model", "diagnosis", "--version", "1",
        "-o", folder / "profile.json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "1,500 rows, 3 features, 1 scores" in made.stdout
    return folder


def drift(place, *arguments, **options):
    return run("drift", "--log", place / "predictions", "--model", "diagnosis", *arguments, **options)


def test_a_day_like_the_training_data_exits_with_0(place):
    done = drift(place, "--baseline", place / "profile.json", "--to", "2026-01-02")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("diagnosis: no drift in 4 columns")


def test_a_day_that_drifted_exits_with_3_and_writes_every_report(place, tmp_path):
    outputs = {kind: tmp_path / f"drift.{kind}" for kind in ("json", "html", "prometheus")}
    flags = [part for kind, path in outputs.items() for part in (f"--{kind}", path)]
    done = drift(place, "--baseline", place / "profile.json", "--from", "2026-01-08T00:00:00Z", *flags)
    assert (done.returncode, done.stderr) == (3, "")
    assert "\x1b" not in done.stdout
    report = json.loads(outputs["json"].read_bytes())
    assert (report["format"], report["outcome"]) == (1, "drift")
    assert [column["name"] for column in report["features"] if column["verdict"] == "drift"] == ["patient.age"]
    assert [column["verdict"] for column in report["predictions"]] == ["ok"]
    assert outputs["html"].read_text().startswith("<!doctype html>")
    assert 'sekisho_drift_score{model="diagnosis",version="",feature="patient.age",statistic="psi"}' in (
        outputs["prometheus"].read_text()
    )


def test_json_on_standard_output_is_json_and_nothing_else(place):
    done = drift(place, "--baseline", place / "profile.json", "--json", "-")
    assert json.loads(done.stdout)["model"] == "diagnosis"


def test_two_windows_of_one_log_are_compared(place):
    done = drift(place, "--reference-to", "2026-01-02", "--reference-from", "2026-01-01", "--from", "2026-01-08")
    assert done.returncode == 3
    assert "patient.age" in done.stdout


def test_a_profile_of_a_log_is_a_baseline_for_it(place, tmp_path):
    path = tmp_path / "log.json"
    made = run("profile", "--data", place / "predictions", "--model", "diagnosis", "-o", path)
    assert (made.returncode, made.stderr) == (0, "")
    assert drift(place, "--baseline", path).returncode == 0


def test_settings_come_from_the_environment_too(place):
    done = run(
        "drift",
        environment={
            "SEKISHO_LOG": str(place),
            "SEKISHO_MODEL": "diagnosis",
            "SEKISHO_BASELINE": str(place / "profile.json"),
            "SEKISHO_THRESHOLD_PSI": "50",
        },
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_flag_is_named_with_its_variable():
    done = run("drift", "--model", "diagnosis")
    assert (done.returncode, "--log is required (or set SEKISHO_LOG)" in done.stderr) == (2, True)


def test_an_unreadable_profile_exits_with_1_and_one_line(place):
    done = drift(place, "--baseline", "pyproject.toml")
    assert done.returncode == 1
    assert "pyproject.toml: is not a profile" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_window_exits_with_1_and_names_it(place):
    done = drift(place, "--baseline", place / "profile.json", "--from", "2027-01-01")
    assert done.returncode == 1
    assert "no rows of model 'diagnosis' from 2027-01-01T00:00:00+00:00 to now" in done.stderr
