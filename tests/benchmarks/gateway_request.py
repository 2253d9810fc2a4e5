"""What one predict request costs the gateway in Python, without sockets: µs by stage and in all.

Run: .venv/bin/python tests/benchmarks/gateway_request.py
Redis and the worker are replaced by futures that are done already, so what is left is parsing, assignment, projection,
the futures and tasks between, the answer, the metrics and the offer to the log. The least of many rounds is printed:
other programs on the machine can only add.
"""

import asyncio
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[2]))

from contracts.manifest import Artifact, Input, Manifest, Output
from experiments import assign, parse_experiment
from feature_store import RegisteredView
from feature_store.row_layout import Column, place_columns
from gateway.admission import Admission
from gateway.clock import monotonic, wall_us
from gateway.dispatch.batch_dispatcher import Scores
from gateway.edge.predict_route import PredictRoute
from gateway.feature_plan import plan_features
from gateway.feature_rows import FeatureAssembler
from gateway.identifiers import uuid7_maker
from gateway.metrics import GatewayMetrics
from gateway.model_signature import signature_of
from gateway.predict import Predictor
from gateway.predict_request import PredictRequest
from gateway.prediction_log.prediction_table import PredictionTable, logged_columns
from gateway.routes_file import ModelRoute, VersionRoute
from gateway.scoring_ladder import ScoringLadder
from gateway.served_models import PlannedVersion, ServedModel, ServedVersion

FEATURES = [f"f{i}" for i in range(50)]
ROUNDS, CALLS = 30, 2_000


def view() -> tuple[RegisteredView, bytes]:
    """Make a view of 50 float32 and one row of it."""
    layout = place_columns("user_profile", 1, [Column(name, "float32", None) for name in FEATURES])
    registered = RegisteredView(
        name="user_profile",
        entity="user",
        max_age_us=10**12,
        current_schema_id=1,
        schemas={1: layout},
        defaults=dict.fromkeys(FEATURES, 0.0),
    )
    row = layout.encode(dict.fromkeys(FEATURES, 0.5), event_time_us=wall_us(), write_time_us=wall_us())
    return registered, row


class DoneReader:
    """Has every row at hand."""

    def __init__(self, row: bytes) -> None:
        self._row, self._loop = row, asyncio.get_running_loop()

    def fetch(self, keys: list[bytes]) -> Any:
        """Return a future that is done."""
        future = self._loop.create_future()
        future.set_result([self._row] * len(keys))
        return future


class DoneDispatcher:
    """Has every score at hand."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, inputs: Any, rows: int, expires_at: float, row_shapes: Any) -> Any:
        """Return a future that is done."""
        future = self._loop.create_future()
        future.set_result(Scores([[0.123456]], True, 10, 100))
        return future


class NoLog:
    """Takes every entry and forgets it."""

    def offer(self, table: Any, entry: Any, entry_bytes: int) -> bool:
        """Take it."""
        return True


async def main() -> None:
    """Print the table."""
    registered, row = view()
    manifest = Manifest(
        model="bench",
        version="1",
        runtime="onnxruntime",
        artifact=Artifact("model.onnx", "0" * 64),
        inputs=(Input("x", "FP32", (-1, 50), tuple(f"user_profile:{name}" for name in FEATURES)),),
        outputs=(Output("score", "FP32"),),
        created_at="",
    )
    signature = signature_of(manifest)
    plan = plan_features(manifest.inputs, {"user_profile": registered}, {}, ())
    table = PredictionTable("bench", "1", ["user"], logged_columns(manifest.inputs, manifest.outputs, plan))
    dispatcher: Any = DoneDispatcher()
    planned = PlannedVersion("1", signature, plan, dispatcher, table, ("score",))
    pool: Any = SimpleNamespace(replicas=())
    variants = [{"name": "control", "version": "1", "bp": 9000}, {"name": "treatment", "version": "1", "bp": 1000}]
    document = {"experiment": "e", "model": "bench", "unit": "user", "state": "running", "variants": variants}
    experiment = parse_experiment(document)
    versions = {"1": ServedVersion("1", pool, planned)}
    route = ModelRoute(versions={"1": VersionRoute(("http://h:1",))}, default_version="1", unit="user")
    model = ServedModel("bench", route, versions, (experiment,))
    model.learn_names()
    metrics = GatewayMetrics(CollectorRegistry())
    new_id = uuid7_maker(wall_us, Random(1))
    assembler = FeatureAssembler(DoneReader(row), wall_us)
    log: Any = NoLog()
    predictor = Predictor(Admission(1000), ScoringLadder(), log, metrics, new_id, wall_us, monotonic)
    predict = PredictRoute({"bench": model}, predictor, assembler, metrics, new_id, monotonic)
    body = b'{"entities":{"user":"u42"}}'
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/models/bench:predict",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        return None

    async def whole() -> None:
        for _ in range(CALLS):
            await predict(scope, receive, send)
        metrics.fold_overdue()

    best = 1e9
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await whole()
        best = min(best, (time.perf_counter() - begun) / CALLS)
    print(f"{'whole request':24} {best * 1e6:7.2f} µs")
    decode = msgspec.json.Decoder(PredictRequest).decode
    projection = plan.views[0].projection
    now = wall_us()
    parts = {
        "decode": lambda: decode(body),
        "assign": lambda: assign(model.experiments, "u42", {}),
        "project": lambda: projection.project(row, now),
        "new id": new_id,
        "wall clock": wall_us,
    }
    for name, call in parts.items():
        best = 1e9
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for _ in range(CALLS):
                call()
            best = min(best, (time.perf_counter() - begun) / CALLS)
        print(f"{name:24} {best * 1e6:7.2f} µs")


if __name__ == "__main__":
    uvloop.run(main())
