"""A million hostile requests at both ports of a gateway of its own: `python -m tests.hostile --requests 1000000`.

Exit code 0 where nothing was answered as it must not be, no good caller was harmed, and nothing was left behind.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.fault.marked_page import DOCS, write_between
from tests.hostile.siege import besiege
from tests.hostile.siege_report import print_siege, siege_in_words
from tests.integration.gateway_stack import Stack, lines_of_errors

PAGE = DOCS / "reliability.md"
LINE_CHARACTERS = 180
"""Of what is printed into a file."""


def main() -> int:
    """Besiege, and print what became of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="how many, 1,000,000 if not given")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn")
    parser.add_argument("--save", action="store_true", help=f"write the result into {PAGE.name} too")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else LINE_CHARACTERS)
    columns = (
        TextColumn("hostile requests"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with tempfile.TemporaryDirectory(prefix="sekisho-hostile-") as directory:
        stack = Stack(Path(directory))
        try:
            stack.start()
            with Progress(*columns, console=console) as progress:
                task = progress.add_task("", total=given.requests)
                result = besiege(
                    stack, given.requests, given.seed, lambda count: progress.update(task, completed=count)
                )
            told = lines_of_errors(stack.directory / "gateway-0.log")
            lives = stack.gateway.child.ended() is None
        finally:
            stack.stop()
    print_siege(console, result, told, lives=lives)
    if given.save:
        write_between(PAGE, "siege", siege_in_words(result))
    return 0 if lives and not told and not result.harm else 1


if __name__ == "__main__":
    sys.exit(main())
