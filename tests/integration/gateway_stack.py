"""A whole system of real processes for these tests: Redis, two workers, gateways, and what they serve."""

import asyncio
import json
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store import EmbeddedRedis
from settings.child_process import ChildProcess
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_models import features_document, load_features, make_features, publish_models

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0
LOG_FILE_S = 1.0
PORTS = (20_000, 32_000)

MODELS = """\
models:
  ranking:
    unit: user
    deadline_ms: 2000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{a}"]}}
      "2": {{workers: ["http://127.0.0.1:{b}"]}}
    fallback: {{version: "1", value: 0.25}}
  basket:
    unit: user
    deadline_ms: 2000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{a}"]}}
      "2": {{workers: ["http://127.0.0.1:{b}"]}}
    fallback: {{version: "1"}}
    on_missing: {{account: fail}}
    request_overrides: ["user_profile:f0"]
    attributes: [country]
    allow_forced_variant: true
    limits: {{body_bytes_max: 65536, instances_max: 20}}
"""

EXPERIMENTS = """\
experiment: ranking-lightgbm
model: ranking
unit: user
state: running
salt: tests
variants:
  - {name: control, version: "1", bp: 9000}
  - {name: treatment, version: "2", bp: 1000}
---
experiment: basket-in-japan
model: basket
unit: user
state: running
where: country == 'JP'
variants:
  - {name: control, version: "1", bp: 5000}
  - {name: treatment, version: "2", bp: 5000}
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One running gateway."""

    child: ChildProcess
    port: int
    admin_port: int
    log_directory: Path

    def client(self) -> Client:
        """Connect to the data port."""
        return Client(self.port)

    def admin(self, path: str) -> Any:
        """Read a JSON page of the admin port."""
        with Client(self.admin_port) as client:
            return client.ask("GET", path).json

    def metrics(self) -> str:
        """Read the metrics page."""
        with Client(self.admin_port) as client:
            return client.ask("GET", "/metrics").body.decode()

    def all_ready(self) -> bool:
        """Whether every version of every model can answer."""
        try:
            models = self.admin("/admin/v1/status")["models"].values()
        except OSError:
            return False
        return all(version["ready"] for model in models for version in model["versions"].values())

    def wait_for_log(self) -> None:
        """Wait until every row that was offered lies in a closed Parquet file."""

        def closed() -> bool:
            log = self.admin("/admin/v1/status")["log"]
            return log["rows_pending"] == 0 and log["rows_in_open_files"] == 0

        until("the log is on disk", closed)


class Stack:
    """Redis, worker `a` (the first versions), worker `b` (the second ones) and one gateway, or more."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = directory / "repository"
        self.stored = make_features()
        self.redis = EmbeddedRedis(directory / "redis")
        self.worker_ports = dict(zip("ab", free_ports(2), strict=True))
        self.workers: dict[str, ChildProcess] = {}
        self.gateways: list[Gateway] = []
        self._with_stored_experiments: Gateway | None = None

    def start(self) -> None:
        """Publish, load, start, and wait until every version can answer."""
        publish_models(self.repository, self.stored)
        for name, content in (
            ("features.yaml", features_document()),
            ("models.yaml", MODELS.format(**self.worker_ports)),
            ("experiments.yaml", EXPERIMENTS),
        ):
            (self.directory / name).write_text(content, encoding="utf-8")
        self.redis.start()
        self.start_worker("a")
        self.start_worker("b")
        asyncio.run(load_features(self.redis.url, self.directory / "features.yaml", self.stored))
        self.start_gateway("--shutdown-grace-s", "0", wait=False)
        self.wait_until_ready(self.gateway, *self.workers.values())

    @property
    def gateway(self) -> Gateway:
        """The first gateway."""
        return self.gateways[0]

    @property
    def gateway_with_stored_experiments(self) -> Gateway:
        """A gateway that reads its experiments from Redis, started where it is first asked for."""
        if self._with_stored_experiments is None:
            self._with_stored_experiments = self.start_gateway("--shutdown-grace-s", "0", stored_experiments=True)
        return self._with_stored_experiments

    def start_worker(self, name: str) -> ChildProcess:
        """Start a worker, on the same port as before."""
        version = {"a": "1", "b": "2"}[name]
        arguments = ["--repository", str(self.repository), "--port", str(self.worker_ports[name])]
        for model in ("ranking", "basket"):
            arguments += ["--model", f"{model}@{version}"]
        self.workers[name] = self._start(f"worker-{name}", "model_workers", [*arguments, "--shutdown-grace-s", "0"])
        return self.workers[name]

    def start_gateway(
        self, *flags: str, log_directory: Path | None = None, wait: bool = True, stored_experiments: bool = False
    ) -> Gateway:
        """Start a gateway on free ports and wait until every version can answer.

        stored_experiments: it reads its experiments from Redis rather than from `experiments.yaml`.
        """
        port, admin_port = free_ports(2)
        name = f"gateway-{len(self.gateways)}"
        log_directory = log_directory or self.directory / "logs-of" / name
        arguments = ["--config", str(self.directory / "models.yaml"), "--redis", self.redis.url]
        if not stored_experiments:
            arguments += ["--experiments", str(self.directory / "experiments.yaml")]
        arguments += ["--log-dir", str(log_directory)]
        arguments += ["--state-dir", str(self.directory / "state-of" / name)]
        arguments += ["--port", str(port), "--admin-port", str(admin_port), "--log-file-seconds", str(LOG_FILE_S)]
        gateway = Gateway(self._start(name, "gateway", [*arguments, *flags]), port, admin_port, log_directory)
        self.gateways.append(gateway)
        if wait:
            self.wait_until_ready(gateway)
        return gateway

    def wait_until_ready(self, gateway: Gateway, *workers: ChildProcess) -> None:
        """Wait until every version can answer; neither the gateway nor those workers may end meanwhile."""

        def ready() -> bool:
            for child in (gateway.child, *workers):
                assert child.ended() is None, f"{child.ended()}:\n{child.last_lines(20)}"
            return gateway.all_ready()

        until("every version can answer", ready, READY_TIMEOUT_S)

    def stop(self) -> None:
        """End every process, the gateways first."""
        for gateway in self.gateways:
            gateway.child.stop()
        for worker in self.workers.values():
            worker.stop()
        self.redis.stop()

    def _start(self, name: str, module: str, arguments: list[str]) -> ChildProcess:
        child = ChildProcess(
            [sys.executable, "-m", module, *arguments],
            log_file=self.directory / f"{name}.log",
            directory=ROOT,
        )
        child.start()
        return child


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on just now, outside of those from which clients are given theirs."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


def lines_of_errors(log_file: Path) -> list[str]:
    """The lines of a process's log that say error, or hold a traceback."""
    found = []
    for line in log_file.read_text(encoding="utf-8").splitlines():
        try:
            level = json.loads(line)["level"]
        except (ValueError, KeyError, TypeError):
            level = "error" if line.strip() else ""
        if level == "error":
            found.append(line)
    return found
