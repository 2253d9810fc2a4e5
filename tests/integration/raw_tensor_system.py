"""A worker with models that take raw tensors only, and a gateway before it: what clients of the protocol meet."""

import sys
from pathlib import Path
from typing import Any, Self

from feature_store import EmbeddedRedis
from settings.child_process import ChildProcess
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import READY_TIMEOUT_S, ROOT, free_ports
from tests.integration.identity_models import DATATYPES, TYPED, model_of, publish_identity_models
from tests.unit.model_workers.published_models import OfflineModel, publish_lightgbm_classifier

MODELS = (TYPED, *(model_of(datatype) for datatype in DATATYPES))


class RawTensorSystem:
    """Redis, a worker with its admin port, and a gateway. `diagnosis` is LightGBM, the others are identities."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.repository = directory, directory / "repository"
        self.worker_port, self.worker_admin_port, self.worker_grpc_port = free_ports(3)
        self.gateway_port, self._gateway_admin_port = free_ports(2)
        publish_identity_models(self.repository)
        self.diagnosis: OfflineModel = publish_lightgbm_classifier(self.repository, version="1")
        self._redis = EmbeddedRedis(directory / "redis")
        self._children: list[ChildProcess] = []

    def __enter__(self) -> Self:
        """Start it, and wait until every model is ready on both."""
        try:
            self._start_worker()
            self._redis.start()
            self._start_gateway()
            until("worker and gateway are ready", self._is_ready, READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, the gateway first."""
        for child in reversed(self._children):
            child.stop()
        self._redis.stop()

    def _start_worker(self) -> None:
        arguments = ["--repository", str(self.repository), "--shutdown-grace-s", "0"]
        arguments += ["--port", str(self.worker_port), "--admin-port", str(self.worker_admin_port)]
        self._start("model_workers", [*arguments, "--grpc-port", str(self.worker_grpc_port)])

    def _start_gateway(self) -> None:
        routes = self.directory / "models.yaml"
        routes.write_text(_routes(f"http://127.0.0.1:{self.worker_port}"), encoding="utf-8")
        arguments = ["--config", str(routes), "--redis", self._redis.url, "--shutdown-grace-s", "0"]
        arguments += ["--port", str(self.gateway_port), "--admin-port", str(self._gateway_admin_port)]
        self._start(
            "gateway",
            [*arguments, "--log-dir", str(self.directory / "log"), "--state-dir", str(self.directory / "state")],
        )

    def _start(self, module: str, arguments: list[str]) -> None:
        child = ChildProcess(
            [sys.executable, "-m", module, *arguments], log_file=self.directory / f"{module}.log", directory=ROOT
        )
        child.start()
        self._children.append(child)

    def _is_ready(self) -> bool:
        for child in self._children:
            assert child.ended() is None, f"{child.ended()}:\n{child.last_lines(20)}"
        return all(_answers_ready(port) for port in (self.worker_port, self.gateway_port))


def _answers_ready(port: int) -> Any:
    try:
        with Client(port) as client:
            return client.ask("GET", "/v2/health/ready").status == 200
    except OSError:
        return False


def _routes(worker: str) -> str:
    lines = ["models:"]
    for model in (*MODELS, "diagnosis"):
        lines += [f"  {model}:", "    deadline_ms: 5000", '    default_version: "1"', "    versions:"]
        lines += [f'      "1": {{workers: ["{worker}"]}}']
    return "\n".join(lines) + "\n"
