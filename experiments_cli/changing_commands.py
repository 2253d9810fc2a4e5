"""`ramp`, `stop`, `pause`, `start`, `kill` and `unkill`: one change each, made as soon as it is said."""

import secrets
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from experiments import State
from experiments.register import ALL_MODELS
from experiments_cli.acknowledgements import acknowledged
from experiments_cli.admin_answers import Held, parsed
from experiments_cli.confirmation import confirmed
from experiments_cli.connection import connect
from experiments_cli.document_diff import differences
from experiments_cli.errors import CHANGES, FAILED, OK, Usage
from experiments_cli.experiment_words import change_lines, moved, share
from experiments_cli.terminal import INDENT, Terminal

Document = Mapping[str, Any]
SALT_BYTES = 8


def ramp(arguments: Namespace, terminal: Terminal) -> int:
    """Set the share of units that take part, and say what that moves. Nobody changes arms by it."""
    enrol_bp: int = arguments.share
    return _change(arguments, terminal, lambda held: {**_document(held), "enrol_bp": enrol_bp})


def stop(arguments: Namespace, terminal: Terminal) -> int:
    """Conclude an experiment: every unit gets the default version, or with --winner that arm's."""

    def concluded(held: Held) -> Document:
        document = {**_without(_document(held), "winner"), "state": State.CONCLUDED.value}
        return document if arguments.winner is None else {**document, "winner": arguments.winner}

    return _change(arguments, terminal, concluded)


def pause(arguments: Namespace, terminal: Terminal) -> int:
    """Draw nobody for a while: every unit gets the default version, and each its old arm once it runs again."""
    return _change(arguments, terminal, lambda held: {**_document(held), "state": State.PAUSED.value})


def start(arguments: Namespace, terminal: Terminal) -> int:
    """Run an experiment. One that was concluded starts again under a new salt, which draws everybody anew."""

    def running(held: Held) -> Document:
        document = {**_without(_document(held), "winner"), "state": State.RUNNING.value}
        if not arguments.new_salt:
            if _document(held).get("state") == State.CONCLUDED:
                raise Usage(
                    f"{arguments.name!r} is concluded: its units would carry over what they have seen; give --new-salt "
                    "to draw everybody anew"
                )
            return document
        if "salts" in document:
            raise Usage("its draws are those of `salts`, from another system: change them in its file, and apply it")
        return {**document, "salt": secrets.token_hex(SALT_BYTES)}

    return _change(arguments, terminal, running)


def kill(arguments: Namespace, terminal: Terminal) -> int:
    """Switch experiments off, of one model or of all: every unit gets the default version, at once."""
    return _switch(arguments, terminal, on=True)


def unkill(arguments: Namespace, terminal: Terminal) -> int:
    """Switch experiments on again: units are drawn as before."""
    return _switch(arguments, terminal, on=False)


def _change(arguments: Namespace, terminal: Terminal, edit: Callable[[Held], Document]) -> int:
    api = connect(arguments)
    name: str = arguments.name
    held = api.experiment(name)
    before, wanted = _document(held), edit(held)
    if wanted == before:
        if arguments.json:
            terminal.write_json(_facts(held, before, before, arguments, None))
        else:
            terminal.say(f"{name}: nothing to do; it is so already, in revision {held.revision}.")
        return OK
    answer = api.put(name, wanted, held.revision, dry_run=arguments.dry_run)
    after = answer.document if answer.document is not None else wanted
    if not arguments.json:
        _print_change(name, held, answer, after, arguments, terminal)
    heard = acknowledged(api, answer.revision, arguments, terminal)
    if arguments.json:
        terminal.write_json(_facts(answer, before, after, arguments, heard))
    elif heard:
        terminal.say(f"Every gateway has revision {answer.revision}.")
    return FAILED if heard is False else OK


def _switch(arguments: Namespace, terminal: Terminal, *, on: bool) -> int:
    if arguments.json and not arguments.yes and not arguments.dry_run:
        raise Usage("with --json nobody is asked: give --yes as well")
    api = connect(arguments)
    model = arguments.model or ALL_MODELS
    whom = "of every model" if arguments.model is None else f"of model {arguments.model}"
    told = api.switch(model, on=on, dry_run=True)
    if not arguments.json:
        terminal.say(f"The experiments {whom} are to be switched {'off' if on else 'on again'}:")
        for warning in told.warnings:
            terminal.say(warning, "yellow", indent=INDENT)
    if not on and arguments.model is not None and ALL_MODELS in told.killed:
        terminal.note("every model's are switched off: `unkill` without a model switches those on again")
    if not arguments.dry_run:
        if not confirmed("Go on?", terminal, yes=arguments.yes):
            terminal.say("Nothing was changed.")
            return CHANGES
        told = api.switch(model, on=on)
    heard = acknowledged(api, told.revision, arguments, terminal)
    if arguments.json:
        terminal.write_json(
            {
                "dry_run": arguments.dry_run,
                "revision": told.revision,
                "killed": list(told.killed),
                "warnings": list(told.warnings),
                "acknowledged": heard,
            }
        )
    elif arguments.dry_run:
        terminal.say("A dry run: nothing was changed.")
    else:
        killed = ", ".join("every model" if name == ALL_MODELS else name for name in told.killed) or "nothing"
        terminal.say(f"Switched off: {killed} (revision {told.revision}).", "bold red" if told.killed else "green")
    return FAILED if heard is False else OK


def _print_change(
    name: str, held: Held, answer: Held, after: Document, arguments: Namespace, terminal: Terminal
) -> None:
    would = "would become" if arguments.dry_run else "is now"
    epoch = f", epoch {held.epoch} → {answer.epoch}" if held.epoch != answer.epoch else ""
    terminal.say(f"{name} {would} revision {answer.revision}{epoch}:", "green")
    for line in change_lines(differences(_document(held), after)):
        terminal.say(line, indent=INDENT)
    terminal.say(moved(answer.units_moved_bp), indent=INDENT)
    for warning in answer.warnings:
        terminal.say(f"warning: {warning}", "yellow", indent=INDENT)
    for note in _notes(name, held, answer):
        terminal.say(f"note: {note}", indent=INDENT)
    if arguments.dry_run:
        terminal.say("A dry run: nothing was changed.")


def _notes(name: str, held: Held, answer: Held) -> list[str]:
    before, after = parsed(name, held), parsed(name, answer)
    if before is None or after is None:
        return []
    notes = []
    if after.state is not State.RUNNING and before.enrol_bp != after.enrol_bp:
        notes.append(f"it is {after.state}: the share counts once it runs")
    begins_anew = after.state is State.RUNNING and before.salts != after.salts
    if begins_anew and after.ramp is not None and after.enrol_bp > after.ramp.steps_bp[0]:
        first = share(after.ramp.steps_bp[0]).replace(" ", "")
        notes.append(f"it begins at {share(after.enrol_bp)}: `ramp {name} {first}` climbs anew")
    return notes


def _facts(answer: Held, before: Document, after: Document, arguments: Namespace, heard: bool | None) -> dict[str, Any]:
    return {
        "changed": before != after and not arguments.dry_run,
        "dry_run": arguments.dry_run,
        "revision": answer.revision,
        "epoch": answer.epoch,
        "units_moved_bp": answer.units_moved_bp,
        "warnings": list(answer.warnings),
        "diff": [change.facts() for change in differences(before, after)],
        "document": after,
        "acknowledged": heard,
    }


def _document(held: Held) -> Document:
    return held.document or {}


def _without(document: Document, key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}
