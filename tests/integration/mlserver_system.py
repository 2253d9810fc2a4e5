"""A gateway with a worker of ours and a real MLServer side by side, and stored features for both."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Self

from contracts.manifest import Input, Output
from feature_store import EmbeddedRedis, RowWriter, apply_views, open_redis, read_feature_views, read_views
from settings.child_process import ChildProcess
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import LOG_FILE_S, READY_TIMEOUT_S, ROOT, Gateway, free_ports
from tests.integration.peers import COLUMNS, MlServer
from tests.unit.model_workers.published_models import lightgbm_manifest, publish

MODELS = ("churn", "twin")
REFERENCES = tuple(f"user_profile:f{i}" for i in range(COLUMNS))

FEATURES = """\
feature_views:
  user_profile:
    entity: user
    max_age: 30d
    features:
      - {name: f0, dtype: float32, default: 0}
      - {name: f1, dtype: float32, default: 0}
      - {name: f2, dtype: float32, default: 0}
"""

# `churn` is LightGBM here and scikit-learn there, under other names and with its signature in the route; `twin` is one
# LightGBM model on both.
ROUTES = """\
models:
  churn:
    unit: user
    deadline_ms: 3000
    allow_forced_variant: true
    default_version: "1"
    versions:
      "1": {{workers: ["{ours}"]}}
      "2":
        workers: ["{mlserver}"]
        server: {{model: churn-sklearn, version: null, binary: false}}
        signature: &signature
          inputs:
            - name: X
              dtype: FP32
              shape: [-1, 3]
              features: ["user_profile:f0", "user_profile:f1", "user_profile:f2"]
          outputs: [{{name: score, dtype: FP64, shape: [-1], source: predict, column: 0}}]
          batch_rows_max: 64
  twin:
    unit: user
    deadline_ms: 3000
    default_version: "1"
    versions:
      "1": {{workers: ["{ours}"]}}
      "2":
        workers: ["{mlserver}"]
        server: {{model: churn-lightgbm, version: null}}
        signature: *signature
"""

EXPERIMENT = """\
experiment: {model}-servers
model: {model}
unit: user
state: running
salt: peers
variants:
  - {{name: ours, version: "1", bp: 5000}}
  - {{name: mlserver, version: "2", bp: 5000}}
"""


class MlServerSystem:
    """Redis with a row for each offline row (`u0` …), a worker, MLServer, and a gateway that splits between the two."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.mlserver = MlServer(directory / "mlserver")
        self.offline = self.mlserver.offline
        self._redis = EmbeddedRedis(directory / "redis")
        self._worker_port, port, admin_port = free_ports(3)
        self._worker = self._child("model_workers", self._worker_arguments())
        child = self._child("gateway", self._gateway_arguments(port, admin_port))
        self.gateway = Gateway(child, port, admin_port, directory / "log")

    def __enter__(self) -> Self:
        """Start all of it, and wait until both versions of both models can answer."""
        try:
            self._worker.start()
            self._redis.start()
            asyncio.run(self._load_features())
            self.mlserver.__enter__()
            self.gateway.child.start()
            until("every version can answer", self._is_ready, READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, the gateway first."""
        self.gateway.child.stop()
        self.mlserver.stop()
        self._worker.stop()
        self._redis.stop()

    def client(self) -> Client:
        """Connect to the gateway's data port."""
        return self.gateway.client()

    def _worker_arguments(self) -> list[str]:
        repository = self._directory / "repository"
        artifact = self.mlserver.lightgbm_artifact.read_bytes()
        for model in MODELS:
            manifest = lightgbm_manifest(
                model,
                "1",
                COLUMNS,
                inputs=(Input("X", "FP32", (-1, COLUMNS), REFERENCES),),
                outputs=(Output("score", "FP64"),),
            )
            publish(repository, artifact, manifest)
        return ["--repository", str(repository), "--port", str(self._worker_port), "--shutdown-grace-s", "0"]

    def _gateway_arguments(self, port: int, admin_port: int) -> list[str]:
        ours = f"http://127.0.0.1:{self._worker_port}"
        files = {
            "models.yaml": ROUTES.format(ours=ours, mlserver=self.mlserver.url),
            "experiments.yaml": "---\n".join(EXPERIMENT.format(model=model) for model in MODELS),
            "features.yaml": FEATURES,
        }
        for name, content in files.items():
            (self._directory / name).write_text(content, encoding="utf-8")
        arguments = ["--config", str(self._directory / "models.yaml"), "--redis", self._redis.url]
        arguments += ["--experiments", str(self._directory / "experiments.yaml"), "--shutdown-grace-s", "0"]
        arguments += ["--log-dir", str(self._directory / "log"), "--log-file-seconds", str(LOG_FILE_S)]
        arguments += ["--state-dir", str(self._directory / "state")]
        return [*arguments, "--port", str(port), "--admin-port", str(admin_port)]

    def _child(self, module: str, arguments: list[str]) -> ChildProcess:
        command = [sys.executable, "-m", module, *arguments]
        return ChildProcess(command, log_file=self._directory / f"{module}.log", directory=ROOT)

    def _is_ready(self) -> bool:
        for child in (self._worker, self.gateway.child):
            assert child.ended() is None, f"{child.ended()}:\n{child.last_lines(20)}"
        return self.gateway.all_ready()

    async def _load_features(self) -> None:
        redis = open_redis(self._redis.url)
        try:
            await apply_views(redis, read_feature_views(self._directory / "features.yaml"))
            writer = RowWriter(redis, await read_views(redis), lambda: time.time_ns() // 1000)
            at_us = time.time_ns() // 1000
            for user, row in enumerate(self.offline.rows):
                features = {f"f{i}": float(value) for i, value in enumerate(row)}
                await writer.write("user_profile", f"u{user}", features, at_us)
        finally:
            await redis.aclose()
