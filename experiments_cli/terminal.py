"""Where a command prints, whom it asks, and what clocks it reads; and text that is safe to print."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 200
"""Columns of a table that does not go to a terminal, where nobody says how wide it may be."""

WIDTH_MIN: Final = 20
"""A terminal that is narrower still wraps by itself."""

INDENT: Final = 4
"""Of what is said below a heading."""

VALUE_CHARACTERS_MAX: Final = 100
"""How much of a value is shown to people; `--json` has all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What a command knows of its surroundings.

    out: what was asked for. err: progress, questions and faults. ask: puts a yes-or-no question; None where nobody is
    there to answer.
    """

    out: Console
    err: Console
    ask: Callable[[str], bool] | None
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]

    def say(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print text for people: wrapped for a terminal, a line each for a pipe.

        It is no markup, and holds nothing that a terminal would act on.
        """
        said = Text(plain(text), style=style)
        width = max(WIDTH_MIN, self.out.width - indent)
        for line in said.wrap(self.out, width) if self.out.is_terminal else said.split(allow_blank=True):
            line.rstrip()
            self.out.print(Text(" " * indent) + line, soft_wrap=True)

    def note(self, text: str, style: str = "yellow") -> None:
        """Print beside the output: what somebody should know, and no program reads."""
        self.err.print(Text(plain(text), style=style))

    def write(self, text: str) -> None:
        """Write text as it is, not wrapped: JSON and YAML."""
        self.out.file.write(text if text.endswith("\n") else text + "\n")

    def write_json(self, value: Any) -> None:
        """Write a JSON document."""
        self.write(json.dumps(value, ensure_ascii=False, indent=2, default=str))

    def records(self, names: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
        """Print a table; where the terminal is too narrow for it, each row as lines of `name  value`."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in names:
            table.add_column(name, overflow="fold")
        cells = [[_cell(value) for value in row] for row in rows]
        for row in cells:
            table.add_row(*row)
        if table.__rich_measure__(self.out, self.out.options.update(width=10_000)).maximum <= self.out.width:
            self.out.print(table)
            return
        width = max(map(len, names)) + 2
        for number, row in enumerate(cells):
            if number:
                self.out.print()
            block = Table.grid(padding=(0, 0))
            block.add_column(width=min(width, max(8, self.out.width // 3)), style="bold", overflow="fold")
            block.add_column(overflow="fold")
            for name, cell in zip(names, row, strict=True):
                if cell.plain:
                    block.add_row(name, cell)
            self.out.print(block)


def plain(text: str) -> str:
    r"""Return text with what is not printable escaped: data must not move a cursor, colour a line or hide in one."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(value: Any) -> str:
    """Return a value of a document as a person reads it, in one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = plain(text)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def moment(text: str) -> str:
    """Return a time of RFC 3339 to the second, in UTC; what is none as it is."""
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return plain(text)
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(plain(value))
