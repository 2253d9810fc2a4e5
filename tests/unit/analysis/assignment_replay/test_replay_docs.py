import re
from pathlib import Path

import pytest

from analysis.assignment_replay import add_replay_options
from analysis.assignment_replay.recomputation import Fault
from analysis.assignment_replay.replay_table import _FAULTS, _REASONS
from experiments import Reason
from settings import CommandLine

DOCS = (Path(__file__).parents[4] / "docs" / "replay-assignments.md").read_text(encoding="utf-8")


def test_every_option_is_in_the_docs_and_every_option_in_the_docs_exists():
    parser = CommandLine(prog="x", environment={})
    add_replay_options(parser)
    options = {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}
    documented = set(re.findall(r"^\| `(--.*?)` \|", DOCS, re.MULTILINE))
    assert {flag for flags in documented for flag in flags.split("`, `")} == options


@pytest.mark.parametrize("fault", Fault)
def test_every_class_of_mismatch_is_in_the_docs_and_has_words(fault):
    assert f"`{fault}`" in DOCS
    assert _FAULTS[fault]


def test_every_reason_that_a_row_can_have_has_words():
    assert set(_REASONS) == set(Reason) - {Reason.NO_UNIT}


def test_every_exit_code_is_in_the_docs():
    assert re.findall(r"^\| (\d) \|", DOCS, re.MULTILINE) == ["0", "1", "2", "5"]
