"""`sekisho-analysis replay-assignments`: what it prints and writes, and its exit codes."""

import io
import json

import pytest
from rich.console import Console

from analysis.__main__ import main
from analysis.assignment_replay import add_replay_options, render_replay, replay_assignments
from settings import CommandLine
from tests.unit.analysis.assignment_replay.logged_history import Rows, document


@pytest.fixture
def written(place):
    """A log of three explained rows, its history, and the arguments that name both."""
    experiment = place.history.put(document())
    for unit in ("u1", "u2", "u\x1b[2J"):
        place.rows.answer([experiment], unit)
    place.rows.answer([], "u1")
    place.replay()
    return place, ["--log", str(place.root), "--history", str(place.root / "audit.jsonl")]


def tamper(place, **change):
    """Log one more row, with a value that is wrong."""
    place.rows = Rows()
    place.rows.answer([next(iter(place.history.register.entries.values())).experiment], "u\x1b[2J", **change)
    place.rows.write(place.root)


def test_a_log_that_is_explained_exits_with_0_and_says_so(written, capsys):
    assert main(["replay-assignments", *written[1]]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "Every assignment is explained: 4 rows, no mismatch\n3 rows name an experiment, by 1 revision; 1 none."
    )
    assert "drawn by the split" in out


def test_a_mismatch_exits_with_5_and_is_shown_with_its_row_and_nothing_that_moves_a_cursor(written, capsys):
    place, arguments = written
    tamper(place, epoch=7)
    assert main(["replay-assignments", *arguments]) == 5
    out = capsys.readouterr().out
    assert out.startswith("1 mismatch in 5 rows\n")
    assert "another epoch than the revision's: 1 row\n" in out
    assert "\x1b" not in out
    assert r"u\x1b[2J" in out
    assert "p000000000" in out


def test_json_goes_to_a_file_beside_the_table_or_to_standard_output_alone(written, capsys):
    place, arguments = written
    tamper(place, split_bucket=1)
    path = place.root / "report.json"
    assert main(["replay-assignments", *arguments, "--json", str(path)]) == 5
    assert capsys.readouterr().out.startswith("1 mismatch in")
    assert main(["replay-assignments", *arguments, "--json", "-"]) == 5
    for report in (json.loads(path.read_bytes()), json.loads(capsys.readouterr().out)):
        assert (report["schema_version"], report["rows"], report["mismatches"]) == (1, 5, 1)
        (wrong,) = report["mismatch_classes"]
        assert (wrong["name"], wrong["count"]) == ("split_bucket", 1)
        (example,) = wrong["examples"]
        assert (example["prediction_id"], example["unit"]) == ("p000000000", "u\x1b[2J")
        assert (example["logged"]["split_bucket"], example["at"]) == (1, "2026-01-01T10:00:00Z")


def test_history_may_be_given_several_times_and_with_several_paths(written):
    place, arguments = written
    (place.root / "e.yaml").write_text(json.dumps(document("f")))
    assert main(["replay-assignments", *arguments, "--history", str(place.root / "e.yaml"), arguments[-1]]) == 0


def test_settings_come_from_the_environment_and_the_flag_wins(written, monkeypatch):
    _, arguments = written
    monkeypatch.setenv("SEKISHO_LOG", arguments[1])
    monkeypatch.setenv("SEKISHO_HISTORY", f"{arguments[3]} {arguments[3]}")
    assert main(["replay-assignments"]) == 0
    monkeypatch.setenv("SEKISHO_HISTORY", "absent.jsonl")
    assert main(["replay-assignments"]) == 1
    assert main(["replay-assignments", "--history", arguments[3]]) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "--log is required (or set SEKISHO_LOG)"),
        (["--log", "predictions"], "--history is required (or set SEKISHO_HISTORY)"),
        (["--log", "x", "--history", "x", "--from", "soon"], "'soon' is not a time: write 2026-10-31T09:00:00Z"),
        (["--log", "x", "--history", "x", "--from", "2026-01-02", "--to", "2026-01-01"], "is not before --to"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_give(arguments, problem, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["replay-assignments", *arguments])
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (["--log", "absent"], "is not a directory"),
        (["--history", "absent.jsonl"], "absent.jsonl:1: cannot be read"),
        (["--model", "absent"], "no rows of model 'absent'"),
        (["--from", "2027-01-01"], "no rows of model 'm' from 2027-01-01T00:00:00+00:00 to now"),
        (["--from", "2026-01-01T10:30Z"], "no rows of model 'm' from 2026-01-01T10:30:00+00:00 to now"),
        (["--json", "absent/report.json"], "No such file or directory"),
    ],
)
def test_what_cannot_be_done_exits_with_1_and_one_line(written, change, problem, capsys):
    assert main(["replay-assignments", *written[1], *change]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line


def test_a_damaged_log_exits_with_1_and_names_the_file(written, capsys):
    place, arguments = written
    (path,) = place.root.glob("predictions/*/*/*/*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["replay-assignments", *arguments]) == 1
    assert "host-boot-000000.parquet: is not a readable Parquet file" in capsys.readouterr().err


def test_another_program_can_mount_the_command(written):
    parser = CommandLine(prog="sekisho-experiments", environment={})
    added = parser.add_subparsers(required=True).add_parser("replay-assignments")
    add_replay_options(added)
    arguments = parser.parse_args(["replay-assignments", *written[1]])
    out = io.StringIO()
    assert replay_assignments(arguments, Console(file=out, width=100)) == 0
    assert out.getvalue().startswith("Every assignment is explained")


def test_a_terminal_is_shown_a_bar_which_is_gone_in_the_end(written):
    parser = CommandLine(prog="x", environment={})
    add_replay_options(parser)
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, legacy_windows=False)
    assert replay_assignments(parser.parse_args(written[1]), console) == 0
    assert "4/4" in out.getvalue()
    assert out.getvalue().index("4/4") < out.getvalue().index("Every assignment is explained")


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_is_read_at_80_columns(written, width):
    place, _ = written
    tamper(place, variant_assigned="control" * 5, version="9" * 30)
    out = io.StringIO()
    Console(file=out, width=width).print(render_replay(place.again()))
    assert max(map(len, out.getvalue().splitlines())) <= width
    assert "Recomputed" in out.getvalue()
