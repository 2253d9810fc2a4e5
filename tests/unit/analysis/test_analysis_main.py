import numpy as np
import pyarrow as pa
import pytest

from analysis import encode_profile, make_profile
from analysis.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give either --baseline, or --reference-from and --reference-to"),
        (["--reference-from", "2026-01-01"], "needs both --reference-from and --reference-to"),
        (["--baseline", "x.json", "--from", "yesterday"], "'yesterday' is not a time: write 2026-10-31T09:00:00Z"),
        (["--baseline", "x.json", "--from", "2026-01-02", "--to", "2026-01-01"], "is not before --to"),
        (["--baseline", "x.json", "--threshold-psi", "nan"], "'nan': give a number from 0 to 100"),
        (["--baseline", "x.json", "--by", "city"], "invalid choice: 'city'"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_give(arguments, problem, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["drift", "--log", "predictions", "--model", "diagnosis", *arguments])
    assert exit_info.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("command", [["drift"], ["profile"], []])
def test_a_command_without_what_it_needs_exits_with_2(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert exit_info.value.code == 2
    assert "required" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_exits_with_1_and_names_the_file(log, tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=200)
    log.write({"v.x": values})
    baseline = tmp_path / "profile.json"
    baseline.write_bytes(encode_profile(make_profile(pa.table({"v.x": values}), model="diagnosis")))
    page = tmp_path / "absent" / "drift.html"
    arguments = ["drift", "--log", str(log.root), "--model", "diagnosis", "--baseline", str(baseline)]
    assert main([*arguments, "--html", str(page)]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_a_log_that_is_not_there_exits_with_1(tmp_path, capsys):
    baseline = tmp_path / "profile.json"
    baseline.write_bytes(encode_profile(make_profile(pa.table({"v.x": [1.0]}), model="diagnosis")))
    absent = str(tmp_path / "absent")
    assert main(["drift", "--log", absent, "--model", "diagnosis", "--baseline", str(baseline)]) == 1
    assert "is not a directory" in capsys.readouterr().err
