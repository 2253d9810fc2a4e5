import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from analysis.experiment_results.commands import (
    add_power_options,
    add_results_options,
    plan_power,
    run_results,
)
from analysis.experiment_results.report import Verdict
from settings import CommandLine
from tests.unit.analysis.experiment_results.experiment_logs import (
    DAY_US,
    START_US,
    document,
    simple_experiment,
)

DOCS = (Path(__file__).parents[4] / "docs" / "results.md").read_text(encoding="utf-8")


def arguments(add, *given):
    parser = CommandLine(prog="sekisho-experiments results", environment={})
    add(parser)
    return parser.parse_args(list(map(str, given)))


def results(doc, *given):
    return run_results(doc, arguments(add_results_options, *given), Console(width=120))


def power(*given, doc=None):
    return plan_power(arguments(add_power_options, *given), Console(width=120), doc)


def flags(add):
    parser = CommandLine(prog="x", environment={})
    add(parser)
    return {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}


def test_results_are_shown_and_written_and_exit_with_0(logs, tmp_path, capsys):
    simple_experiment(logs, np.random.default_rng(1), units=400)
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    assert results(document(), "--log", logs.root, "--html", page, "--json", report) == 0
    assert "treatment against control" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(report.read_bytes())["experiment"] == "exp"


def test_a_dash_writes_json_in_place_of_the_table_and_a_mismatch_exits_with_4(logs, capsys):
    arms = ["control"] * 300 + ["treatment"] * 100
    logs.rows([f"u{n}" for n in range(400)], arms, START_US)
    assert results(document(), "--log", logs.root, "--json", "-") == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["effects_hidden"], report["metrics"]) == (True, [])
    assert results(document(), "--log", logs.root, "--show-despite-srm") == 4


def test_a_log_that_is_not_there_exits_with_1_and_says_what_to_give(tmp_path, capsys):
    assert results(document(), "--log", tmp_path / "absent") == 1
    assert "is not a directory; give the prediction log's root" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_exits_with_1(logs, tmp_path, capsys):
    simple_experiment(logs, np.random.default_rng(2), units=100)
    assert results(document(), "--log", logs.root, "--html", tmp_path / "absent" / "page.html") == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_wrong_document_exits_with_2_and_names_the_key(tmp_path, capsys):
    assert results(document(metrics={}), "--log", tmp_path) == 2
    assert "the experiment's document: metrics.primary: is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "--log is required"),
        (["--log", "x", "--from", "yesterday"], "'yesterday' is not a time: write 2026-10-31T09:00:00Z"),
        (["--log", "x", "--from", "2026-01-02", "--to", "2026-01-01"], "is not before --to"),
        (["--log", "x", "--rows-served", "0"], "'0': give a whole number from 1"),
        (["--log", "x", "--score-tolerance", "nan"], "'nan': give a number from 0"),
    ],
)
def test_bad_usage_of_results_exits_with_2_and_says_what_to_give(given, problem, capsys):
    with pytest.raises(SystemExit) as exit_info:
        results(document(), *given)
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "give either --log, or --mean and --sd"),
        (["--mean", 1], "--mean and --sd go together"),
        (["--mean", 1, "--sd", 1, "--log", "x"], "give either --log"),
        (["--log", "x"], "--log needs --model and --metric"),
        (["--mean", 1, "--sd", 1, "--shares", 0.5], "at least two"),
        (["--mean", 1, "--sd", 1, "--shares", 0.9, 0.2], "of a sum of at most 1"),
        (["--mean", 1, "--sd", 1, "--power", 2], "give a number from"),
        (["--log", "x", "--metric", "score", "--of", "per_unit", "--model", "m"], "a mean over the logged rows"),
    ],
)
def test_bad_usage_of_power_exits_with_2_and_says_what_to_give(given, problem, capsys):
    with pytest.raises(SystemExit) as exit_info:
        power(*given)
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_plan_by_hand_says_units_by_arm_and_days(capsys):
    assert power("--mean", 0.2, "--sd", 0.4, "--mde-rel", 0.05, "--shares", 0.9, 0.1, "--units-per-day", 5_000) == 0
    shown = capsys.readouterr().out
    assert "takes 139,536 units, about 28 days (control 125,583, treatment 1 13,954)" in shown


def test_a_plan_for_what_cannot_be_found_says_so(capsys):
    assert power("--mean", 0, "--sd", 0.4) == 0
    assert "cannot be found with any number of units" in capsys.readouterr().out


def test_a_plan_reads_mean_deviation_and_rate_from_the_log(logs, capsys):
    rng = np.random.default_rng(3)
    day = np.repeat(np.arange(4), 500)
    unit = np.where(rng.random(2_000) < 0.5, np.arange(2_000), rng.integers(0, 300, 2_000))
    names = np.array([f"u{n}" for n in range(2_000)])
    value = rng.exponential(size=2_000)
    logs.rows(names[unit], None, START_US + day * DAY_US, assignment_probability=None, experiment=None, score=value)
    logs.rows(names[:50], None, START_US - 30 * DAY_US, score=1e9)  # before those days
    assert power("--log", logs.root, "--model", "diagnosis", "--metric", "score", "--days", 4, "--json", "-") == 0
    plan = json.loads(capsys.readouterr().out)
    by_unit = pa.table({"u": unit, "v": value}).group_by("u").aggregate([("v", "sum"), ("v", "count")])
    n, d = (by_unit.column(name).to_numpy().astype("f8") for name in ("v_sum", "v_count"))
    ratio = n.sum() / d.sum()
    assert plan["mean"] == pytest.approx(ratio)
    assert plan["deviation"] == pytest.approx(np.std((n - ratio * d) / d.mean(), ddof=1), rel=1e-3)
    assert plan["baseline_units"] == len(np.unique(unit))
    assert plan["units_per_day"] == pytest.approx(len(np.unique(unit)) / 4)
    assert all(size["days"] is None or size["days"] > 0 for size in plan["sizes"])


def test_a_plan_takes_from_the_document_what_no_flag_says(logs, capsys):
    simple_experiment(logs, np.random.default_rng(4), units=400)
    doc = document(metrics={"primary": "correct", "mde_rel": 0.2, "power": 0.9}, enrol_bp=5_000)
    assert power("--log", logs.root, "--json", "-", doc=doc) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["metric"], plan["mde_rel"], plan["power"]) == ("correct", 0.2, 0.9)
    assert plan["arms"] == ["control", "treatment"]
    # The rows span five days of fourteen; half of the units take part.
    assert plan["units_per_day"] == pytest.approx(plan["baseline_units"] / 14 / 2)


def test_a_log_that_says_too_little_to_plan_by_exits_with_1(logs, capsys):
    logs.rows(["a", "b"], "control", START_US)
    assert power("--log", logs.root, "--model", "diagnosis", "--metric", "score") == 1
    assert "2 units in 14 days of the log; give --mean and --sd" in capsys.readouterr().err


@pytest.mark.parametrize("add", [add_results_options, add_power_options])
def test_every_option_is_in_the_docs(add):
    assert all(f"`{flag}`" in DOCS for flag in flags(add))


def test_every_verdict_and_exit_code_is_in_the_docs():
    assert all(f"`{verdict}`" in DOCS for verdict in msgspec.inspect.type_info(Verdict).values)
    assert all(re.search(rf"^\| {code} \|", DOCS, re.MULTILINE) for code in (0, 1, 2, 4))
