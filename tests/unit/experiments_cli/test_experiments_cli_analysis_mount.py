"""The commands that the analysis brings: mounted late, told where they are missing, published where that is asked."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from analysis.errors import AnalysisError
from experiments_cli.analysis_mount import _RESULTS_MODULE
from settings import CommandLine
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

Write = Callable[..., str]


@pytest.fixture
def analysis(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Put something in the place of the analysis' commands that keeps the documents it is given."""
    given: list[Mapping[str, Any]] = []

    def add_results_options(parser: CommandLine) -> None:
        parser.option("--log", required=True, help="the log")
        parser.option("--json", help="where to", metavar="FILE")

    def run_results(experiment: Mapping[str, Any], arguments: argparse.Namespace, console: Console) -> int:
        given.append(experiment)
        if arguments.log == "absent":
            raise AnalysisError("absent: no rows of churn-q4")
        report = json.dumps({"experiment": experiment["experiment"], "effect": 0.021}) + "\n"
        if arguments.json == "-":
            sys.stdout.write(report)
            return 0
        if arguments.json is not None:
            Path(arguments.json).write_text(report)
        console.print("a table of effects")
        return 4

    def add_power_options(parser: CommandLine) -> None:
        parser.set_defaults(error=parser.error)
        parser.option("--mean", type=float, help="the mean")
        parser.option("--power", type=float, help="the chance to find it", metavar="X")
        parser.option("--json", help="where to", metavar="FILE")

    def plan_power(arguments: argparse.Namespace, console: Console, experiment: Mapping[str, Any] | None = None) -> int:
        name = experiment["experiment"] if experiment is not None else None
        console.print(f"{name}: mean {arguments.mean}, power {arguments.power}, json {arguments.json}")
        return 0

    module = SimpleNamespace(
        add_results_options=add_results_options,
        run_results=run_results,
        add_power_options=add_power_options,
        plan_power=plan_power,
    )
    monkeypatch.setitem(sys.modules, _RESULTS_MODULE, module)
    return given


def test_results_are_of_the_document_that_the_gateway_holds(
    admin: FakeAdmin, program: Program, analysis: list[Mapping[str, Any]]
):
    admin.put(document())
    done = program("results", "churn-q4", "--log", "log")
    assert (done.code, done.out) == (4, "a table of effects\n")
    assert analysis == [document()]
    assert admin.results == {}


def test_results_of_a_file_need_no_gateway(program: Program, analysis: list[Mapping[str, Any]], file: Write):
    path = file(document("other"), document(salt="8f", state="draft"))
    assert program("results", "churn-q4", "--log", "log", "--experiment-file", path).code == 4
    assert analysis[0]["salt"] == "8f"
    assert program.admin.requests == []
    done = program("results", "absent", "--log", "log", "--experiment-file", path)
    assert done.code == 2
    assert "has no experiment 'absent'; there are: other, churn-q4" in done.err


@pytest.mark.parametrize("to", [None, "-", "file"])
def test_published_results_go_to_the_gateway_and_where_json_says(
    admin: FakeAdmin, program: Program, analysis: list[Mapping[str, Any]], tmp_path: Path, to: str | None
):
    admin.put(document())
    path = tmp_path / "results.json"
    more = [] if to is None else ["--json", "-" if to == "-" else str(path)]
    done = program("results", "churn-q4", "--log", "log", "--publish", *more)
    assert done.code == 4
    assert admin.results == {"churn-q4": {"experiment": "churn-q4", "effect": 0.021}}
    assert (json.loads(done.out) if to == "-" else done.out) == (
        admin.results["churn-q4"] if to == "-" else "a table of effects\n"
    )
    assert path.exists() == (to == "file")
    assert "published: any gateway answers them" in done.err


def test_what_the_analysis_cannot_do_is_told(admin: FakeAdmin, program: Program, analysis: list[Mapping[str, Any]]):
    admin.put(document())
    done = program("results", "churn-q4", "--log", "absent")
    assert (done.code, done.err) == (1, "sekisho-experiments: absent: no rows of churn-q4\n")
    assert program("results", "churn-q4").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--power", "--mean", "0.5"], "None: mean 0.5, power None, json None\n"),
        (["--power", "0.9"], "None: mean None, power 0.9, json None\n"),
        (["--power=0.9", "--json"], "None: mean None, power 0.9, json -\n"),
    ],
)
def test_power_is_planned_without_a_path_and_without_a_gateway(
    program: Program, analysis: list[Mapping[str, Any]], arguments: list[str], said: str
):
    assert program("plan", *arguments).out == said
    assert program.admin.requests == []


def test_power_is_planned_for_each_experiment_of_a_file(
    program: Program, analysis: list[Mapping[str, Any]], file: Write
):
    one, two = file(document(), name="one.yaml"), file(document("a"), document("b", model="m"), name="two.yaml")
    assert program("plan", one, "--power").out == "churn-q4: mean None, power None, json None\n"
    assert program("plan", two, "--power").out.splitlines()[::2] == ["a", "b"]
    done = program("plan", two, "--power", "--json")
    assert done.code == 2
    assert "has 2 experiments: with --json give a file of one" in done.err


def test_power_that_is_no_number_is_refused(program: Program, analysis: list[Mapping[str, Any]]):
    assert program("plan", "--power", "high").code == 2


@pytest.mark.parametrize(
    "command", [["results", "churn-q4", "--log", "log"], ["plan", "--power"], ["replay-assignments", "--log", "log"]]
)
def test_where_the_analysis_is_not_installed_the_extra_is_named(
    program: Program, monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    for name in (_RESULTS_MODULE, "analysis.assignment_replay.replay_command"):
        monkeypatch.setitem(sys.modules, name, None)
    done = program(*command)
    assert done.code == 1
    assert "reads the prediction log, which needs analysis." in done.err
    assert "pip install 'sekisho[analysis]'" in done.err


def test_assignments_are_replayed_by_the_analysis(program: Program, tmp_path: Path):
    history = tmp_path / "trail.jsonl"
    history.write_text("")
    done = program("replay-assignments", "--log", str(tmp_path), "--history", str(history))
    assert done.code == 1
    assert done.err.startswith("sekisho-experiments: ")
    assert program("replay-assignments", "--log", str(tmp_path)).code == 2
