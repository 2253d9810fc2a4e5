"""`sekisho-experiments`: see, plan, apply, ramp, stop, explain and read experiments, through a gateway's admin port.

Exit codes: 0 done, or nothing to do; 1 failed; 2 bad usage, or a wrong file; 3 there are changes, which were not made.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from experiments_cli import analysis_mount, arguments, changing_commands, plan_commands, reading_commands
from experiments_cli.acknowledgements import WAIT_S, WAIT_S_MAX
from experiments_cli.audit import ENTRIES_MAX, audit
from experiments_cli.connection import add_connection, add_signature
from experiments_cli.errors import BAD_USAGE, FAILED, INTERRUPTED, CommandError
from experiments_cli.explain import explain
from experiments_cli.terminal import PIPE_WIDTH, Terminal, plain
from settings import CommandLine, ConfigurationError
from settings.command_line import seconds, whole_number

PROGRAM = "sekisho-experiments"

Command = Callable[[argparse.Namespace, Terminal], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 bad usage or a wrong file, 3 there are changes."""
    given = sys.argv[1:] if argv is None else list(argv)
    terminal = _terminal()
    parsed = argparse.Namespace(json=False)
    try:
        parsed = command_line(analysis_mount.wanted(given)).parse_args(given)
        code: int = parsed.command(parsed, terminal)
        terminal.out.file.flush()
    except (CommandError, ConfigurationError) as error:
        return _failed(error, parsed, terminal)
    except BrokenPipeError:
        # Whoever read this has read enough. Python would complain once more at its end, when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _failed(CommandError(str(error)), parsed, terminal)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def command_line(mounted: Collection[str] = analysis_mount.ALL) -> CommandLine:
    """Make the parser, with every command's options.

    mounted: for which of the analysis' commands it is imported, and its options are added.
    """
    parser = CommandLine(prog=PROGRAM, description=__doc__)
    added = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_reading(added)
    _add_plan_and_apply(added, mounted)
    _add_changes(added)
    _add_explain(added)
    _add_audit(added)
    analysis_mount.add_results(added, _command, mounted)
    return parser


def _add_reading(added: "argparse._SubParsersAction[CommandLine]") -> None:
    listing = _command(added, "list", reading_commands.list_experiments, f"{PROGRAM} list --url https://gateway:8081")
    add_connection(listing)
    _add_json(listing)
    show = _command(added, "show", reading_commands.show, f"{PROGRAM} show churn-q4 > churn-q4.yaml")
    _add_name(show)
    add_connection(show)
    _add_json(show)
    _command(added, "schema", reading_commands.schema, f"{PROGRAM} schema > experiments.schema.json")


def _add_plan_and_apply(added: "argparse._SubParsersAction[CommandLine]", mounted: Collection[str]) -> None:
    path_help = "a YAML file of experiments, separated by ---, or a directory of *.yaml and *.yml"
    delete_help = "also delete what is not in the files: drafts and concluded ones only"
    plan = _command(
        added, "plan", plan_commands.plan, f"{PROGRAM} plan experiments/    # exit code 3: there are changes"
    )
    plan.add_argument("path", type=Path, nargs="?", metavar="PATH", help=path_help)
    add_connection(plan)
    add_signature(plan, required=False)
    plan.option("--delete-missing", action="store_true", help=delete_help)
    _add_json(plan)
    analysis_mount.add_power(plan, mounted)
    apply = _command(
        added, "apply", plan_commands.apply, f"{PROGRAM} apply experiments/ --reason 'ramp churn-q4 to 10 %' --yes"
    )
    apply.add_argument("path", type=Path, metavar="PATH", help=path_help)
    add_connection(apply)
    add_signature(apply)
    apply.option("--delete-missing", action="store_true", help=delete_help)
    _add_yes(apply)
    _add_wait(apply)
    _add_json(apply)


def _add_changes(added: "argparse._SubParsersAction[CommandLine]") -> None:
    ramp = _command(added, "ramp", changing_commands.ramp, f"{PROGRAM} ramp churn-q4 5% --reason 'first step held'")
    _add_name(ramp)
    share_help = "the share of eligible units that take part: 5% or 500bp"
    # Help is a format in which % begins a placeholder.
    ramp.add_argument("share", type=arguments.share_bp, metavar="SHARE", help=share_help.replace("%", "%%"))
    stop = _command(
        added, "stop", changing_commands.stop, f"{PROGRAM} stop churn-q4 --winner treatment --reason 'won by 2 %'"
    )
    _add_name(stop)
    stop.option("--winner", type=arguments.name, help="give every unit this arm's version", metavar="ARM")
    pause = _command(added, "pause", changing_commands.pause, f"{PROGRAM} pause churn-q4 --reason 'labels are late'")
    _add_name(pause)
    start = _command(added, "start", changing_commands.start, f"{PROGRAM} start churn-q4 --new-salt --reason 'mended'")
    _add_name(start)
    start.option("--new-salt", action="store_true", help="draw everybody anew, which a concluded experiment needs")
    for parser in (ramp, stop, pause, start):
        _add_change_options(parser)
    kill = _command(added, "kill", changing_commands.kill, f"{PROGRAM} kill churn --reason 'scores are wrong' --yes")
    unkill = _command(added, "unkill", changing_commands.unkill, f"{PROGRAM} unkill churn --reason 'model mended'")
    for parser in (kill, unkill):
        parser.add_argument(
            "model", type=arguments.name, nargs="?", metavar="MODEL", help="of this model; without it, of every model"
        )
        _add_yes(parser)
        _add_change_options(parser)


