"""`replay-assignments`: its options, and what it does with them."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from analysis.assignment_replay.replay import Progress as Told
from analysis.assignment_replay.replay import replay
from analysis.assignment_replay.replay_report import ReplayReport, encode_replay
from analysis.assignment_replay.replay_table import render_replay
from analysis.moment import read_moment
from analysis.whole_file import write_whole
from settings import CommandLine

EXPLAINED: Final = 0
MISMATCHES: Final = 5

STANDARD_OUTPUT: Final = "-"


def add_replay_options(parser: CommandLine) -> None:
    """Add the options of `replay_assignments` to a command's parser."""
    parser.set_defaults(error=parser.error)
    log_help = "the predictions root, or the directory that holds it as predictions/"
    parser.option("--log", help=log_help, required=True, type=Path, metavar="DIR")
    history_help = (
        "what was configured: the file of `sekisho-experiments audit --export`, YAML files of experiments, or "
        "directories of both; may be given several times"
    )
    parser.option("--history", help=history_help, required=True, type=Path, nargs="+", action=_Gathered, metavar="PATH")
    parser.option("--model", help="the model's name; every model's rows if not given", metavar="NAME")
    from_help = "first time of the window, RFC 3339 (UTC where it names no zone); the log's first if not given"
    parser.option("--from", help=from_help, type=read_moment, metavar="TIME")
    to_help = "the time that ends the window; the log's end if not given"
    parser.option("--to", help=to_help, type=read_moment, metavar="TIME")
    json_help = "write the report as JSON; - for standard output, in place of the table"
    parser.option("--json", help=json_help, metavar="FILE")


def replay_assignments(arguments: argparse.Namespace, console: Console) -> int:
    """Recompute every logged assignment from the revision that it names. Exits with 5 where one is not explained."""
    start, end = getattr(arguments, "from"), arguments.to
    if start is not None and end is not None and start >= end:
        arguments.error(f"--from {start.isoformat()} is not before --to {end.isoformat()}")
    with _progress_bar(console, hidden=arguments.json == STANDARD_OUTPUT) as progress:
        report = replay(
            arguments.log, arguments.history, model=arguments.model, start=start, end=end, progress=progress
        )
    _write(report, arguments.json, console)
    return MISMATCHES if report.mismatches else EXPLAINED


def _write(report: ReplayReport, file: str | None, console: Console) -> None:
    if file == STANDARD_OUTPUT:
        sys.stdout.write(encode_replay(report).decode())
        return
    if file is not None:
        write_whole(Path(file), encode_replay(report))
    console.print(render_replay(report))


@contextmanager
def _progress_bar(console: Console, *, hidden: bool) -> Iterator[Told]:
    if hidden or not console.is_terminal:
        yield lambda _done, _rows: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, rows: bar.update(task, completed=done, total=rows)


class _Gathered(argparse.Action):
    """Values of a flag that may be given several times; as a variable's, they count where the flag is not given."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _option: str | None = None,
    ) -> None:
        """Add the values."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(before if isinstance(before, list) else []), *(values or [])])
