"""The models that a whole system serves in these tests, their stored features, and what they answer offline."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from contracts.manifest import FILE_NAME, Artifact, Input, Manifest, Output, encode_manifest, sha256_of
from feature_store import RowWriter, apply_views, open_redis, read_feature_views, read_views

USERS, ITEMS = 600, 40
USER_COLUMNS, ITEM_COLUMNS = 6, 3
STALE_USER, FRESH_USER = "stale-user", "u0"
DAY_US = 86_400_000_000

FEATURES = """\
feature_views:
  user_profile:
    entity: user
    max_age: 30d
    features:
{user_columns}
  item_stats:
    entity: item
    max_age: 30d
    features:
{item_columns}
  account:
    entity: user
    max_age: 30d
    features:
      - {{name: visits, dtype: int64, default: 0}}
      - {{name: tier, dtype: string, default: free}}
"""


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """What the feature store holds; rows of users and items by their number, `u7` and `i3`."""

    users: np.ndarray
    items: np.ndarray
    event_time_us: int

    def rows(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        """Rows as the ranking models eat them: the user's columns, then the item's."""
        users, items = zip(*pairs, strict=True)
        return np.hstack([self.users[list(users)], self.items[list(items)]])


def make_features() -> StoredFeatures:
    """Draw the stored features, the same ones in each run."""
    random = np.random.default_rng(7)
    users = random.normal(size=(USERS, USER_COLUMNS)).astype(np.float32)
    users[:, :2] = np.abs(users[:, :2])  # the basket takes square roots of these two
    items = random.normal(size=(ITEMS, ITEM_COLUMNS)).astype(np.float32)
    return StoredFeatures(users, items, time.time_ns() // 1000 - 1_000_000)


def publish_models(repository: Path, stored: StoredFeatures) -> None:
    """Publish `ranking` (ONNX as 1, LightGBM as 2) and `basket` (a small graph with every kind of tensor, twice)."""
    random = np.random.default_rng(11)
    rows = stored.rows(
        [(int(u), int(i)) for u, i in zip(random.integers(USERS, size=1500), _items(random), strict=True)]
    )
    target = (rows[:, :4].sum(axis=1) + random.normal(size=len(rows)) > 0).astype(int)
    references = tuple(f"user_profile:f{i}" for i in range(USER_COLUMNS))
    references += tuple(f"item_stats:g{i}" for i in range(ITEM_COLUMNS))
    columns = len(references)

    linear = LogisticRegression().fit(rows, target)
    converted = to_onnx(linear, rows[:1], options={id(linear): {"zipmap": False}}, target_opset=17)
    score = Output("score", "FP32", source="probabilities", column=1)
    graph_input = Input("X", "FP32", (-1, columns), references)
    _publish(repository, "ranking", "1", "onnxruntime", converted.SerializeToString(), (graph_input,), (score,))

    settings = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "seed": 0}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), num_boost_round=20)
    tree_input = Input("features", "FP32", (-1, columns), references)
    artifact = booster.model_to_string().encode()
    _publish(repository, "ranking", "2", "lightgbm", artifact, (tree_input,), (Output("score", "FP32"),))

    inputs = (
        Input("amounts", "FP32", (-1, 3), ("user_profile:f0", "request:hour", "user_profile:f1")),
        Input("visits", "INT64", (-1,), ("account:visits",)),
        Input("tier", "BYTES", (-1,), ("account:tier",)),
    )
    outputs = (
        Output("total", "FP32"),
        Output("roots", "FP32", (-1, 3)),
        Output("visits_twice", "INT64"),
        Output("tier_echo", "BYTES"),
    )
    for version in ("1", "2"):
        _publish(repository, "basket", version, "onnxruntime", _basket_graph(), inputs, outputs)


def ranking_scores(repository: Path, version: str, rows: np.ndarray) -> np.ndarray:
    """Score rows with the artifact itself, by the runtime's own library."""
    folder = repository / "ranking" / version
    if version == "1":
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {"X": rows})[0][:, 1]
    return lightgbm.Booster(model_file=str(folder / "model.txt")).predict(rows)


async def load_features(redis_url: str, features_file: Path, stored: StoredFeatures) -> None:
    """Register the views and write every row, one of them long ago."""
    redis = open_redis(redis_url)
    try:
        await apply_views(redis, read_feature_views(features_file))
        writer = RowWriter(redis, await read_views(redis), lambda: time.time_ns() // 1000)
        at = stored.event_time_us
        writes = [writer.write("user_profile", f"u{u}", _named("f", row), at) for u, row in enumerate(stored.users)]
        writes += [writer.write("item_stats", f"i{i}", _named("g", row), at) for i, row in enumerate(stored.items)]
        writes += [writer.write("account", f"u{u}", {"visits": u, "tier": f"tier-{u % 3}"}, at) for u in range(USERS)]
        old = at - 45 * DAY_US
        writes.append(writer.write("user_profile", STALE_USER, _named("f", stored.users[0]), old))
        writes.append(writer.write("account", STALE_USER, {"visits": 1, "tier": "old"}, old))
        for begin in range(0, len(writes), 50):
            await asyncio.gather(*writes[begin : begin + 50])
    finally:
        await redis.aclose()


def features_document() -> str:
    """Write `features.yaml`."""
    column = "      - {{name: {name}, dtype: float32, default: 0.5}}"
    return FEATURES.format(
        user_columns="\n".join(column.format(name=f"f{i}") for i in range(USER_COLUMNS)),
        item_columns="\n".join(column.format(name=f"g{i}") for i in range(ITEM_COLUMNS)),
    )


def _basket_graph() -> bytes:
    # total = the sum of a row; roots = its square roots, NaN for a negative amount; the other two typed through.
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("ReduceSum", ["amounts", "axis"], ["total"], keepdims=0),
        helper.make_node("Sqrt", ["amounts"], ["roots"]),
        helper.make_node("Add", ["visits", "visits"], ["visits_twice"]),
        helper.make_node("Identity", ["tier"], ["tier_echo"]),
    ]
    graph = helper.make_graph(
        nodes,
        "basket",
        [
            info("amounts", TensorProto.FLOAT, [None, 3]),
            info("visits", TensorProto.INT64, [None]),
            info("tier", TensorProto.STRING, [None]),
        ],
        [
            info("total", TensorProto.FLOAT, [None]),
            info("roots", TensorProto.FLOAT, [None, 3]),
            info("visits_twice", TensorProto.INT64, [None]),
            info("tier_echo", TensorProto.STRING, [None]),
        ],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _publish(
    repository: Path,
    model: str,
    version: str,
    runtime: str,
    artifact: bytes,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...],
) -> None:
    folder = repository / model / version
    folder.mkdir(parents=True)
    file = folder / ("model.onnx" if runtime == "onnxruntime" else "model.txt")
    file.write_bytes(artifact)
    manifest = Manifest(
        model=model,
        version=version,
        runtime=runtime,
        artifact=Artifact(file.name, sha256_of(file)),
        inputs=inputs,
        outputs=outputs,
        created_at="2026-01-01T00:00:00Z",
    )
    (folder / FILE_NAME).write_bytes(encode_manifest(manifest))


def _items(random: np.random.Generator) -> np.ndarray:
    return random.integers(ITEMS, size=1500)


def _named(prefix: str, row: np.ndarray) -> dict[str, Any]:
    return {f"{prefix}{i}": float(value) for i, value in enumerate(row)}