def _add_explain(added: "argparse._SubParsersAction[CommandLine]") -> None:
    parser = _command(added, "explain", explain, f"""{PROGRAM} explain p7 --model churn --attributes '{{"age": 34}}'""")
    parser.add_argument("unit", type=arguments.unit, metavar="UNIT", help="the id of the unit")
    parser.option("--model", type=arguments.name, help="experiments of this model only", metavar="MODEL")
    attributes_help = "entities and features that `where` may read, as a JSON object"
    parser.option("--attributes", type=arguments.attributes, default={}, help=attributes_help, metavar="JSON")
    offline_help = "decide by these files (a file or a directory), without a gateway"
    parser.option("--offline", type=Path, help=offline_help, metavar="PATH")
    add_connection(parser)
    _add_json(parser)


def _add_audit(added: "argparse._SubParsersAction[CommandLine]") -> None:
    parser = _command(added, "audit", audit, f"{PROGRAM} audit churn-q4 --limit 5")
    parser.add_argument("name", type=arguments.name, nargs="?", metavar="NAME", help="of this experiment only")
    limit = whole_number(1, ENTRIES_MAX)
    parser.option("--limit", type=limit, default=20, help="the most changes that are shown", metavar="N")
    parser.option("--follow", action="store_true", help="go on with each change as it is made, until Ctrl-C")
    export_help = "write the whole trail as JSON lines, oldest first, for replay-assignments; - for standard output"
    parser.option("--export", help=export_help, metavar="FILE")
    add_connection(parser)
    _add_json(parser)


def _command(added: "argparse._SubParsersAction[CommandLine]", name: str, run: Command, example: str) -> CommandLine:
    parser = added.add_parser(name, help=run.__doc__, description=run.__doc__, epilog=f"example:\n  {example}")
    parser.set_defaults(command=run, json=False)
    return parser


def _add_name(parser: CommandLine) -> None:
    parser.add_argument("name", type=arguments.name, metavar="NAME", help="the experiment")


def _add_json(parser: CommandLine) -> None:
    parser.option("--json", action="store_true", help="print JSON")


def _add_yes(parser: CommandLine) -> None:
    parser.option("--yes", action="store_true", help="do not ask; needed where there is no terminal")


def _add_wait(parser: CommandLine) -> None:
    parser.option("--no-wait", action="store_true", help="do not wait until every gateway has the change")
    parser.add_argument(
        "--wait", dest="no_wait", action="store_false", default=argparse.SUPPRESS, help="wait for that (the default)"
    )
    wait = seconds(0, WAIT_S_MAX)
    parser.option("--wait-s", type=wait, default=WAIT_S, help="wait at most so long", metavar="S")


def _add_change_options(parser: CommandLine) -> None:
    add_connection(parser)
    add_signature(parser)
    parser.option("--dry-run", action="store_true", help="print what would change, and change nothing")
    _add_wait(parser)
    _add_json(parser)


def _terminal() -> Terminal:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no → shows what it is instead of failing.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, emoji=False)
    err = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=not sys.stderr.isatty())
    return Terminal(
        out=out,
        err=err,
        ask=_ask if sys.stdin is not None and sys.stdin.isatty() else None,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        sleep=time.sleep,
    )


def _ask(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _failed(error: CommandError | ConfigurationError, parsed: argparse.Namespace, terminal: Terminal) -> int:
    for line in str(error).splitlines():
        print(f"{PROGRAM}: {plain(line)}", file=sys.stderr)
    if isinstance(error, CommandError):
        facts, code = error.facts(), error.exit_code
    else:
        facts = {"message": str(error), "file": str(error.path), "line": error.line}
        code = BAD_USAGE
    if parsed.json is True:
        terminal.write(json.dumps({"error": facts}, ensure_ascii=False, indent=2))
    return code


if __name__ == "__main__":
    sys.exit(main())
