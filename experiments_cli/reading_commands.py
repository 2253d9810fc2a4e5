"""`list`, `show` and `schema`: what there is."""

import json
from argparse import Namespace
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import yaml
from rich.text import Text

from experiments import Experiment, State
from experiments.register import ALL_MODELS
from experiments_cli.admin_answers import AuditEntry, Guardrails, Held, parsed
from experiments_cli.admin_api import AdminApi
from experiments_cli.audit import trail
from experiments_cli.connection import connect
from experiments_cli.errors import OK, CommandError, Refused
from experiments_cli.experiment_words import (
    arms_words,
    finding_words,
    guardrail_words,
    ramp_position,
    share,
)
from experiments_cli.terminal import Terminal, plain

TRAIL_ENTRIES_MAX = 1_000
"""Changes of one experiment among which the beginning of its ramp's step is looked for."""

SCHEMA = "experiments.schema.json"

_STATE_STYLES = {State.RUNNING: "green", State.PAUSED: "yellow", State.DRAFT: "dim", State.CONCLUDED: "dim"}


def list_experiments(arguments: Namespace, terminal: Terminal) -> int:
    """List every experiment: model, state, arms with their shares, enrolment, guardrails."""
    api = connect(arguments)
    held = api.experiments()
    killed = api.kill_switch().killed
    read = {name: parsed(name, one) for name, one in held.items()}
    looked = {name: _guardrails(api, experiment) for name, experiment in read.items()}
    if arguments.json:
        experiments = {
            name: {
                "revision": one.revision,
                "epoch": one.epoch,
                "document": one.document,
                "guardrails": guardrail_words(experiment, looked[name]) if (experiment := read[name]) else None,
            }
            for name, one in held.items()
        }
        terminal.write_json({"killed": list(killed), "experiments": experiments})
        return OK
    _print_killed(killed, terminal)
    if not held:
        terminal.say("There are no experiments: write one, and `sekisho-experiments apply` it.")
        return OK
    columns = ("name", "model", "state", "arms (version)", "enrolment", "epoch", "revision", "guardrails")
    terminal.records(columns, [_row(name, one, read[name], looked[name], killed) for name, one in held.items()])
    return OK


def show(arguments: Namespace, terminal: Terminal) -> int:
    """Print one experiment's document as YAML that `apply` takes, with how it stands in comments above."""
    api = connect(arguments)
    name: str = arguments.name
    held = api.experiment(name)
    experiment = parsed(name, held)
    guardrails = _guardrails(api, experiment)
    killed = _killed(api)
    ramp = ramp_position(experiment, _trail(api, name)) if experiment is not None else None
    if arguments.json:
        terminal.write_json(
            {
                "revision": held.revision,
                "epoch": held.epoch,
                "document": held.document,
                "killed": _is_killed(experiment, killed),
                "ramp": ramp.facts() if ramp else None,
                "guardrails": [_finding_facts(f) for f in guardrails.findings] if guardrails else None,
            }
        )
        return OK
    lines = [f"{name}: revision {held.revision}, epoch {held.epoch}"]
    if experiment is None:
        lines.append("this program is older than the gateway, and cannot say more of this document")
    else:
        lines += _standing(experiment, guardrails)
        lines += [f"ramp: {ramp.words(terminal.now())}"] if ramp else []
        if _is_killed(experiment, killed):
            lines.append(f"KILLED: the kill switch gives every unit of model {experiment.model} the default version")
    for line in lines:
        terminal.write(f"# {plain(line)}")
    terminal.write(_yaml(held.document))
    return OK


def schema(_arguments: Namespace, terminal: Terminal) -> int:
    """Print the JSON Schema of an experiment's document."""
    terminal.write(files("experiments").joinpath(SCHEMA).read_text(encoding="utf-8"))
    return OK


def _row(
    name: str, held: Held, experiment: Experiment | None, guardrails: Guardrails | None, killed: tuple[str, ...]
) -> list[str | Text]:
    numbers = [str(held.epoch), str(held.revision)]
    if experiment is None:
        return [name, "?", "?", "written by a newer gateway: see `show`", "", *numbers, ""]
    state = Text(experiment.state.value, style=_STATE_STYLES[experiment.state])
    if experiment.state is State.RUNNING and _is_killed(experiment, killed):
        state = Text("KILLED", style="bold red")
    words = guardrail_words(experiment, guardrails)
    style = "bold red" if words.startswith("BREACHED") else ""
    winner = f"; winner: {experiment.winner.name}" if experiment.winner is not None else ""
    return [
        name,
        experiment.model,
        state,
        arms_words(experiment) + winner,
        share(experiment.enrol_bp),
        *numbers,
        Text(plain(words), style=style),
    ]


def _standing(experiment: Experiment, guardrails: Guardrails | None) -> Iterator[str]:
    yield f"{experiment.model} by {experiment.unit}, {experiment.state}, enrolment {share(experiment.enrol_bp)}"
    for variant in experiment.variants:
        arm = guardrails.arms.get(variant.name) if guardrails is not None else None
        counted = f", {arm.requests:,} requests in this epoch" if arm is not None else ""
        control = ", control" if variant.name == experiment.control.name else ""
        yield f"arm {variant.name}: version {variant.version}, {share(variant.bp)}{control}{counted}"
    if experiment.winner is not None:
        yield f"winner: {experiment.winner.name}: every unit is given version {experiment.winner.version}"
    if experiment.guardrails and experiment.state is State.RUNNING:
        findings = guardrails.findings if guardrails is not None else ()
        yield f"guardrails: {guardrail_words(experiment, guardrails)}"
        for finding in findings:
            yield f"  {finding_words(finding)}"


def _guardrails(api: AdminApi, experiment: Experiment | None) -> Guardrails | None:
    """Ask how the guardrails stand; None where that cannot be told."""
    if experiment is None or not experiment.guardrails or experiment.state is not State.RUNNING:
        return None
    try:
        return api.guardrails(experiment.name)
    except Refused:
        return None


def _killed(api: AdminApi) -> tuple[str, ...]:
    try:
        return api.kill_switch().killed
    except Refused:
        return ()


def _is_killed(experiment: Experiment | None, killed: tuple[str, ...]) -> bool:
    return experiment is not None and bool({experiment.model, ALL_MODELS} & set(killed))


def _print_killed(killed: tuple[str, ...], terminal: Terminal) -> None:
    if ALL_MODELS in killed:
        terminal.say("KILL SWITCH ON for every model: all units get the default version.", "bold red")
    elif killed:
        terminal.say(f"KILL SWITCH ON for {', '.join(killed)}: its units get the default version.", "bold red")


def _trail(api: AdminApi, name: str) -> Iterator[AuditEntry]:
    try:
        yield from trail(api, name, TRAIL_ENTRIES_MAX)
    except CommandError:
        return  # when the next step comes is then not known; the rest is


def _finding_facts(finding: Any) -> dict[str, Any]:
    return {field: getattr(finding, field) for field in finding.__struct_fields__}


def _yaml(document: Any) -> str:
    # Through JSON, so that YAML makes no aliases of equal parts. Innermost collections in one line, as in the docs.
    text: str = yaml.safe_dump(
        json.loads(json.dumps(document)), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
    return text
