"""What one predict request costs the gateway in Python, from a client's bytes to the answer's, without the kernel.

Run: .venv/bin/python tests/benchmarks/gateway_request.py
Everything is the product's own: server, route, split, reader, projection, dispatch, metrics, and the offer to the log.
Only the sockets are not: what is written to them is answered, in a later turn of the loop, by what Redis and a worker
would have sent. The least of many rounds is printed, for 1, 4 and 16 requests that arrive in one turn: other programs
on the machine can only add. What a request costs above this, live, is the kernel, and caches that others have used.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[2]))

from contracts.inference import InferenceResponse, Tensor, encode_response
from contracts.manifest import Artifact, Input, Manifest, Output
from experiments import parse_experiment
from feature_store import NearCache, NearCachePolicy, OnlineReader, RedisConnection, RegisteredView
from feature_store.redis_protocol import RedisProtocol
from feature_store.row_layout import Column, place_columns
from gateway.admission import Admission
from gateway.arm_counts import ArmCounter
from gateway.clock import monotonic, wall_us
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.worker_address import address_of
from gateway.dispatch.worker_connection import WorkerConnection
from gateway.dispatch.worker_pool import WorkerPool
from gateway.edge.data_port import DataPort
from gateway.edge.predict_route import PredictRoute
from gateway.feature_ladder import FeatureLadder
from gateway.feature_plan import plan_features
from gateway.feature_rows import FeatureAssembler
from gateway.identifiers import uuid7_maker
from gateway.metrics import GatewayMetrics
from gateway.model_signature import signature_of
from gateway.predict import Predictor
from gateway.prediction_log.prediction_table import PredictionTable, logged_columns
from gateway.routes_file import ModelRoute, VersionRoute
from gateway.scoring_ladder import ScoringLadder
from gateway.served_models import PlannedVersion, ServedModel, ServedVersion
from gateway.shadow_scoring import ShadowScorer
from http_server.connection import Connection
from http_server.server import HttpServer

FEATURES = [f"f{i}" for i in range(50)]
USERS = 1_000
REQUESTS = 4_000
INSTANCES = 500
ROUNDS = 15

Document = dict[str, Any]
SPLIT: Document = {
    "experiment": "e",
    "model": "bench",
    "unit": "user",
    "state": "running",
    "variants": [{"name": "control", "version": "1", "bp": 9000}, {"name": "treatment", "version": "1", "bp": 1000}],
}
GUARDED: Document = {
    **SPLIT,
    "guardrails": [
        {"metric": "error_rate", "max_abs_increase": 0.01},
        {"metric": "p99_ms", "max_rel_increase": 0.25},
        {"metric": "score_drift", "max_abs_increase": 0.1},
    ],
}
EXPERIMENTS: dict[str, list[Document]] = {
    "no experiment": [],
    "one that does not run": [{**SPLIT, "state": "paused"}],
    "one that splits (v1)": [SPLIT],
    "and targets": [{**SPLIT, "where": "user != 'u1' and not (user in ['a', 'b'])"}],
    "with guardrails": [GUARDED],
    "by GrowthBook's hash": [{**SPLIT, "hash": "growthbook-v2"}],
    "by Eppo's hash": [{**SPLIT, "hash": "eppo"}],
    "the last of ten": [{**SPLIT, "experiment": f"e{n}", "enrol_bp": 10_000 * (n == 9)} for n in range(10)],
}


class Socket:
    """A transport that hands what is written to `written`."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        self.write = written

    def get_extra_info(self, name: str) -> None:
        """Nothing is known of it."""

    def close(self) -> None:
        """Nothing is open."""

    abort = close


class NoLog:
    """Takes every entry and forgets it."""

    def offer(self, table: Any, entry: Any, entry_bytes: int) -> bool:
        """Take it."""
        return True


def stored_row(policy: NearCachePolicy) -> tuple[RegisteredView, bytes]:
    """Make a view of 50 float32 and one row of it."""
    layout = place_columns("user_profile", 1, [Column(name, "float32", None) for name in FEATURES])
    registered = RegisteredView(
        name="user_profile",
        entity="user",
        max_age_us=10**12,
        current_schema_id=1,
        schemas={1: layout},
        defaults=dict.fromkeys(FEATURES, 0.0),
        near_cache=policy,
    )
    row = layout.encode(dict.fromkeys(FEATURES, 0.5), event_time_us=wall_us(), write_time_us=wall_us())
    return registered, row


