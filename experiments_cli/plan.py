"""What has to be done so that the gateway holds what files say: steps, in an order in which each is allowed.

Pure: documents come in, steps go out. The gateway makes one change at a time and refuses each that conflicts with what
it holds just then; so the order matters where one experiment makes room for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from experiments import Experiment, ExperimentError, State
from experiments.conflicts import LIVE, refuse_conflicts
from experiments.register import Change, Entry, Register, delete, put
from experiments_cli.admin_answers import Held, parsed
from experiments_cli.document_diff import KeyChange, differences
from experiments_cli.document_files import FileDocument, Source
from experiments_cli.errors import CommandError, WrongFiles
from settings.yaml_file import ConfigurationError

NO_ORDER: Final = " (together they would fit, but in no order of single changes: pause one of them first)"


CONFLICTING: Final = frozenset({"layer", "holdout.bp"})
"""Keys under which one experiment may be in another's way."""


class Action(StrEnum):
    """What a step does."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One experiment. revision: the one that was looked at; None where there is none yet.

    sent: the document to put; None where there is nothing to put. after: what it will be, with what the store fills in.
    at_once: whether it is allowed before the steps before it are made.
    """

    name: str
    action: Action
    source: Source | None
    revision: int | None
    sent: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    epochs: tuple[int | None, int | None]
    units_moved_bp: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    at_once: bool = True

    @property
    def diff(self) -> list[KeyChange]:
        """What changes, key by key."""
        return differences(self.before or {}, self.after or {})


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they are to be made; notes on what is left as it is."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.action is not Action.UNCHANGED)


def register_of(held: Mapping[str, Held]) -> Register:
    """Make a register of what a gateway holds. Raises CommandError where this program cannot read a document of it."""
    entries = {}
    for name, one in held.items():
        experiment = parsed(name, one)
        if experiment is None:
            raise CommandError(
                f"the gateway holds {name!r}, whose document this program cannot read: it is older than the gateway"
            )
        entries[name] = Entry(experiment=experiment, created_at_us=0, step_since_us=0)
    return Register(revision=max((one.revision for one in held.values()), default=0), entries=entries)


def make_plan(register: Register, files: Sequence[FileDocument], *, delete_missing: bool = False) -> Plan:
    """Compare what is held with what files say. Raises WrongFiles: for what the gateway would refuse."""
    held = register
    steps: list[Step] = []
    pending = list(files)
    while pending:
        refused: list[tuple[FileDocument, ExperimentError]] = []
        for file in pending:
            try:
                step, register = _step(file, register, held)
            except ExperimentError as error:
                refused.append((file, error))
            else:
                steps.append(step)
        if len(refused) == len(pending):
            hint = NO_ORDER if _is_free_of_conflicts(held, files) else ""
            raise WrongFiles([_fault(file, error, hint) for file, error in refused])
        # What was refused is tried again: what made it impossible may have changed by another step.
        pending = [file for file, _ in refused]
    notes: list[str] = []
    if delete_missing:
        names = {file.experiment.name for file in files}
        for name, entry in sorted(register.entries.items()):
            if name not in names and entry.experiment.state in LIVE:
                notes.append(
                    f"{name} is {entry.experiment.state} and not in the files: it stays, until it is concluded"
                )
            elif name not in names:
                change = delete(register, name)
                steps.append(_deletion(name, entry, change))
                register = change.register
    return Plan(tuple(steps), tuple(notes))


def _step(file: FileDocument, register: Register, held: Register) -> tuple[Step, Register]:
    entry = held.entries.get(file.experiment.name)
    _refuse_silent_restart(file, entry)
    sent, notes = _with_ramp_kept(file.document, entry)
    before = entry.experiment if entry is not None else None
    if before is not None and _is_as_held(sent, before.document):
        return _unchanged(file.source, before), register
    change = put(register, sent, 0)
    assert change.entry is not None
    step = Step(
        name=file.experiment.name,
        action=Action.CREATE if before is None else Action.CHANGE,
        source=file.source,
        revision=before.revision if before is not None else None,
        sent=sent,
        before=before.document if before is not None else None,
        after=change.entry.experiment.document,
        epochs=(before.epoch if before is not None else None, change.entry.experiment.epoch),
        units_moved_bp=change.units_moved_bp,
        warnings=change.warnings,
        notes=notes,
        at_once=register is held or _is_allowed(held, sent),
    )
    if before is not None and not step.diff:
        return _unchanged(file.source, before), register
    return step, change.register


def _is_as_held(document: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether a document differs from the held one by no more than the store fills in: the quick way to tell."""
    filled = dict(held)
    if "salt" not in document:
        filled.pop("salt", None)
    if not any("ranges" in variant for variant in document["variants"]):
        filled["variants"] = [{k: v for k, v in variant.items() if k != "ranges"} for variant in held["variants"]]
    return not differences(filled, document)


def _unchanged(source: Source, held: Experiment) -> Step:
    return Step(
        name=held.name,
        action=Action.UNCHANGED,
        source=source,
        revision=held.revision,
        sent=None,
        before=held.document,
        after=held.document,
        epochs=(held.epoch, held.epoch),
        units_moved_bp=0.0,
        warnings=(),
    )


def _is_allowed(register: Register, document: Mapping[str, Any]) -> bool:
    try:
        put(register, document, 0)
    except ExperimentError:
        return False
    return True


def _refuse_silent_restart(file: FileDocument, entry: Entry | None) -> None:
    # A gateway concludes an experiment by itself where a guardrail is breached. Files that still say `running` would
    # start it anew with the next run of CI: that takes somebody who means it.
    if entry is None or entry.experiment.state is not State.CONCLUDED or "salt" in file.document:
        return
    if file.experiment.state in LIVE:
        problem = (
            f"it is concluded (`audit {file.experiment.name}` says by whom and why): to start it again, give it a new "
            "`salt`; otherwise say `state: concluded`"
        )
        raise ExperimentError("state", problem)


def _with_ramp_kept(document: Mapping[str, Any], entry: Entry | None) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    # A file with a ramp and no enrolment leaves enrolment to the ramp, as a Deployment without `replicas` leaves those
    # to its autoscaler. Taken as "the first step", every apply would undo what the ramp has climbed.
    if entry is None or "enrol_bp" in document or document.get("ramp") is None:
        return document, ()
    kept = entry.experiment.document.get("enrol_bp")
    if kept is None or entry.experiment.state not in LIVE:
        return document, ()
    return {**document, "enrol_bp": kept}, (f"enrol_bp {kept} is kept: the ramp moves it, the file does not say it",)


def _deletion(name: str, entry: Entry, change: Change) -> Step:
    return Step(
        name=name,
        action=Action.DELETE,
        source=None,
        revision=entry.experiment.revision,
        sent=None,
        before=entry.experiment.document,
        after=None,
        epochs=(entry.experiment.epoch, None),
        units_moved_bp=change.units_moved_bp,
        warnings=change.warnings,
    )


def _fault(file: FileDocument, error: ExperimentError, hint: str) -> ConfigurationError:
    is_conflict = error.key in CONFLICTING
    return file.source.fault(error.key, f"{error}{hint}" if is_conflict else str(error))


def _is_free_of_conflicts(held: Register, files: Sequence[FileDocument]) -> bool:
    wanted = {file.experiment.name: file.experiment for file in files}
    try:
        refuse_conflicts({**{name: entry.experiment for name, entry in held.entries.items()}, **wanted}.values())
    except ExperimentError:
        return False
    return True
