import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_cli.__main__ import command_line
from experiments_cli.errors import _ADVICE
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "experiments-cli.md"


def commands() -> dict[str, argparse.ArgumentParser]:
    return next(a.choices for a in command_line()._actions if isinstance(a, argparse._SubParsersAction))


@pytest.mark.parametrize("command", sorted(commands()))
def test_help_teaches_by_an_example_that_the_command_takes(program: Program, command: str, capsys):
    done = program(command, "--help")
    assert done.code == 0
    example = done.out.partition("example:\n")[2].strip()
    assert example.startswith(f"sekisho-experiments {command}")
    words = shlex.split(example, comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    command_line().parse_args(words[1:])


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_and_option_is_on_the_page(command: str):
    text = PAGE.read_text(encoding="utf-8")
    assert f"sekisho-experiments {command}" in text
    flags = {flag for action in commands()[command]._actions for flag in action.option_strings if flag.startswith("--")}
    settings = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert sorted(flag for flag in flags - {"--help"} if f"`{flag}" not in text and f"`{flag}`" not in settings) == []


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "4", "5"])
def test_every_exit_code_is_on_the_page(code: str):
    assert re.search(rf"^\| {code} \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["lst"], "invalid choice: 'lst'"),
        (["show"], "NAME"),
        (["show", "a/b"], "'a/b' is not a name"),
        (["show", "../admin"], "is not a name"),
        (["ramp", "e"], "SHARE"),
        (["apply"], "PATH"),
        (["stop", "e", "--winner", ""], "is not a name"),
        (["ramp", "e", "5%", "--wait-s", "601"], "give seconds from 0 to 600"),
        (["list", "--timeout-s", "0"], "give seconds from 0.01 to 600"),
        (["audit", "--limit", "0"], "give a whole number from 1"),
        (["list", "--yes"], "unrecognized arguments: --yes"),
    ],
)
def test_bad_usage_is_exit_code_2_and_says_what_was_wrong(program: Program, arguments: list[str], says: str):
    done = program(*arguments)
    assert done.code == 2
    assert says in done.err
    assert program.admin.requests == []


def test_options_may_be_variables(admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch):
    admin.put(document())
    admin.keys = {"sk_1": ("ci", {"admin"})}
    for name, text in (("KEY", "sk_1"), ("JSON", "yes"), ("NO_WAIT", "1"), ("DRY_RUN", "on")):
        monkeypatch.setenv(f"SEKISHO_{name}", text)
    found = program("ramp", "churn-q4", "5%").json
    assert (found["dry_run"], found["acknowledged"]) == (True, None)


def test_seeing_and_changing_experiments_imports_no_analysis_and_no_gateway():
    program = """
import sys
from experiments_cli.__main__ import main
try:
    main(["ramp", "--help"])
except SystemExit:
    pass
main(["schema"])
heavy = {"analysis", "duckdb", "scipy", "numpy", "pyarrow", "gateway", "contracts", "feature_store"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[]\n"


def test_a_reader_that_has_read_enough_is_no_error(admin: FakeAdmin):
    for i in range(300):
        admin.put(document(overrides={f"u{i}-{j}": "control" for j in range(40)}))
    command = f"{sys.executable} -m experiments_cli audit --limit 300 --url {admin.url} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_terminal_without_an_arrow_shows_what_it_is(admin: FakeAdmin):
    admin.put(document())
    admin.put(document(enrol_bp=2_000))
    done = subprocess.run(
        [sys.executable, "-m", "experiments_cli", "audit", "--url", admin.url],
        capture_output=True,
        cwd=ROOT,
        check=True,
        env={"PYTHONIOENCODING": "latin-1", "PATH": "/usr/bin:/bin"},
    )
    assert b"enrol_bp: 1000 \\u2192 2000" in done.stdout


def test_advice_is_for_codes_that_the_gateway_has():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert [code for code in _ADVICE if f"`{code}`" not in page] == []
