"""What the gateway itself says of a plan: it alone knows models, versions and units of its routes."""

from dataclasses import replace
from typing import Final

from experiments_cli.admin_answers import Held
from experiments_cli.admin_api import AdminApi
from experiments_cli.errors import CommandError, Refused, WrongFiles
from experiments_cli.plan import Action, Plan, Step
from experiments_cli.terminal import moment, plain
from settings.yaml_file import ConfigurationError

UNCHECKABLE: Final = frozenset({"experiments_from_files", "forbidden"})
"""Refusals that stand for every step: the plan is shown all the same, and the reason beside it."""


def checked(plan: Plan, api: AdminApi) -> Plan:
    """Ask the gateway about every step by a dry run, and take over what it says.

    A step that only others make possible cannot be asked about before those are made.
    Raises WrongFiles with every document that the gateway would refuse.
    """
    steps: list[Step] = []
    notes = list(plan.notes)
    faults: list[ConfigurationError] = []
    uncheckable = False
    for step in plan.steps:
        if step.action is Action.UNCHANGED or uncheckable:
            steps.append(step)
            continue
        told = _with_last_change(step, api)
        try:
            steps.append(_asked(told, api) if step.at_once else told)
        except Refused as error:
            if error.code in UNCHECKABLE:
                uncheckable = True
                notes.append(f"the gateway was not asked whether it allows this: {error}")
                steps.append(told)
                continue
            if error.status != 422 or step.source is None:
                raise
            faults.append(fault_of(step, error))
    if faults:
        raise WrongFiles(faults)
    return Plan(tuple(steps), tuple(notes))


def fault_of(step: Step, error: Refused) -> ConfigurationError:
    """Tell a refused document with the file and line of the key at fault."""
    assert step.source is not None
    return step.source.fault(error.field or "experiment", plain(str(error)))


def put_or_delete(step: Step, api: AdminApi, *, dry_run: bool) -> Held:
    """Make a step, or ask what it would do. Raises Refused and ChangedMeanwhile."""
    if step.sent is not None:
        return api.put(step.name, step.sent, step.revision, dry_run=dry_run)
    assert step.revision is not None
    return api.delete(step.name, step.revision, dry_run=dry_run)


def _asked(step: Step, api: AdminApi) -> Step:
    answer = put_or_delete(step, api, dry_run=True)
    epochs = (step.epochs[0], answer.epoch) if step.sent is not None else step.epochs
    after = answer.document if step.sent is not None and answer.document is not None else step.after
    return replace(
        step, units_moved_bp=answer.units_moved_bp, warnings=tuple(answer.warnings), epochs=epochs, after=after
    )


def _with_last_change(step: Step, api: AdminApi) -> Step:
    if step.action is not Action.CHANGE:
        return step
    try:
        last, _ = api.audit(experiment=step.name, limit=1)
    except CommandError:
        return step  # it says who to talk to, and nothing more
    notes = tuple(f"last changed by {e.actor} at {moment(e.at)}: {e.reason}" for e in last)
    return replace(step, notes=(*step.notes, *notes))
