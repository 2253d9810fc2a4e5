"""Makes the benchmark's data: trains and publishes both models, and computes the offline value of each answer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

from loadtests.bench_data import (
    FEATURES,
    LIGHTGBM_VERSION,
    MODEL,
    ONNX_VERSION,
    SEED,
    TREATMENT_BP,
    USERS,
    VIEW,
    BenchData,
)

TREES = 100
LEAVES = 31


def make_bench_data(directory: Path) -> BenchData:
    """Train both models on the users, write everything into `directory`, and compute each answer offline."""
    data = BenchData(directory)
    rows = data.rows()
    noise = np.random.default_rng(SEED + 1).normal(size=USERS)
    labels = (rows[:, :5].sum(axis=1) + noise > 0).astype(np.int64)
    _publish(data.onnx_file, _onnx_model(rows, labels), "onnxruntime", "X", {"source": "probabilities", "column": 1})
    _publish(data.lightgbm_file, _lightgbm_model(rows, labels), "lightgbm", "features", {})
    np.save(data.expected_file, np.stack([_onnx_scores(data.onnx_file, rows), _lightgbm_scores(data, rows)]))
    _write_rows(data, rows)
    data.experiments_file.write_text(_experiments_yaml())
    return data


def _onnx_model(rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> bytes:
    # A few features and half of the rows a tree: training takes seconds, and the trees are as large as any.
    model = GradientBoostingClassifier(
        n_estimators=TREES, max_leaf_nodes=LEAVES, max_depth=None, max_features=8, subsample=0.5, random_state=SEED
    )
    model.fit(rows, labels)
    converted: bytes = to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString()
    return converted


def _lightgbm_model(rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> bytes:
    parameters = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "seed": SEED,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    text: str = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), TREES).model_to_string()
    return text.encode()


def _onnx_scores(file: Path, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    scores: np.ndarray[Any, Any] = session.run(["probabilities"], {"X": rows})[0][:, 1].astype(np.float64)
    return scores


def _lightgbm_scores(data: BenchData, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(lightgbm.Booster(model_file=data.lightgbm_file).predict(rows))


def _publish(file: Path, artifact: bytes, runtime: str, input_name: str, output: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(artifact)
    references = [f"{VIEW}:f{i}" for i in range(FEATURES)]
    manifest = {
        "model": MODEL,
        "version": file.parent.name,
        "runtime": runtime,
        "artifact": {"file": file.name, "sha256": hashlib.sha256(artifact).hexdigest()},
        "inputs": [{"name": input_name, "dtype": "FP32", "shape": [-1, FEATURES], "features": references}],
        "outputs": [{"name": "score", "dtype": "FP32", **output}],
        "created_at": "2026-01-01T00:00:00Z",
    }
    file.with_name("manifest.json").write_text(json.dumps(manifest, indent=2))


def _write_rows(data: BenchData, rows: np.ndarray[Any, Any]) -> None:
    columns: dict[str, Any] = {"user": [f"u{user}" for user in range(len(rows))]}
    columns |= {f"f{i}": rows[:, i] for i in range(FEATURES)}
    pq.write_table(pa.table(columns), data.rows_file)
    declared = "".join(f"      - {{name: f{i}, dtype: float32, default: 0.0}}\n" for i in range(FEATURES))
    head = f"feature_views:\n  {VIEW}:\n    entity: user\n    max_age: 30d\n    features:\n"
    data.views_file.write_text(head + declared)


def _experiments_yaml() -> str:
    return (
        f"experiment: bench-split\nmodel: {MODEL}\nunit: user\nstate: running\nvariants:\n"
        f'  - {{name: control, version: "{ONNX_VERSION}", bp: {10_000 - TREATMENT_BP}}}\n'
        f'  - {{name: treatment, version: "{LIGHTGBM_VERSION}", bp: {TREATMENT_BP}}}\n'
    )
