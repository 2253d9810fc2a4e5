"""What one inference costs on a model worker over gRPC, beside the same over HTTP.

    python tests/benchmarks/worker_grpc.py [--requests 8000] [--in-flight 64]

Serves 100 trees of 31 leaves over 50 features with LightGBM, sends single rows as raw bytes to both ports of one worker
in turn, and prints for each: p50 and p99 in µs of one caller, and with many calls in flight the requests a second and
the CPU time of the worker that each took. The callers share the machine with the worker; over gRPC they are Google's
client, whose own time is in the latencies.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import grpc
import numpy as np
import psutil
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from model_workers.grpc_edge.messages import inference_messages  # noqa: E402 - the path is set above
from tests.benchmarks.worker_infer import COLUMNS, WARM_REQUESTS, drive, http_request, publish_models  # noqa: E402
from tests.unit.model_workers.running_worker import free_port, running_worker  # noqa: E402

METHOD = "/inference.GRPCInferenceService/ModelInfer"
VERSION = "lightgbm"
ROUNDS = 3


def grpc_request(name: str) -> bytes:
    """Make the bytes of one single-row ModelInferRequest."""
    request = inference_messages()["ModelInferRequest"](model_name="bench", model_version=VERSION)
    request.inputs.add(name=name, datatype="FP32", shape=[1, COLUMNS])
    request.raw_input_contents.append(np.linspace(-1, 1, COLUMNS, dtype=np.float32).tobytes())
    return request.SerializeToString()


def call_alone(port: int, request: bytes, requests: int) -> list[float]:
    """Call one after the other. Returns the latencies in µs."""
    latencies_us = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(METHOD)
        for _ in range(WARM_REQUESTS + requests):
            began_ns = time.perf_counter_ns()
            infer(request)
            latencies_us.append((time.perf_counter_ns() - began_ns) / 1e3)
    return latencies_us[WARM_REQUESTS:]


async def call_together(port: int, request: bytes, in_flight: int, requests: int) -> float:
    """Keep so many calls in flight. Returns the requests a second."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(METHOD)

        async def caller() -> None:
            for _ in range(requests // in_flight):
                await infer(request)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return requests // in_flight * in_flight / (time.perf_counter() - began)


def cpu_us(process: psutil.Process) -> float:
    """Give the CPU time that a process has used."""
    used = process.cpu_times()
    return (used.user + used.system) * 1e6


def show(edge: str, latencies_us: list[float], rate: float, cpu_us_each: float, in_flight: int) -> None:
    """Print one round of one edge."""
    p50, p99 = median(latencies_us), quantiles(latencies_us, n=100)[98]
    print(
        f"{edge:4}  one caller: p50 {p50:5.0f} µs, p99 {p99:5.0f} µs   "
        f"{in_flight} in flight: {rate:6,.0f} requests/s, {cpu_us_each:4.0f} µs of the worker's CPU each",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=8_000, help="requests of each measurement")
    parser.add_argument("--in-flight", type=int, default=64, help="calls at one time in the second measurement")
    given = parser.parse_args()
    each = given.requests // given.in_flight
    with tempfile.TemporaryDirectory() as folder:
        name = publish_models(Path(folder))[VERSION]
        over_http, over_grpc, grpc_port = http_request(VERSION, name), grpc_request(name), free_port()
        flags = ("--model", f"bench@{VERSION}", "--grpc-port", str(grpc_port))
        with (
            running_worker(Path(folder), Path(folder) / "worker.log", *flags) as worker,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            process = psutil.Process(worker.process.pid)
            for _ in range(ROUNDS):
                runner.run(drive(worker.port, over_http, 1, WARM_REQUESTS))
                latencies_us, _ = runner.run(drive(worker.port, over_http, 1, given.requests // 2))
                began_us = cpu_us(process)
                _, rate = runner.run(drive(worker.port, over_http, given.in_flight, each))
                used_us = cpu_us(process) - began_us
                show("http", latencies_us, rate, used_us / (each * given.in_flight), given.in_flight)
                latencies_us = call_alone(grpc_port, over_grpc, given.requests // 2)
                began_us = cpu_us(process)
                rate = runner.run(call_together(grpc_port, over_grpc, given.in_flight, given.requests))
                used_us = cpu_us(process) - began_us
                show("grpc", latencies_us, rate, used_us / (each * given.in_flight), given.in_flight)


if __name__ == "__main__":
    main()
