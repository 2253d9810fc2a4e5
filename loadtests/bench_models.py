"""Makes the benchmark's data: trains and publishes the models, and computes the offline value of each answer."""

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
from loadtests.rank_data import ITEM_FEATURES, ITEM_VIEW, ITEMS, RANK_ITEMS, RANK_USERS, item_features, ranked_items

TREES = 100
LEAVES = 31


def make_bench_data(directory: Path) -> BenchData:
    """Train both models on the users, write everything into `directory`, and compute each answer offline."""
    data = BenchData(directory)
    rows = data.rows()
    noise = np.random.default_rng(SEED + 1).normal(size=USERS)
    labels = (rows[:, :5].sum(axis=1) + noise > 0).astype(np.int64)
    references = _references(VIEW, FEATURES)
    _publish_onnx(data.onnx_file, _onnx_model(rows, labels), references)
    _publish(data.lightgbm_file, _lightgbm_model(rows, labels), "lightgbm", "features", references, {})
    np.save(data.expected_file, np.stack([_onnx_scores(data.onnx_file, rows), _lightgbm_scores(data, rows)]))
    _write_rows(data.rows_file, "user", rows)
    _write_rows(data.items_file, "item", item_features())
    views = _view_yaml(VIEW, "user", FEATURES) + _view_yaml(ITEM_VIEW, "item", ITEM_FEATURES)
    data.views_file.write_text(f"feature_views:\n{views}")
    data.experiments_file.write_text(_experiments_yaml())
    return data


def add_rank_model(data: BenchData) -> None:
    """Train the ranking model on pairs of users and items, publish it, and compute each of its answers offline."""
    users, items = data.rows(), item_features()
    rng = np.random.default_rng(SEED + 2)
    rows = np.hstack([users, items[rng.integers(0, ITEMS, USERS)]])
    labels = (rows[:, :5].sum(axis=1) + rows[:, FEATURES:].sum(axis=1) + rng.normal(size=USERS) > 0).astype(np.int64)
    references = [*_references(VIEW, FEATURES), *_references(ITEM_VIEW, ITEM_FEATURES)]
    _publish_onnx(data.rank_file, _onnx_model(rows, labels), references)
    ranked = ranked_items()
    pairs = np.hstack([np.repeat(users[:RANK_USERS], RANK_ITEMS, axis=0), items[ranked.ravel()]])
    np.save(data.rank_expected_file, _onnx_scores(data.rank_file, pairs).reshape(ranked.shape))


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


def _references(view: str, features: int) -> list[str]:
    return [f"{view}:f{i}" for i in range(features)]


def _publish_onnx(file: Path, artifact: bytes, references: list[str]) -> None:
    _publish(file, artifact, "onnxruntime", "X", references, {"source": "probabilities", "column": 1})


def _publish(
    file: Path, artifact: bytes, runtime: str, input_name: str, references: list[str], output: dict[str, Any]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(artifact)
    manifest = {
        "model": file.parent.parent.name,
        "version": file.parent.name,
        "runtime": runtime,
        "artifact": {"file": file.name, "sha256": hashlib.sha256(artifact).hexdigest()},
        "inputs": [{"name": input_name, "dtype": "FP32", "shape": [-1, len(references)], "features": references}],
        "outputs": [{"name": "score", "dtype": "FP32", **output}],
        "created_at": "2026-01-01T00:00:00Z",
    }
    file.with_name("manifest.json").write_text(json.dumps(manifest, indent=2))


def _write_rows(file: Path, entity: str, rows: np.ndarray[Any, Any]) -> None:
    columns: dict[str, Any] = {entity: [f"{entity[0]}{i}" for i in range(len(rows))]}
    columns |= {f"f{i}": column for i, column in enumerate(rows.T)}
    pq.write_table(pa.table(columns), file)


def _view_yaml(view: str, entity: str, features: int) -> str:
    declared = "".join(f"      - {{name: f{i}, dtype: float32, default: 0.0}}\n" for i in range(features))
    return f"  {view}:\n    entity: {entity}\n    max_age: 30d\n    features:\n{declared}"


def _experiments_yaml() -> str:
    return (
        f"experiment: bench-split\nmodel: {MODEL}\nunit: user\nstate: running\nvariants:\n"
        f'  - {{name: control, version: "{ONNX_VERSION}", bp: {10_000 - TREATMENT_BP}}}\n'
        f'  - {{name: treatment, version: "{LIGHTGBM_VERSION}", bp: {TREATMENT_BP}}}\n'
    )
