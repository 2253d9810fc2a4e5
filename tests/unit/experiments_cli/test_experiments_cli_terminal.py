import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from experiments_cli.terminal import VALUE_CHARACTERS_MAX, Terminal, plain, shown
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin


def printed(width: int, show: Any, *, is_terminal: bool = True) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None, markup=False)
    terminal = Terminal(
        out=console, err=console, ask=None, now=lambda: datetime.now(UTC), monotonic=float, sleep=lambda _s: None
    )
    show(terminal)
    return file.getvalue().splitlines()


def test_a_table_that_fits_is_one():
    lines = printed(40, lambda t: t.records(["name", "model"], [["a", "churn"], ["b", "fraud"]]))
    assert [line.split() for line in lines] == [["name", "model"], ["a", "churn"], ["b", "fraud"]]


def test_where_it_does_not_fit_each_row_is_lines_of_its_own_without_what_is_empty():
    rows = [["a", "a long sentence", ""], ["b", "x", "y"]]
    lines = printed(20, lambda t: t.records(["name", "words", "note"], rows))
    assert [line.rstrip() for line in lines] == [
        "name   a",
        "words  a long",
        "       sentence",
        "",
        "name   b",
        "words  x",
        "note   y",
    ]


@pytest.mark.parametrize("width", [1, 5, 12])
def test_no_terminal_is_too_narrow(width: int):
    printed(width, lambda t: t.records(["name", "enrolment"], [["churn-q4", "10 %"]]))
    printed(width, lambda t: t.say("some words that are long", indent=4))


def test_what_is_said_is_wrapped_below_its_beginning():
    assert printed(24, lambda t: t.say("a sentence that does not fit", indent=4)) == [
        "    a sentence that does",
        "    not fit",
    ]


def test_a_pipe_gets_a_line_each():
    assert printed(24, lambda t: t.say("word " * 50, indent=4), is_terminal=False) == ["    " + "word " * 49 + "word"]


def test_an_empty_line_can_be_said():
    assert printed(24, lambda t: t.say(), is_terminal=False) == [""]


def test_data_is_no_markup():
    assert printed(60, lambda t: t.say("[red]x[/red] :smile: [link=file:///etc]")) == [
        "[red]x[/red] :smile: [link=file:///etc]"
    ]
    assert "[red]x" in printed(60, lambda t: t.records(["a"], [["[red]x"], [Text("[b]")]]))[1]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain é 試", "plain é 試"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\bc\x07", "a\\rb\\x08c\\x07"),
        ("two\nlines", "two\nlines"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, safe: str):
    assert plain(text) == safe


def test_a_value_is_shown_in_one_line_and_cut():
    assert shown("a\nb\x1b") == '"a\\nb\\u001b"'
    assert len(shown("x" * 1_000)) == VALUE_CHARACTERS_MAX


@pytest.mark.parametrize("columns", [30, 60])
def test_every_table_is_readable_in_a_narrow_terminal(admin: FakeAdmin, program: Program, columns: int):
    admin.put(document())
    for command in (["list"], ["explain", "p7"]):
        lines = program(*command, columns=columns).out.splitlines()
        assert max(map(len, lines[:8])) <= columns
        assert any(line.split()[:2] == ["model", "churn"] for line in lines)


def test_nothing_is_coloured_where_there_is_no_terminal(admin: FakeAdmin, program: Program):
    admin.put(document())
    assert "\x1b" not in program("list").out


def test_no_color_is_respected_in_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, markup=False)
    terminal = Terminal(out=console, err=console, ask=None, now=datetime.now, monotonic=float, sleep=lambda _s: None)
    terminal.say("KILLED", "bold red")
    assert "31m" not in file.getvalue()