def redis_reader(row: bytes, near_cache: NearCache) -> OnlineReader:
    """Make a reader whose connection answers each MGET with that row, for every key."""
    loop = asyncio.get_running_loop()
    connection = RedisConnection("redis://127.0.0.1:1")
    protocol = RedisProtocol("redis", lambda *_: None, 2.0)
    one = b"$%d\r\n%b\r\n" % (len(row), row)

    def written(command: bytes) -> None:
        keys = int(command[1 : command.index(b"\r")]) - 1
        loop.call_soon(protocol.data_received, b"*%d\r\n%b" % (keys, one * keys))

    protocol.connection_made(Socket(written))  # type: ignore[arg-type]
    connection._protocol, connection.connected = protocol, True
    reader = OnlineReader(connection, near_cache=near_cache)
    reader._loop = loop
    reader._timeouts.start(loop)
    return reader


def worker_pool() -> WorkerPool:
    """Make a pool of one replica that answers each batch with a score a row."""
    loop = asyncio.get_running_loop()
    pool = WorkerPool((address_of("http://127.0.0.1:1"),), monotonic)
    replica = pool.replicas[0]
    replica.answered = True
    answers: dict[int, bytes] = {}

    def answer(rows: int) -> bytes:
        tensor = Tensor("score", "FP32", (rows,), b"\0\0\0\x3f" * rows)
        head, raw = encode_response(
            InferenceResponse(model_name="bench", model_version="1", outputs=(tensor,)), ["score"]
        )
        lengths = (len(head), len(head) + 4 * rows)
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
            b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b" % (*lengths, head, raw[0])
        )

    for _ in range(2):
        connection = WorkerConnection(lambda _: None)

        def written(data: bytes, connection: WorkerConnection = connection) -> None:
            head = int(data.split(b"\r\ninference-header-content-length: ", 1)[1].split(b"\r", 1)[0])
            body = int(data.split(b"\r\ncontent-length: ", 1)[1].split(b"\r", 1)[0])
            rows = (body - head) // (4 * len(FEATURES))
            if rows not in answers:
                answers[rows] = answer(rows)
            loop.call_soon(connection.data_received, answers[rows])

        connection.connection_made(Socket(written))  # type: ignore[arg-type]
        replica.connections.append(connection)
    return pool


def gateway(policy: NearCachePolicy, documents: Sequence[Document] = (SPLIT,)) -> HttpServer:
    """Compose the data path as gateway.app does. documents: of the experiments on the model."""
    registered, row = stored_row(policy)
    manifest = Manifest(
        model="bench",
        version="1",
        runtime="onnxruntime",
        artifact=Artifact("model.onnx", "0" * 64),
        inputs=(Input("x", "FP32", (-1, 50), tuple(f"user_profile:{name}" for name in FEATURES)),),
        outputs=(Output("score", "FP32"),),
        created_at="",
    )
    plan = plan_features(manifest.inputs, {"user_profile": registered}, {}, ())
    table = PredictionTable("bench", "1", ["user"], logged_columns(manifest.inputs, manifest.outputs, plan))
    pool = worker_pool()
    dispatcher = BatchDispatcher(signature_of(manifest), pool, monotonic)
    planned = PlannedVersion("1", signature_of(manifest), plan, dispatcher, table, ("score",))
    experiments = tuple(parse_experiment(document) for document in documents)
    route = ModelRoute(versions={"1": VersionRoute(("http://h:1",))}, default_version="1", unit="user")
    model = ServedModel("bench", route, {"1": ServedVersion("1", pool, planned)}, experiments)
    model.learn_names()
    metrics = GatewayMetrics(CollectorRegistry())
    new_id = uuid7_maker(wall_us, Random(1))
    log: Any = NoLog()
    arms, shadows = ArmCounter(monotonic), ShadowScorer(log, metrics, wall_us, monotonic)
    predictor = Predictor(Admission(1000), ScoringLadder(), log, metrics, arms, shadows, new_id, wall_us, monotonic)
    near_cache = NearCache()
    assembler = FeatureAssembler(FeatureLadder(redis_reader(row, near_cache), near_cache, monotonic), wall_us)
    models = {"bench": model}
    predict = PredictRoute(models, predictor, assembler, metrics, new_id, monotonic)
    unused: Any = None
    server = HttpServer(DataPort(models, predict, unused, unused, unused, metrics, new_id), None, lambda: 0.0)
    server.metrics = metrics  # type: ignore[attr-defined]
    return server


