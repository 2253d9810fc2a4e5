"""`sekisho-features`: declare feature views, load rows, look at one entity, check freshness."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from feature_store import commands
from feature_store.errors import FeatureStoreError
from feature_store.freshness import SAMPLE_ROWS, SAMPLE_ROWS_MAX
from feature_store.redis_address import parse_redis_url
from feature_store.row_loader import CHUNK_ROWS, CHUNK_ROWS_MAX, EVENT_TIME_COLUMN
from settings import CommandLine, ConfigurationError
from settings.command_line import whole_number

PIPE_WIDTH = 200
"""Columns of a table that does not go to a terminal, where nobody says how wide it may be."""

INTERRUPTED = 130

Command = Callable[[argparse.Namespace, Console, commands.Clock], Coroutine[Any, Any, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 bad usage, 3 rows are too old."""
    arguments = command_line().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)
    try:
        code: int = asyncio.run(arguments.command(arguments, console, lambda: time.time_ns() // 1_000))
    except (FeatureStoreError, ConfigurationError, OSError) as error:
        print(f"sekisho-features: {error}", file=sys.stderr)
        return commands.FAILED
    except KeyboardInterrupt:
        print("sekisho-features: stopped; a load goes on with --resume", file=sys.stderr)
        return INTERRUPTED
    return code


def command_line() -> CommandLine:
    """Make the parser, with every command's options."""
    parser = CommandLine(prog="sekisho-features", description=__doc__)
    added = parser.add_subparsers(metavar="COMMAND", required=True)
    apply = _command(added, "apply", commands.apply)
    apply.option("--dry-run", action="store_true", help="print what would change, and change nothing")
    apply.add_argument("features", type=Path, metavar="features.yaml")

    load = _command(added, "load", commands.load)
    load.option("--view", help="the view that the rows are of", required=True, metavar="NAME")
    load.option("--entity-column", help="the column with entity ids; the entity's name if not given", metavar="COLUMN")
    load.option("--event-time-column", help="the column with event times", default=EVENT_TIME_COLUMN, metavar="COLUMN")
    chunk_help = "rows packed and acknowledged together"
    rows = whole_number(1, CHUNK_ROWS_MAX)
    load.option("--chunk-rows", help=chunk_help, type=rows, default=CHUNK_ROWS, metavar="N")
    load.option("--ignore-extra", action="store_true", help="ignore columns that are no feature of the view")
    load.option("--resume", action="store_true", help="go on where a load of the same file was cut off")
    load.option("--progress-file", type=Path, help="kept while loading; else FILE.VIEW.progress", metavar="PATH")
    load.add_argument("file", type=Path, metavar="FILE", help="a .parquet, .csv, .arrow or .feather file")

    get = _command(added, "get", commands.get)
    get.add_argument("entity", type=_entity, metavar="ENTITY=ID")
    get.option("--view", nargs="+", help="these views only", metavar="NAME")
    get.option("--json", action="store_true", help="print JSON")

    check = _command(added, "check", commands.check)
    check.option("--view", nargs="+", help="these views only", metavar="NAME")
    sample = whole_number(1, SAMPLE_ROWS_MAX)
    check.option("--sample", type=sample, default=SAMPLE_ROWS, help="rows to look at in each view", metavar="N")
    share_help = "exit with 3 where more than this share of a view's rows is not fresh"
    check.option("--max-stale-share", type=_share, default=0.1, help=share_help, metavar="SHARE")
    return parser


def _command(added: "argparse._SubParsersAction[CommandLine]", name: str, run: Command) -> CommandLine:
    parser = added.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.option(
        "--redis",
        type=_redis_url,
        required=True,
        help="redis://, rediss:// or unix:// URL, or redis+sentinel://, redis+cluster:// (docs/redis.md)",
        metavar="URL",
    )
    parser.set_defaults(command=run)
    return parser


def _redis_url(text: str) -> str:
    try:
        parse_redis_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _entity(text: str) -> str:
    entity, _equals, entity_id = text.partition("=")
    if not (entity and entity_id):
        raise argparse.ArgumentTypeError(f"{text!r}: give the kind of entity and its id, as in patient=p7")
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
