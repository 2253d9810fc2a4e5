"""`sekisho-experiments` against a running gateway: an experimenter sets a split, ramps it, reads it and stops it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.experiments_admin import Admin, experimenting
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import ROOT, Gateway, Stack

pytestmark = pytest.mark.integration

DOCUMENT = """\
experiment: {name}
model: ranking
unit: user
state: running
enrol_bp: 1000
layer: {{name: {name}}}
variants:
  - {{name: control, version: "1", bp: 5000}}
  - {{name: treatment, version: "2", bp: {treatment}}}
metrics: {{primary: score}}
"""


class Console:
    """Runs the program as an experimenter does."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self._gateway, self.directory = gateway, directory
        self.output = self.errors = ""

    def run(self, *arguments: str) -> int:
        """Run one command. Returns its exit code."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SEKISHO_")}
        variables |= {"SEKISHO_URL": f"http://127.0.0.1:{self._gateway.admin_port}", "SEKISHO_REASON": "a test"}
        done = subprocess.run(
            [sys.executable, "-m", "experiments_cli", *arguments],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.output, self.errors = done.stdout, done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode

    def file(self, name: str, treatment: int = 5_000) -> str:
        """Write one experiment's file."""
        path = self.directory / f"{name}.yaml"
        path.write_text(DOCUMENT.format(name=name, treatment=treatment))
        return str(path)


@pytest.fixture(scope="module")
def stored(stack: Stack) -> Gateway:
    return stack.gateway_with_stored_experiments


@pytest.fixture
def admin(stored: Gateway) -> Iterator[Admin]:
    with experimenting(stored.admin_port) as found:
        yield found


@pytest.fixture
def console(admin: Admin, stored: Gateway, tmp_path: Path) -> Console:
    return Console(stored, tmp_path)


def test_a_split_is_planned_applied_ramped_explained_audited_and_stopped(console: Console):
    file = console.file("cli-life")
    assert console.run("plan", file) == 3
    assert "create" in console.output
    assert console.run("apply", file, "--yes") == 0
    assert console.run("plan", file) == 0
    assert console.run("ramp", "cli-life", "20%", "--reason", "wächst: 試験") == 0
    assert "10 %" in console.output
    assert console.run("explain", "u1", "--json") == 0
    assert {d["experiment"] for d in json.loads(console.output)["decisions"]} >= {"cli-life"}
    assert console.run("stop", "cli-life", "--winner", "treatment") == 0
    assert console.run("audit", "cli-life") == 0
    assert "wächst: 試験" in console.output
    assert console.output.count("put cli-life") == 3


def test_a_file_that_is_wrong_is_refused_with_its_line_and_nothing_is_changed(console: Console, admin: Admin):
    assert console.run("apply", console.file("cli-wrong", treatment=4_999), "--yes") == 2
    assert "cli-wrong.yaml:7" in console.errors
    assert "9999" in console.errors
    assert admin.ask("GET", "/admin/v1/experiments/cli-wrong").status == 404


def test_the_kill_switch_sends_everybody_to_the_default_version_and_back(console: Console, stored: Gateway):
    assert console.run("apply", console.file("cli-kill"), "--yes") == 0
    assert console.run("kill", "ranking", "--yes") == 0
    with stored.client() as client:
        asked = [client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}}).json for n in range(20)]
        assert {(answer["version"], answer["experiment"]) for answer in asked} == {("1", None)}
    assert console.run("unkill", "ranking", "--yes") == 0


def test_results_of_the_log_are_published_and_its_assignments_replayed(console: Console, admin: Admin, stored: Gateway):
    assert console.run("apply", console.file("cli-results"), "--yes") == 0
    assert console.run("ramp", "cli-results", "100%") == 0
    with stored.client() as client:
        for n in range(60):
            assert client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}}).status == 200
    stored.wait_for_log()
    log = str(stored.log_directory)
    page = console.directory / "results.html"
    assert console.run("results", "cli-results", "--log", log, "--html", str(page), "--publish") == 0
    assert "cli-results" in page.read_text()
    published = admin.ask("GET", "/admin/v1/experiments/cli-results/results").json["results"]
    assert published["experiment"] == "cli-results"
    history = console.directory / "history.jsonl"
    assert console.run("audit", "--export", str(history)) == 0
    until("the trail is written", history.exists)
    assert console.run("replay-assignments", "--log", log, "--model", "ranking", "--history", str(history)) == 0