def request(user: int, *, traced: bool, instances: int = 1) -> bytes:
    """One request as the benchmark's load generator sends it."""
    each = b",".join([b'{"entities":{"user":"u%d"}}' % other for other in range(user, user + instances)])
    unit = b',"unit":"u%d"' % user if instances > 1 else b""
    body = b'{"instances":[%b]%b}' % (each, unit)
    trace = b"x-request-id: r%012d\r\ntraceparent: 00-%032x-%016x-01\r\n" % (user, user, user) if traced else b""
    return (
        b"POST /v1/models/bench:predict HTTP/1.1\r\nhost: 127.0.0.1\r\n%bcontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (trace, len(body), body)
    )


async def measure(
    at_once: int,
    rounds: int,
    policy: NearCachePolicy,
    *,
    traced: bool,
    instances: int = 1,
    documents: Sequence[Document] = (SPLIT,),
) -> float:
    """Return the least cost of a request in µs, with `at_once` connections that send in the same turn."""
    server, loop = gateway(policy, documents), asyncio.get_running_loop()
    requests = [request(user, traced=traced, instances=instances) for user in range(USERS)]
    wanted = REQUESTS // instances
    done, left = 0, 0
    finished = loop.create_future()

    def answered(data: bytes) -> None:
        nonlocal done, left
        assert data.startswith(b"HTTP/1.1 200")
        done, left = done + 1, left - 1
        if done >= wanted and left == 0:
            finished.set_result(None)
        elif left == 0:
            loop.call_soon(send)

    connections = []
    for _ in range(at_once):
        connection = Connection(server)
        connection.connection_made(Socket(answered))  # type: ignore[arg-type]
        connections.append(connection)

    def send() -> None:
        nonlocal left
        left = at_once
        for i, connection in enumerate(connections):
            connection.data_received(requests[(done + i) % USERS])

    best = 1e9
    for _ in range(rounds):
        finished, done = loop.create_future(), 0
        begun = time.process_time()
        loop.call_soon(send)
        await finished
        best = min(best, (time.process_time() - begun) / done)
        server.metrics.fold_overdue()  # type: ignore[attr-defined]
    return best * 1e6


async def compare_experiments(rounds: int, policy: NearCachePolicy) -> None:
    """Print what experiments add to a request, each kind measured in turn, again and again."""
    least = dict.fromkeys(EXPERIMENTS, 1e9)
    for _ in range(rounds):
        for kind, documents in EXPERIMENTS.items():
            took_us = await measure(4, 1, policy, traced=False, documents=documents)
            least[kind] = min(least[kind], took_us)
    without = least["no experiment"]
    for kind, took_us in least.items():
        print(f"{kind:24} {took_us:6.1f} µs a request, {took_us - without:+5.1f}")


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--instances", type=int, default=INSTANCES, help="of one large request; 0: none")
    parser.add_argument("--experiments", action="store_true", help="only: what experiments add, by kind")
    parser.add_argument("--near-cache", action="store_true", help="serve rows from memory, for ten seconds each")
    arguments = parser.parse_args()
    policy = NearCachePolicy(max_age_us=10_000_000 if arguments.near_cache else 0)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    if arguments.experiments:
        await compare_experiments(arguments.rounds, policy)
        return
    for at_once in arguments.at_once:
        plain = await measure(at_once, arguments.rounds, policy, traced=False)
        traced = await measure(at_once, arguments.rounds, policy, traced=True)
        print(f"{at_once:3} in a turn: {plain:6.1f} µs a request, {traced:6.1f} µs with a request id and trace context")
    if arguments.instances:
        many = await measure(1, arguments.rounds, policy, traced=True, instances=arguments.instances)
        print(f"{arguments.instances} instances in a request: {many / 1e3:.2f} ms")


if __name__ == "__main__":
    uvloop.run(main())
