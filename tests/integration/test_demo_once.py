import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.gateway_stack import ROOT, free_ports

pytestmark = pytest.mark.integration

SECTIONS = [
    r"\d+ predictions, 0 failed, 0 degraded",
    r"latency at the client: p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms",
    r"control +50\.0% .* yes",
    r"treatment +50\.0% .* yes",
    r"as trained +control +1 +\d+ +\d+ +\d+\.\d%",
    r"shifted +treatment +2 +\d+ +\d+ +\d+\.\d%",
    r"no drift in \d+ rows",
    r"drift",
    r"Report with histograms: \S+/drift\.html",
    r"curl -s http://127\.0\.0\.1:\d+/v1/models/diagnosis:predict",
    r"done in \d+ s",
]


def demo(*flags: str, directory: Path, ports: list[int]) -> list[str]:
    gateway, admin, first, second = map(str, ports)
    command = [sys.executable, "-m", "demo", "--data-dir", str(directory), "--port", gateway, "--admin-port", admin]
    return [*command, "--worker-ports", first, second, *flags]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    command = demo("--once", directory=directory, ports=free_ports(4))
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "COLUMNS": "120"}
    )
    return run, directory


def test_the_demo_runs_once_and_exits_0(finished):
    run, _ = finished
    assert (run.returncode, run.stderr) == (0, ""), run.stdout


@pytest.mark.parametrize("section", SECTIONS)
def test_the_demo_prints_what_an_owner_wants_to_see(finished, section):
    run, _ = finished
    assert re.search(section, run.stdout), run.stdout


def test_the_demos_report_lies_where_it_says(finished):
    run, directory = finished
    path = Path(re.search(r"Report with histograms: (\S+)", run.stdout)[1])
    assert path.is_relative_to(directory)
    assert "<svg" in path.read_text(encoding="utf-8")


def test_no_process_of_a_finished_demo_is_left(finished):
    _, directory = finished
    assert processes_of(directory) == []


@pytest.mark.parametrize(("index", "flag"), [(1, "--admin-port"), (3, "--worker-ports")])
def test_a_taken_port_is_an_error_that_names_the_flag_that_moves_it(tmp_path, index, flag):

    ports = free_ports(4)
    with socket.create_server(("127.0.0.1", ports[index])):
        begun = time.monotonic()
        run = subprocess.run(
            demo("--once", directory=tmp_path, ports=ports), cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"port {ports[index]} " in run.stderr
    assert run.stderr.rstrip().endswith(flag)
    assert time.monotonic() - begun < 30


def test_a_directory_that_the_demo_did_not_make_is_left_alone(tmp_path):
    mine = tmp_path / "thesis.txt"
    mine.write_text("mine")
    command = demo("--once", directory=tmp_path, ports=free_ports(4))
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "--data-dir" in run.stderr
    assert mine.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def processes_of(directory: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                found.append(shlex.quote(command))
    return found
