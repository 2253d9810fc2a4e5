"""A real worker process, for integration and fault tests and for benchmarks."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contracts.inference import InferenceRequest, decode_response, encode_request, tensor_of

ROOT = Path(__file__).resolve().parents[3]
START_S_MAX = 60
STOP_S_MAX = 30
ANSWER_S_MAX = 10
HUGE_ARTIFACT_BYTES = 8 * 1024**3
"""The most that is loaded. It is hashed for seconds, in which a test has a worker in the middle of a load."""


class WorkerProcess:
    """A started worker; `log` is the file that its standard error goes to."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict | None = None) -> tuple[int, dict, bytes]:
        """Send one request on a connection of its own. Returns status, headers in lower case, and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S_MAX)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def score(self, model: str, version: str, name: str, rows: np.ndarray, datatype: str) -> dict[str, np.ndarray]:
        """Infer with raw bytes both ways. Returns the outputs by name."""
        body, headers = binary_request(name, rows, datatype)
        status, headers, body = self.ask("POST", f"/v2/models/{model}/versions/{version}/infer", body, headers)
        assert status == 200, body
        response = decode_response(body, int(headers["inference-header-content-length"]))
        assert (response.model_name, response.model_version) == (model, version)
        return {output.name: output.array() for output in response.outputs}

    def is_ready(self) -> bool:
        """Say whether the worker listens and is ready."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/v2/health/ready")[0] == 200
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S_MAX)

    def log_lines(self) -> list[dict]:
        """Read the log, which is JSON lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def binary_request(name: str, rows: np.ndarray, datatype: str, **fields) -> tuple[bytes, dict[str, str]]:
    """Make body and headers of a request in raw bytes that asks for raw bytes."""
    request = InferenceRequest(inputs=(tensor_of(name, rows, datatype),), binary_output=True, **fields)
    document, buffers = encode_request(request)
    return b"".join([document, *buffers]), {"inference-header-content-length": str(len(document))}


def free_port() -> int:
    """Find a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, deadline_s: float = START_S_MAX) -> None:
    """Poll until the condition holds; fail at the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the deadline has passed"
        time.sleep(0.02)


def start_worker(repository: Path, log: Path, *flags: str, tree: Path = ROOT) -> WorkerProcess:
    """Start a worker from the source tree at `tree`, without waiting for anything."""
    port = free_port()
    command = [sys.executable, "-m", "model_workers", "--repository", str(repository), "--port", str(port), *flags]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with log.open("wb") as stderr:
        return WorkerProcess(subprocess.Popen(command, cwd=tree, env=environment, stderr=stderr), port, log)


@contextlib.contextmanager
def running_worker(repository: Path, log: Path, *flags: str, tree: Path = ROOT) -> Iterator[WorkerProcess]:
    """Start a worker, wait until it is ready, and end it after."""
    worker = start_worker(repository, log, *flags, tree=tree)
    try:
        wait_until(lambda: worker.is_ready() or worker.process.poll() is not None)
        assert worker.process.poll() is None, log.read_text()
        yield worker
    finally:
        worker.stop(signal.SIGINT)
