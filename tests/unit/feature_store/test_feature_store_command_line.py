import re
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store import FeatureStatus
from feature_store.__main__ import command_line, main
from feature_store.dtypes import Dtype

REPOSITORY = Path(__file__).parents[3]
COMMANDS = ("apply", "load", "get", "check")
URL = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["remove"], "invalid choice"),
        (["apply", "features.yaml"], "--redis is required (or set SEKISHO_REDIS)"),
        (["apply", "--redis", "localhost", "features.yaml"], "begins with redis://"),
        (["apply", "--redis", URL], "features.yaml"),
        (["load", "--redis", URL, "rows.csv"], "--view is required (or set SEKISHO_VIEW)"),
        (["load", "--redis", URL, "--view", "v", "--chunk-rows", "0", "rows.csv"], "from 1 to 100000"),
        (["get", "--redis", URL, "p7"], "patient=p7"),
        (["get", "--redis", URL, "patient="], "patient=p7"),
        (["check", "--redis", URL, "--max-stale-share", "2"], "not a share from 0 to 1"),
        (["check", "--redis", URL, "--sample", "none"], "from 1 to 100000"),
        (["check", "--redis", URL, "--since", "1h"], "unrecognized arguments"),
    ],
)
def test_bad_usage_is_exit_code_2_and_says_what_was_wrong(arguments, says, monkeypatch, capsys):
    for name in ("SEKISHO_REDIS", "SEKISHO_VIEW"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_every_option_is_in_the_documentation(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line().parse_args([command, "--help"])
    assert caught.value.code == 0
    page = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert "--redis" in options
    assert [option for option in sorted(options) if f"`{option}" not in page] == []


def test_every_status_and_dtype_is_in_the_documentation():
    page = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    names = [*(status.name for status in FeatureStatus), *(dtype.value for dtype in Dtype)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_importing_the_store_imports_neither_pyarrow_nor_rich():
    program = "import sys, feature_store; print(sorted({'pyarrow', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "[]\n"
