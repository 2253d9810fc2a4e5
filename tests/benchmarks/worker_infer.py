"""What one inference costs on a model worker: over HTTP, and in the runtime alone.

    python tests/benchmarks/worker_infer.py [--requests 20000] [--connections 64]

Trains 100 trees of 31 leaves over 50 features, publishes them for both runtimes, starts a real worker and prints for
each: the runtime's time a call for 1 and 32 rows, the p50 in µs of one connection that sends single rows as raw bytes,
and the requests a second of many such connections. The client shares the machine with the worker.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import lightgbm
import numpy as np
import uvloop
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from model_workers.loading import load_version  # noqa: E402 - the path is set above
from model_workers.repository import select_versions  # noqa: E402
from tests.unit.model_workers.published_models import lightgbm_manifest, onnx_manifest, publish  # noqa: E402
from tests.unit.model_workers.running_worker import binary_request, running_worker  # noqa: E402

COLUMNS = 50
TREES = 100
WARM_REQUESTS = 500


class Connection(asyncio.Protocol):
    """Sends one request over and over on a keep-alive connection, and notes the time of each answer."""

    def __init__(self, request: bytes, requests: int, done: asyncio.Future[list[float]]) -> None:
        self._request, self._left, self._done = request, requests, done
        self._latencies_us: list[float] = []
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]):
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            self._done.set_exception(RuntimeError(self._received.decode("latin-1")))
            return
        self._latencies_us.append((time.perf_counter_ns() - self._sent_ns) / 1e3)
        self._left -= 1
        if self._left:
            self._send()
        else:
            self._transport.close()
            self._done.set_result(self._latencies_us)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the worker closed the connection"))

    def _send(self) -> None:
        self._received = b""
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)


async def drive(port: int, request: bytes, connections: int, requests: int) -> tuple[list[float], float]:
    """Send `requests` over each connection. Returns the latencies in µs and the requests a second."""
    loop = asyncio.get_running_loop()
    answers = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    for answer in answers:
        await loop.create_connection(lambda answer=answer: Connection(request, requests, answer), "127.0.0.1", port)
    latencies = [latency for answer in await asyncio.gather(*answers) for latency in answer]
    return latencies, connections * requests / (time.perf_counter() - began)


def publish_models(repository: Path) -> dict[str, str]:
    """Publish one model for each runtime. Returns the input's name by version."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2_000, COLUMNS)).astype(np.float32)
    target = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
    forest = GradientBoostingClassifier(n_estimators=TREES, max_leaf_nodes=31, max_depth=None, subsample=0.5).fit(
        rows, target
    )
    converted = to_onnx(forest, rows[:1], options={id(forest): {"zipmap": False}}, target_opset=17)
    publish(repository, converted.SerializeToString(), onnx_manifest("bench", "onnx", COLUMNS))
    settings = {"objective": "binary", "num_leaves": 31, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, target), TREES)
    publish(repository, booster.model_to_string().encode(), lightgbm_manifest("bench", "lightgbm", COLUMNS))
    return {"onnx": "X", "lightgbm": "features"}


def us_per_call(call: Callable[[], object], calls: int = 2_000) -> float:
    """Time a call: the median of five rounds, in µs."""
    rounds = []
    for _ in range(5):
        began_ns = time.perf_counter_ns()
        for _ in range(calls // 5):
            call()
        rounds.append((time.perf_counter_ns() - began_ns) / (calls // 5) / 1e3)
    return median(rounds)


def http_request(version: str, name: str) -> bytes:
    """Make the bytes of one binary single-row request."""
    row = np.linspace(-1, 1, COLUMNS, dtype=np.float32)[None, :]
    body, headers = binary_request(name, row, "FP32")
    length = headers["inference-header-content-length"]
    head = (
        f"POST /v2/models/bench/versions/{version}/infer HTTP/1.1\r\nhost: worker\r\n"
        f"inference-header-content-length: {length}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="requests of each measurement")
    parser.add_argument("--connections", type=int, default=64, help="connections of the throughput measurement")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        input_by_version = publish_models(repository)
        for directory in select_versions(repository, []):
            model = load_version(directory, lambda: time.monotonic_ns() // 1_000).model
            name = input_by_version[directory.version]
            for rows in (1, 32):
                inputs = {name: np.zeros((rows, COLUMNS), dtype=np.float32)}
                cost = us_per_call(lambda model=model, inputs=inputs: model.execute(inputs, ["malignant"]))
                print(f"{directory.version:9} model alone, {rows:2} rows: {cost:7.1f} µs a call")
        with (
            running_worker(repository, repository / "worker.log") as worker,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            port = worker.port
            for version, name in input_by_version.items():
                request = http_request(version, name)
                runner.run(drive(port, request, 1, WARM_REQUESTS))
                latencies, _ = runner.run(drive(port, request, 1, given.requests // 4))
                p50, p99 = median(latencies), quantiles(latencies, n=100)[98]
                each = given.requests // given.connections
                _, rate = runner.run(drive(port, request, given.connections, each))
                print(f"{version:9} 1 connection: p50 {p50:5.0f} µs, p99 {p99:5.0f} µs")
                print(f"{version:9} {given.connections} connections: {rate:7,.0f} requests/s")


if __name__ == "__main__":
    main()
