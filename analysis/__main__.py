"""`sekisho-analysis`: offline, over the prediction log: baseline profiles, drift, and assignments recomputed."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from analysis import commands
from analysis.assignment_replay import add_replay_options, replay_assignments
from analysis.drift_report import Thresholds
from analysis.errors import AnalysisError
from analysis.moment import read_moment
from analysis.profiling import BINS_DEFAULT, BINS_LIMIT, CATEGORIES_MAX_DEFAULT
from settings import CommandLine
from settings.command_line import whole_number

PIPE_WIDTH = 120
"""Columns of a table that does not go to a terminal, where nobody says how wide it may be."""

PSI_MAX = 100.0
ROWS_SERVED_MAX = 10**15
INTERRUPTED = 130

Command = Callable[[argparse.Namespace, Console], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 no drift (or done), 1 failed, 2 bad usage, 3 drift, 5 mismatches."""
    arguments = command_line().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)
    try:
        code: int = arguments.command(arguments, console)
    except (AnalysisError, OSError) as error:
        print(f"sekisho-analysis: {error}", file=sys.stderr)
        return commands.FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def command_line() -> CommandLine:
    """Make the parser, with every command's options."""
    parser = CommandLine(prog="sekisho-analysis", description=__doc__)
    added = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_profile(added)
    _add_drift(added)
    add_replay_options(_command(added, "replay-assignments", replay_assignments))
    return parser


def _add_profile(added: "argparse._SubParsersAction[CommandLine]") -> None:
    parser = _command(added, "profile", commands.profile)
    data_help = "Parquet or CSV files (a path or a quoted pattern), or the directory of a prediction log"
    parser.option("--data", help=data_help, required=True, metavar="PATH")
    parser.option("--model", help="the model's name", required=True, metavar="NAME")
    version_help = "whose scores these are (in a log: whose rows are read); every version's if not given"
    parser.option("--version", help=version_help, metavar="VERSION")
    parser.option("--output", help="the profile to write; also -o", required=True, type=Path, metavar="FILE")
    parser.add_argument("-o", dest="output", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    bins = whole_number(2, BINS_LIMIT)
    parser.option("--bins", help="the most bins of a number", type=bins, default=BINS_DEFAULT, metavar="N")
    categories = whole_number(1, BINS_LIMIT)
    categories_help = "the most categories named; the rest are counted as other"
    parser.option(
        "--categories-max", help=categories_help, type=categories, default=CATEGORIES_MAX_DEFAULT, metavar="N"
    )


def _add_drift(added: "argparse._SubParsersAction[CommandLine]") -> None:
    thresholds = Thresholds()
    parser = _command(added, "drift", commands.drift)
    log_help = "the predictions root, or the directory that holds it as predictions/"
    parser.option("--log", help=log_help, required=True, type=Path, metavar="DIR")
    parser.option("--model", help="the model's name", required=True, metavar="NAME")
    parser.option("--version", help="rows of this version only", metavar="VERSION")
    baseline_help = "profile to compare with; further ones give the training scores of further versions"
    parser.option("--baseline", help=baseline_help, nargs="+", type=Path, metavar="FILE")
    parser.option("--reference-from", help="or compare with a window: its first time", type=read_moment, metavar="TIME")
    parser.option("--reference-to", help="the time that ends the reference window", type=read_moment, metavar="TIME")
    from_help = "first time of the window, RFC 3339 (UTC where it names no zone); the log's first if not given"
    parser.option("--from", help=from_help, type=read_moment, metavar="TIME")
    parser.option(
        "--to", help="the time that ends the window; the log's end if not given", type=read_moment, metavar="TIME"
    )
    parser.option("--by", help="judge the features of each variant alone", choices=("variant",))
    parser.option("--include-shadow", help="count shadow rows too", action="store_true")
    psi_help = "the least PSI that counts as drift"
    parser.option("--threshold-psi", help=psi_help, type=_psi, default=thresholds.psi, metavar="PSI")
    share_help = "the least increase of nulls, new categories, out-of-range or stale rows that is told"
    parser.option("--threshold-share", help=share_help, type=_share, default=thresholds.share, metavar="SHARE")
    served_help = "rows that were served in the window, to state which share of them the log lacks"
    served = whole_number(1, ROWS_SERVED_MAX)
    parser.option("--rows-served", help=served_help, type=served, metavar="N")
    parser.option(
        "--json", help="write the report as JSON; - for standard output, in place of the table", metavar="FILE"
    )
    parser.option("--html", help="write the report as one HTML page", type=Path, metavar="FILE")
    parser.option("--prometheus", help="write the report as Prometheus text", type=Path, metavar="FILE")


def _command(added: "argparse._SubParsersAction[CommandLine]", name: str, run: Command) -> CommandLine:
    parser = added.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(command=run, error=parser.error)
    return parser


def _psi(text: str) -> float:
    return _number(text, PSI_MAX)


def _share(text: str) -> float:
    return _number(text, 1.0)


def _number(text: str, maximum: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= maximum:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to {maximum:g}")
    return number


if __name__ == "__main__":
    sys.exit(main())
