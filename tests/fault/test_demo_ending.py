import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import ROOT, free_ports

pytestmark = pytest.mark.fault

SERVES_WITHIN_S = 60.0


class Demo:
    """A demo that serves on, and what it has printed so far."""

    def __init__(self, directory: Path) -> None:
        self.ports = free_ports(4)
        self.output = directory / "output.txt"
        gateway, admin, *workers = map(str, self.ports)
        command = [sys.executable, "-m", "demo", "--data-dir", str(directory / "data"), "--port", gateway]
        command += ["--admin-port", admin, "--worker-ports", *workers]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "120"}
            )

    @property
    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def wait_until_it_serves(self) -> list[psutil.Process]:
        """Wait for the last line of its story. Returns its children."""
        until("the demo serves", lambda: self._lives() and "serving until Ctrl-C" in self.printed, SERVES_WITHIN_S)
        return self._children()

    def wait_for_children(self) -> list[psutil.Process]:
        """Wait until Redis, two workers and the gateway have been started, and return them."""
        until("all children were started", lambda: self._lives() and len(self._children()) == 4, SERVES_WITHIN_S)
        return self._children()

    def _lives(self) -> bool:
        assert self.process.poll() is None, self.printed
        return True

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def demo(tmp_path):
    running = Demo(tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def none_lives(children: list[psutil.Process]) -> bool:
    return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_the_demo_serves_what_it_prints_survives_a_worker_and_ends_with_all_its_children_on_ctrl_c(demo):
    children = demo.wait_until_it_serves()
    curl = next(line for line in demo.printed.splitlines() if line.startswith("curl") and ":predict" in line)
    words = shlex.split(curl)
    assert words[:2] == ["curl", "-s"]
    assert f":{demo.ports[0]}/" in words[2]
    with Client(demo.ports[0]) as client:
        name, value = words[words.index("-H") + 1].split(": ")
        path = re.sub(r"http://[^/]+", "", words[2])
        reply = client.ask("POST", path, words[words.index("-d") + 1].encode(), {name: value})
    assert (reply.status, len(reply.json["predictions"])) == (200, 1)

    worker = next(c for c in children if "diagnosis@2" in c.cmdline())
    worker.send_signal(signal.SIGKILL)
    until("the death is told", lambda: "worker-2" in demo.printed and "SIGKILL" in demo.printed)
    with Client(demo.ports[0]) as client:
        replies = [client.predict("diagnosis", {"entities": {"patient": f"p{n}"}}) for n in range(40)]
    assert {reply.status for reply in replies} == {200}
    assert {tuple(reply.json["degraded"]) for reply in replies} == {(), ("variant_fallback",)}

    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(30) == 0
    until("every child has ended", lambda: none_lives(children), 10)
    assert "Traceback" not in demo.printed


def test_no_child_outlives_a_demo_that_is_killed(demo):
    children = demo.wait_for_children()
    demo.process.kill()
    demo.process.wait()
    until("every child has ended", lambda: none_lives(children), 15)


def test_sigterm_in_the_middle_of_its_story_ends_a_demo_and_all_its_children(demo):
    children = demo.wait_for_children()
    demo.process.terminate()
    assert demo.process.wait(30) == 0
    until("every child has ended", lambda: none_lives(children), 10)
    assert "Traceback" not in demo.printed


def test_a_demo_whose_gateway_died_says_so_and_ends_in_failure_with_all_its_children(demo):
    children = demo.wait_until_it_serves()
    next(c for c in children if c.cmdline()[1:3] == ["-m", "gateway"]).send_signal(signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "gateway (process" in demo.printed
    assert "SIGKILL" in demo.printed
    until("every child has ended", lambda: none_lives(children), 10)
