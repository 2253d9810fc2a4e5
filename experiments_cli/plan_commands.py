"""`plan` and `apply`: files as the source of experiments."""

from argparse import Namespace
from typing import Any

from experiments_cli.acknowledgements import acknowledged
from experiments_cli.admin_api import AdminApi
from experiments_cli.applying import Outcome, carry_out, failure_words
from experiments_cli.confirmation import confirmed
from experiments_cli.connection import connect
from experiments_cli.document_files import read_documents
from experiments_cli.errors import CHANGES, FAILED, OK, Usage
from experiments_cli.plan import Plan, make_plan, register_of
from experiments_cli.plan_check import checked
from experiments_cli.plan_report import plan_facts, print_plan
from experiments_cli.terminal import Terminal


def plan(arguments: Namespace, terminal: Terminal) -> int:
    """Print what would change if files were applied. Exits with 3 where something would."""
    if arguments.power is not None:
        from experiments_cli.analysis_mount import plan_power  # noqa: PLC0415 - scipy, for this alone

        return plan_power(arguments, terminal)
    found = _planned(arguments, connect(arguments))
    if arguments.json:
        terminal.write_json(plan_facts(found))
    else:
        print_plan(found, terminal)
    return CHANGES if found.changes else OK


def apply(arguments: Namespace, terminal: Terminal) -> int:
    """Make the gateway hold what files say: the plan is shown, and asked about, and carried out."""
    if arguments.json and not arguments.yes:
        raise Usage("with --json nobody is asked: give --yes as well")
    api = connect(arguments)
    found = _planned(arguments, api)
    if not arguments.json:
        print_plan(found, terminal)
    if not found.changes:
        if arguments.json:
            terminal.write_json({"plan": plan_facts(found), **Outcome([], [], []).facts(), "acknowledged": None})
        return OK
    if not confirmed("Apply?", terminal, yes=arguments.yes):
        terminal.say("Nothing was changed.")
        return CHANGES
    outcome = carry_out(found, api)
    if not arguments.json:
        _print(outcome, terminal)
    heard = acknowledged(api, outcome.revision, arguments, terminal) if outcome.revision is not None else None
    if arguments.json:
        facts: dict[str, Any] = {"plan": plan_facts(found), **outcome.facts(), "acknowledged": heard}
        terminal.write_json(facts)
    elif heard:
        terminal.say(f"Every gateway has revision {outcome.revision}.")
    return FAILED if outcome.failed or heard is False else OK


def _planned(arguments: Namespace, api: AdminApi) -> Plan:
    if arguments.path is None:
        raise Usage("give the path of a YAML file of experiments, or of a directory of them")
    documents = read_documents(arguments.path)
    held = register_of(api.experiments())
    return checked(make_plan(held, documents, delete_missing=arguments.delete_missing), api)


def _print(outcome: Outcome, terminal: Terminal) -> None:
    for made in outcome.made:
        step, held = made.step, made.held
        epoch = f", epoch {held.epoch}" if held.epoch is not None and step.sent is not None else ""
        terminal.say(f"{step.name}: {step.action}d, revision {held.revision}{epoch}", "green")
    for failed in outcome.failed:
        terminal.note(f"{failed.step.name}: not {failed.step.action}d: {failure_words(failed)}", "bold red")
    if outcome.left:
        terminal.note(f"not tried: {', '.join(step.name for step in outcome.left)}", "bold red")
