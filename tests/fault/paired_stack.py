"""A whole system in which two workers serve every version, so that one of them may fail."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments import assign, parse_experiment
from feature_store import EmbeddedRedis
from settings.child_process import ChildProcess
from settings.yaml_file import read_yaml_documents
from tests.fault.load_records import Question, answer_key
from tests.fault.paced_runtime import install_paced, publish_paced
from tests.integration.gateway_models import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    features_document,
    load_features,
    publish_models,
    ranking_scores,
)
from tests.integration.gateway_stack import ROOT, Gateway, Stack, free_ports

DEADLINE_S = 1.0
"""Of `ranking` and `swap`."""

PACED_DEADLINE_S = 0.5
PACED_ROW_S = 0.004
PACED_CAPACITY_PER_S = 2 / PACED_ROW_S
"""Of both workers together."""

PACED_RATE_PER_S_MAX = 0.3 * PACED_CAPACITY_PER_S
"""One worker alone can do it, with room."""

STATIC_SCORE = 0.25
DEFAULT_VALUE = 0.5
"""The declared default of every feature."""

FALLBACKS = ("feature_default:user_profile", "feature_default:item_stats")

MODELS = """\
models:
  ranking:
    unit: user
    deadline_ms: 1000
    default_version: "1"
    versions:
      "1": {{workers: {workers}}}
      "2": {{workers: {workers}}}
    fallback: {{version: "1", value: 0.25}}
  paced:
    unit: user
    deadline_ms: 500
    default_version: "1"
    versions:
      "1": {{workers: {workers}}}
  swap:
    unit: user
    deadline_ms: 1000
    default_version: "1"
    versions:
      "1": {{workers: {workers}}}
"""

EXPERIMENTS = """\
experiment: ranking-lightgbm
model: ranking
unit: user
state: running
salt: tests
variants:
  - {name: control, version: "1", bp: 5000}
  - {name: treatment, version: "2", bp: 5000}
"""


class PairedStack(Stack):
    """Redis, workers `a` and `b` that both serve everything, and one gateway, or more."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.control_ports = dict(zip("ab", free_ports(2), strict=True))

    def start(self) -> None:
        """Publish, load, start, and wait until every version can answer."""
        install_paced(self.directory / "installed")
        publish_models(self.repository, self.stored)
        publish_paced(self.repository, "paced", 1, row_s=PACED_ROW_S, factor=2.0, feature="user_profile:f0")
        publish_paced(self.repository, "swap", 1, row_s=0.0, factor=1.0, feature="user_profile:f0")
        (self.directory / "features.yaml").write_text(features_document(), encoding="utf-8")
        (self.directory / "experiments.yaml").write_text(EXPERIMENTS, encoding="utf-8")
        self.write_models("models.yaml", self.worker_ports["a"], self.worker_ports["b"])
        self.redis.start()
        for name in "ab":
            self.start_worker(name)
        asyncio.run(load_features(self.redis.url, self.directory / "features.yaml", self.stored))
        self.start_gateway("--shutdown-grace-s", "0", wait=False)
        self.wait_until_ready(self.gateway, *self.workers.values())

    @property
    def redis_socket(self) -> str:
        """Where Redis listens, for a proxy before it."""
        return self.redis.url.removeprefix("unix://")

    def write_models(self, name: str, *ports: int) -> Path:
        """Write routes whose workers are at these ports. Returns the file."""
        file = self.directory / name
        workers = "[" + ", ".join(f'"http://127.0.0.1:{port}"' for port in ports) + "]"
        file.write_text(MODELS.format(workers=workers), encoding="utf-8")
        return file

    def start_worker(self, name: str) -> ChildProcess:
        """Start a worker, on the same ports as before."""
        arguments = [sys.executable, "-m", "model_workers", "--repository", str(self.repository)]
        arguments += ["--port", str(self.worker_ports[name]), "--admin-port", str(self.control_ports[name])]
        arguments += [part for model in ("ranking", "paced", "swap") for part in ("--model", model)]
        arguments += ["--shutdown-grace-s", "1"]
        # `env` becomes the worker: the process id is the worker's.
        worker = ChildProcess(
            ["/usr/bin/env", f"PYTHONPATH={self.directory / 'installed'}", *arguments],
            log_file=self.directory / f"worker-{name}.log",
            directory=ROOT,
        )
        worker.start()
        self.workers[name] = worker
        return worker

    def bring_redis_back(self) -> None:
        """Start Redis on the socket on which it was, with the rows that it had."""
        self.redis.stop()
        self.redis = EmbeddedRedis(self.directory / "redis")
        self.redis.start()
        asyncio.run(load_features(self.redis.url, self.directory / "features.yaml", self.stored))

    @contextmanager
    def further_gateway(self, *flags: str) -> Iterator[Gateway]:
        """Start a gateway beside the first one, and end it after."""
        gateway = self.start_gateway("--shutdown-grace-s", "0", *flags)
        try:
            yield gateway
        finally:
            gateway.child.stop(timeout_s=30.0)


def ranking_questions(stack: Stack, count: int = 120) -> tuple[Question, ...]:
    """Ask `ranking` for users of both variants. Right answers: of either version, with and without stored features."""
    experiments = (parse_experiment(read_yaml_documents(stack.directory / "experiments.yaml", dict)[0]),)
    pairs = [(n, n % 40) for n in range(count)]
    whole = stack.stored.rows(pairs)
    fed: dict[tuple[str, ...], np.ndarray] = {(): whole}
    for views in ((FALLBACKS[0],), (FALLBACKS[1],), FALLBACKS):
        fed[views] = whole.copy()
        if FALLBACKS[0] in views:
            fed[views][:, :USER_COLUMNS] = DEFAULT_VALUE
        if FALLBACKS[1] in views:
            fed[views][:, USER_COLUMNS : USER_COLUMNS + ITEM_COLUMNS] = DEFAULT_VALUE
    scores = {
        answer_key(version, views): np.asarray(ranking_scores(stack.repository, version, rows))
        for version in "12"
        for views, rows in fed.items()
    }
    return tuple(
        Question(
            path="/v1/models/ranking:predict",
            body=f'{{"entities":{{"user":"u{user}","item":"i{item}"}}}}',
            expected={"static": STATIC_SCORE, **{key: float(values[n]) for key, values in scores.items()}},
            drawn=assign(experiments, f"u{user}", {}).variant.version,  # type: ignore[union-attr]
        )
        for n, (user, item) in enumerate(pairs)
    )


def paced_questions(
    stack: Stack, *, model: str = "paced", factors: dict[str, float] | None = None, priority: str = "default"
) -> tuple[Question, ...]:
    """Ask a model of the paced runtime. factors: by version; the `paced` model's own where left out."""
    factors = factors or {"1": 2.0}
    defaulted = "feature_default:user_profile"
    return tuple(
        Question(
            path=f"/v1/models/{model}:predict",
            body=f'{{"entities":{{"user":"u{user}"}}}}',
            expected={
                answer_key(version, fallbacks): factor * value
                for version, factor in factors.items()
                for fallbacks, value in (((), float(stack.stored.users[user, 0])), ((defaulted,), DEFAULT_VALUE))
            },
            headers={} if priority == "default" else {"x-priority": priority},
        )
        for user in range(100)
    )
