"""`results`, `plan --power` and `replay-assignments`: what reads the prediction log is the analysis' own.

It is imported late, and only for these: it brings DuckDB and scipy, which a machine that only changes experiments does
not need.
"""

import argparse
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console

from experiments_cli import arguments as read
from experiments_cli.connection import add_connection, add_signature, connect
from experiments_cli.document_files import read_documents
from experiments_cli.errors import CommandError, MissingExtra, Usage
from experiments_cli.terminal import Terminal
from settings import CommandLine

RESULTS: Final = "results"
REPLAY: Final = "replay-assignments"
POWER: Final = "--power"
AS_PLANNED: Final = True
"""`--power` without a number."""

ALL: Final = frozenset({RESULTS, REPLAY, POWER})

STANDARD_OUTPUT: Final = "-"
PUBLISHED: Final = "results published"
"""The reason that goes with results where nobody gives another."""

_RESULTS_MODULE: Final = "analysis.experiment_results.commands"
_REPLAY_MODULE: Final = "analysis.assignment_replay.replay_command"

MakeCommand = Callable[..., CommandLine]


def wanted(given: Sequence[str]) -> frozenset[str]:
    """Return which of ALL a command line asks for."""
    if given[:1] == ["plan"]:
        return frozenset({POWER} & {word.partition("=")[0] for word in given})
    return ALL & frozenset(given[:1])


def add_results(added: Any, make: MakeCommand, mounted: Collection[str]) -> None:
    """Add `results` and `replay-assignments`. Raises MissingExtra where one is to be mounted and cannot be."""
    example = "sekisho-experiments results churn-q4 --log sekisho-data/log --html results.html"
    parser = make(added, RESULTS, results, example)
    parser.add_argument("name", type=read.name, metavar="NAME", help="the experiment")
    file_help = "take its document from this file, or directory, instead of from the gateway"
    parser.option("--experiment-file", type=Path, help=file_help, metavar="PATH")
    parser.option("--publish", action="store_true", help="keep the results on the gateway as well, as JSON")
    add_connection(parser)
    add_signature(parser, required=False)
    if RESULTS in mounted:
        _module(RESULTS, _RESULTS_MODULE).add_results_options(parser)
    example = "sekisho-experiments replay-assignments --log sekisho-data/log --history trail.jsonl"
    parser = make(added, REPLAY, replay_assignments, example)
    if REPLAY in mounted:
        _module(REPLAY, _REPLAY_MODULE).add_replay_options(parser)


def add_power(plan: CommandLine, mounted: Collection[str]) -> None:
    """Add `--power` to `plan`, and where it is to be mounted the options that come with it. Raises MissingExtra."""
    if POWER in mounted:
        _module(f"plan {POWER}", _RESULTS_MODULE).add_power_options(_PowerOptions(plan))
    else:
        _PowerOptions(plan).option(POWER, help="the chance to find it", metavar="X", type=str)


class _PowerOptions:
    """The plan's parser as the analysis adds to it.

    `--power`, which asks for this plan, and the power that is wanted are one: `--power` or `--power 0.9`. It is no
    variable: that would turn every `plan` of a shell into this one. `--json` is the switch that plan has.
    """

    def __init__(self, plan: CommandLine) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)

    def option(self, flag: str, *, help: str, **given: Any) -> None:  # noqa: A002 - as CommandLine has it
        """Add an option of the analysis."""
        if flag == POWER:
            switch = f"say how many units it takes to find an effect instead; X: {help}. `plan {POWER} --help` has more"
            read_power: Callable[[str], Any] = given["type"]
            self._plan.add_argument(POWER, nargs="?", const=AS_PLANNED, metavar="X", type=read_power, help=switch)
        elif flag != "--json":
            self._plan.option(flag, help=help, **given)


def results(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Read an experiment's results from the prediction log: sample ratio, effects, guardrails."""
    run = _module(RESULTS, _RESULTS_MODULE).run_results
    document = _document(arguments)
    if not arguments.publish:
        return _run(run, document, arguments, terminal.out)
    code, made = _with_json(run, document, arguments, terminal)
    if made is None:
        return code
    arguments.reason = arguments.reason or PUBLISHED
    connect(arguments).publish_results(arguments.name, made)
    terminal.note(f"published: any gateway answers them at /admin/v1/experiments/{arguments.name}/results", "green")
    return code


def replay_assignments(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Recompute every logged assignment from the history of experiments. Exits with 5 where one is not explained."""
    return _run(_module(REPLAY, _REPLAY_MODULE).replay_assignments, arguments, terminal.out)


def plan_power(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Say how many units it takes to find an effect: of each experiment of the files, or of what the options say."""
    run = _module(f"plan {POWER}", _RESULTS_MODULE).plan_power
    if arguments.power is AS_PLANNED:
        arguments.power = None
    files = read_documents(arguments.path) if arguments.path is not None else []
    if arguments.json and len(files) > 1:
        raise Usage(f"{arguments.path} has {len(files)} experiments: with --json give a file of one")
    arguments.json = STANDARD_OUTPUT if arguments.json else None
    if not files:
        return _run(run, arguments, terminal.out, None)
    codes = []
    for file in files:
        if len(files) > 1:
            terminal.say(file.experiment.name, "bold")
        codes.append(_run(run, arguments, terminal.out, file.document))
    return max(codes)


def _module(command: str, name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(command, error.name) from error


def _run(run: Callable[..., int], *given: Any) -> int:
    from analysis.errors import AnalysisError  # noqa: PLC0415 - after the analysis itself was imported

    try:
        return run(*given)
    except AnalysisError as error:
        raise CommandError(str(error)) from error


def _with_json(
    run: Callable[..., int], document: Mapping[str, Any], arguments: argparse.Namespace, terminal: Terminal
) -> tuple[int, bytes | None]:
    """Run, and return the results as JSON too, None where there are none; they go where --json says as well."""
    asked_for: str | None = arguments.json
    console = Console(file=io.StringIO()) if asked_for == STANDARD_OUTPUT else terminal.out
    with TemporaryDirectory() as directory:
        path = Path(directory) / "results.json"
        arguments.json = str(path)
        code = _run(run, document, arguments, console)
        made = path.read_bytes() if path.exists() else None
    if made is None:
        return code, None
    if asked_for == STANDARD_OUTPUT:
        terminal.write(made.decode())
    elif asked_for is not None:
        Path(asked_for).write_bytes(made)
    return code, made


def _document(arguments: argparse.Namespace) -> Mapping[str, Any]:
    name: str = arguments.name
    if arguments.experiment_file is None:
        return connect(arguments).experiment(name).document or {}
    found = {file.experiment.name: file.document for file in read_documents(arguments.experiment_file)}
    if name not in found:
        raise Usage(f"{arguments.experiment_file} has no experiment {name!r}; there are: {', '.join(found) or 'none'}")
    return found[name]
