import re
from pathlib import Path
from typing import get_args

import pytest

from analysis.__main__ import command_line
from analysis.drift_report import FindingKind, Statistics, Verdict
from analysis.report_words import EXPLANATIONS, STATISTIC_FORMATS

DOCS = (Path(__file__).parents[3] / "docs" / "drift.md").read_text()


def options():
    (commands,) = (action for action in command_line()._actions if action.choices and not action.option_strings)
    # `replay-assignments` has a page of its own, and a test of it.
    parsers = [parser for name, parser in commands.choices.items() if name != "replay-assignments"]
    return {flag for parser in parsers for action in parser._actions for flag in action.option_strings} - {
        "-h",
        "--help",
    }


def test_every_option_is_in_the_docs_and_every_option_in_the_docs_exists():
    # `python tests/benchmarks/…` aside, what looks like a long flag is one.
    assert options() == set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*(?=[`\s,=])", DOCS))


@pytest.mark.parametrize("word", [*get_args(Verdict), *get_args(FindingKind), "PSI", "JS", "KS", "W/SD", "Chi²"])
def test_every_verdict_finding_and_statistic_is_in_the_docs(word):
    assert word in DOCS


def test_every_statistic_of_the_table_is_explained_in_the_page():
    assert set(STATISTIC_FORMATS) <= set(EXPLANATIONS)


def test_every_statistic_has_its_label_in_the_docs():
    assert all(f"`{name}`" in DOCS for name in set(Statistics.__struct_fields__) - {"psi_threshold"})
