"""A whole system for experiments: two gateways on one store, a champion, and versions that are worse or as good."""

import sys

from settings.child_process import ChildProcess
from tests.fault.faulty_runtime import NEVER, install_faulty, publish_faulty
from tests.fault.load_records import Question
from tests.integration.experiments_admin import Admin
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import ROOT, Gateway, Stack

MODEL = "canary"
CHAMPION, FAILING, SLOW, HEALTHY = "1", "2", "3", "4"
FACTORS = {CHAMPION: 1.0, FAILING: 2.0, SLOW: 3.0, HEALTHY: 4.0}
"""What tells from an answer which version gave it."""

FAILING_SHARE = 0.03
ROW_S = 0.002
"""Of every version; twice as long of the slow one."""

UNITS = 1_000

ROUTES = """\
models:
  canary:
    unit: user
    deadline_ms: 1000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{a}"]}}
      "2": {{workers: ["http://127.0.0.1:{b}"]}}
      "3": {{workers: ["http://127.0.0.1:{b}"]}}
      "4": {{workers: ["http://127.0.0.1:{b}"]}}
"""

WORKER_OF = {CHAMPION: "a", FAILING: "b", SLOW: "b", HEALTHY: "b"}


class ExperimentingStack(Stack):
    """Redis, worker `a` with the champion, worker `b` with the others, and two gateways with one store."""

    def start(self) -> None:
        """Publish, start, and wait until every version can answer."""
        install_faulty(self.directory / "installed")
        for version, factor in FACTORS.items():
            row_s = 2 * ROW_S if version == SLOW else ROW_S
            fails_from = UNITS * (1 - FAILING_SHARE) if version == FAILING else NEVER
            publish_faulty(self.repository, MODEL, version, factor=factor, row_s=row_s, fails_from=fails_from)
        (self.directory / "models.yaml").write_text(ROUTES.format(**self.worker_ports), encoding="utf-8")
        self.redis.start()
        for name in "ab":
            self.start_worker(name)
        for _ in range(2):
            self.start_experimenting_gateway(wait=False)
        for gateway in self.gateways:
            self.wait_until_ready(gateway, *self.workers.values())
        until(
            "experiments can be read", lambda: all(Admin(g.admin_port).status()["problem"] is None for g in self.pair)
        )

    @property
    def pair(self) -> list[Gateway]:
        """The gateways that live."""
        return [gateway for gateway in self.gateways if gateway.child.ended() is None]

    def start_experimenting_gateway(self, *, wait: bool = True) -> Gateway:
        """Start a gateway that reads its experiments from Redis."""
        return self.start_gateway("--shutdown-grace-s", "0", wait=wait, stored_experiments=True)

    def start_worker(self, name: str) -> ChildProcess:
        """Start a worker, on the same port as before."""
        arguments = [sys.executable, "-m", "model_workers", "--repository", str(self.repository)]
        arguments += ["--port", str(self.worker_ports[name]), "--shutdown-grace-s", "0"]
        for version, worker in WORKER_OF.items():
            if worker == name:
                arguments += ["--model", f"{MODEL}@{version}"]
        # `env` becomes the worker: the process id is the worker's.
        self.workers[name] = ChildProcess(
            ["/usr/bin/env", f"PYTHONPATH={self.directory / 'installed'}", *arguments],
            log_file=self.directory / f"worker-{name}.log",
            directory=ROOT,
        )
        self.workers[name].start()
        return self.workers[name]


def questions() -> tuple[Question, ...]:
    """Ask for UNITS users, each with an amount of its own; an answer of any version is right."""
    return tuple(
        Question(
            path=f"/v1/models/{MODEL}:predict",
            body=f'{{"entities":{{"user":"u{n}"}},"features":{{"amount":{n}}}}}',
            expected={version: factor * n for version, factor in FACTORS.items()},
        )
        for n in range(UNITS)
    )
