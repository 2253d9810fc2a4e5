"""The running system: Redis, a worker a version and the gateway, as children of this process."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.configuration import ConfigurationFiles
from demo.served_model import MODEL
from feature_store import EmbeddedRedis
from settings.child_process import ChildProcess
from settings.ports import PortTaken, refuse_taken_port
from settings.yaml_file import read_yaml_documents

READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
LOG_FILE_SECONDS: Final = 1.0
"""Files of the prediction log close this often, so that the demo need not wait to read them."""

LOG_TIMEOUT_S: Final = 20.0
ANSWER_TIMEOUT_S: Final = 5.0

_NEW_EXPERIMENT: Final = {
    "content-type": "application/json",
    "if-none-match": "*",
    "x-sekisho-actor": "sekisho-demo",
    "x-sekisho-reason": "the demo begins",
}


class SystemFailed(Exception):
    """A part of the system did not start or did not answer; the message says which, and where its log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where everything listens, on loopback."""

    gateway: int
    admin: int
    workers: tuple[int, int]

    def refuse_taken(self) -> None:
        """Raise PortTaken for the first port that another program has, with the flag that moves it."""
        refuse_taken_port(self.gateway, "--port")
        refuse_taken_port(self.admin, "--admin-port")
        for port in self.workers:
            refuse_taken_port(port, "--worker-ports")


class DemoSystem:
    """Start it with `start_redis` and `start_servers`; `stop` ends every child, the gateway first."""

    def __init__(self, directory: Path, ports: Ports) -> None:
        self.directory, self.ports = directory, ports
        self._redis = EmbeddedRedis(directory / "redis")
        self._redis_told = False
        self.children: dict[str, ChildProcess] = {}
        self.log_directory = directory / "log"

    @property
    def redis_url(self) -> str:
        """How to reach the feature store."""
        return self._redis.url

    def start_redis(self) -> None:
        """Start the feature store."""
        self._redis.start()

    def start_servers(self, repository: Path, files: ConfigurationFiles) -> None:
        """Start the workers and the gateway, and wait until every version can answer. Raises SystemFailed."""
        for version, port in zip(("1", "2"), self.ports.workers, strict=True):
            arguments = ["--repository", str(repository), "--model", f"{MODEL}@{version}", "--port", str(port)]
            arguments += ["--shutdown-grace-s", "0"]
            self._start(f"worker-{version}", "model_workers", arguments)
        gateway = ["--config", str(files.models), "--redis", self.redis_url]
        gateway += ["--port", str(self.ports.gateway), "--admin-port", str(self.ports.admin)]
        gateway += ["--log-dir", str(self.log_directory), "--log-file-seconds", str(LOG_FILE_SECONDS)]
        gateway += ["--state-dir", str(self.log_directory.with_name("state")), "--shutdown-grace-s", "0"]
        self._start("gateway", "gateway", gateway)
        self._wait("every version can answer", READY_TIMEOUT_S, self._all_ready)
        self._apply(files.experiments)

    def wait_for_log(self) -> None:
        """Wait until every offered row lies in a closed Parquet file. Raises SystemFailed."""
        self._wait("the prediction log is on disk", LOG_TIMEOUT_S, self._log_is_closed)

    def status(self) -> dict[str, Any]:
        """Read the gateway's status page. Raises OSError where it does not answer."""
        url = f"http://127.0.0.1:{self.ports.admin}/admin/v1/status"
        with urllib.request.urlopen(url, timeout=2) as answer:
            status: dict[str, Any] = json.load(answer)
            return status

    @property
    def is_served(self) -> bool:
        """Whether there is a gateway; without one the rest is of no use."""
        return "gateway" in self.children

    def newly_dead(self) -> list[str]:
        """Name, once each, the children that have ended on their own."""
        found = []
        for name, child in list(self.children.items()):
            ending = child.ended()
            if ending is not None:
                del self.children[name]
                found.append(f"{name} (process {child.pid}) died: {ending}; its log: {child.log_file}")
        ending = self._redis.ended()
        if ending is not None and not self._redis_told:
            self._redis_told = True
            found.append(f"redis died: {ending}; features fall back to their defaults; its log: {self._redis.log_file}")
        return found

    def stop(self) -> None:
        """End every child. The gateway goes first, so that its last requests still find workers."""
        for name in ("gateway", "worker-1", "worker-2"):
            if name in self.children:
                self.children.pop(name).stop()
        self._redis.stop()

    def _apply(self, experiments: Path) -> None:
        """Make the experiments, as `sekisho-experiments apply` would. Raises SystemFailed."""
        for document in read_yaml_documents(experiments, dict[str, Any]):
            url = f"http://127.0.0.1:{self.ports.admin}/admin/v1/experiments/{document['experiment']}"
            request = urllib.request.Request(url, json.dumps(document).encode(), _NEW_EXPERIMENT, method="PUT")
            try:
                urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S).close()  # noqa: S310 - an http address
            except OSError as error:
                told = error.read().decode() if isinstance(error, urllib.error.HTTPError) else str(error)
                raise SystemFailed(f"the gateway does not take the experiment: {told}") from error

    def _start(self, name: str, module: str, arguments: list[str]) -> None:
        # By module, not by script: the demo also runs from a source tree whose scripts are not installed.
        log_file = self.directory / "logs" / f"{name}.log"
        child = ChildProcess([sys.executable, "-m", module, *arguments], log_file=log_file)
        child.start()
        self.children[name] = child

    def _wait(self, what: str, timeout_s: float, holds: Callable[[], bool]) -> None:
        give_up = time.monotonic() + timeout_s
        while not holds():
            for name, child in self.children.items():
                ending = child.ended()
                if ending is not None:
                    raise SystemFailed(
                        f"{name} ended ({ending}) before {what}. {child.log_file} ends:\n{child.last_lines()}"
                    )
            if time.monotonic() > give_up:
                raise SystemFailed(
                    f"gave up after {timeout_s:g} s waiting until {what}; logs: {self.directory / 'logs'}"
                )
            time.sleep(POLL_S)

    def _all_ready(self) -> bool:
        try:
            versions = self.status()["models"][MODEL]["versions"]
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return False
        return all(version["ready"] for version in versions.values())

    def _log_is_closed(self) -> bool:
        try:
            log = self.status()["log"]
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return False
        return bool(log["rows_pending"] == 0 and log["rows_in_open_files"] == 0)


__all__ = ["DemoSystem", "PortTaken", "Ports", "SystemFailed"]
