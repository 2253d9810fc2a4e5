"""All experiments as one revisioned document: what is stored, compared and swapped, and sent to every gateway.

Pure: a change makes another register, one revision higher. Who stores it, and how, is not known here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from experiments.changes import least_moving_ranges, refills_ranges, refuse_change, share_moved, with_ranges
from experiments.conflicts import refuse_conflicts
from experiments.definition import Experiment, State, default_salt, fingerprint, parse_experiment, what_decides
from experiments.errors import ExperimentError
from experiments.variants import ranges_in_turn

FORMAT: Final = 1
EXPERIMENTS_MAX: Final = 1_000
RETIRED_MAX: Final = 10_000
"""Names of deleted experiments that are remembered; above it, the longest gone are forgotten."""

ALL_MODELS: Final = "*"
"""In the kill switch: every model."""


class RegisterError(ValueError):
    """Stored bytes are no register that this program can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One experiment. Times: UTC microseconds."""

    experiment: Experiment
    created_at_us: int
    step_since_us: int
    """When it began to run as it does: its state, its enrolment or its epoch last changed then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Every experiment, and for which models all of them are switched off."""

    revision: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict)
    killed: frozenset[str] = frozenset()
    retired: Mapping[str, int] = field(default_factory=dict)
    """The last epoch of each deleted experiment: one that gets its name goes on counting, and is drawn anew."""

    def is_killed(self, model: str) -> bool:
        """Whether a model's experiments are switched off."""
        return model in self.killed or ALL_MODELS in self.killed

    def of_model(self, model: str) -> tuple[Experiment, ...]:
        """Return a model's experiments in the order of their names; none where they are switched off."""
        if self.is_killed(model):
            return ()
        return tuple(e.experiment for _, e in sorted(self.entries.items()) if e.experiment.model == model)

    def models(self) -> set[str]:
        """Name the models that have experiments."""
        return {entry.experiment.model for entry in self.entries.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A register that may take another's place, and what it means."""

    register: Register
    entry: Entry | None
    """Of the experiment that changed; None where it is gone, or all are meant."""

    units_moved_bp: float
    warnings: tuple[str, ...]


def put(register: Register, document: Mapping[str, Any], now_us: int) -> Change:
    """Create an experiment, or replace its document. Raises ExperimentError.

    Where the weights change and the document has no ranges, those are found that move the fewest units.
    """
    wanted = parse_experiment(document)
    before = register.entries.get(wanted.name)
    if before is None and len(register.entries) >= EXPERIMENTS_MAX:
        raise ExperimentError("experiment", f"there are {EXPERIMENTS_MAX} already: delete some that are concluded")
    revision = register.revision + 1
    past_epochs = 0 if before is not None else register.retired.get(wanted.name, 0)
    filled = _filled(wanted, before, revision, is_new_draw=past_epochs > 0)
    after = parse_experiment(filled, revision=revision, epoch=past_epochs + 1)
    began = before is None or what_decides(after) != what_decides(before.experiment)
    if before is not None:
        after = replace(after, epoch=before.experiment.epoch + began)
        refuse_change(before.experiment, after)
    others = [e.experiment for name, e in sorted(register.entries.items()) if name != after.name]
    refuse_conflicts([*others, after])
    same_step = (
        before is not None
        and not began
        and (before.experiment.state, before.experiment.enrol_bp) == (after.state, after.enrol_bp)
    )
    entry = Entry(
        experiment=after,
        created_at_us=now_us if before is None else before.created_at_us,
        step_since_us=before.step_since_us if before is not None and same_step else now_us,
    )
    moved = share_moved(before.experiment if before else None, after)
    return Change(
        register=replace(register, revision=revision, entries={**register.entries, after.name: entry}),
        entry=entry,
        units_moved_bp=float(moved * 10_000),
        warnings=(*_warnings(before.experiment if before else None, after), *_warnings_of_name(after, past_epochs)),
    )


def delete(register: Register, name: str) -> Change:
    """Remove an experiment that does not run. Raises ExperimentError, or KeyError where there is none."""
    entry = register.entries[name]
    if entry.experiment.state in {State.RUNNING, State.PAUSED}:
        raise ExperimentError("state", f"{name!r} is {entry.experiment.state}: conclude it first")
    entries = {other: found for other, found in register.entries.items() if other != name}
    others = [(other, epoch) for other, epoch in register.retired.items() if other != name]
    retired = dict([*others, (name, entry.experiment.epoch)][-RETIRED_MAX:])
    changed = replace(register, revision=register.revision + 1, entries=entries, retired=retired)
    moved = share_moved(entry.experiment, None)
    warnings = ("its rows stay in the log; the audit trail keeps its documents",)
    return Change(register=changed, entry=None, units_moved_bp=float(moved * 10_000), warnings=warnings)


def kill(register: Register, model: str, *, on: bool) -> Change:
    """Switch a model's experiments off, or every model's, so that all get the default version; or on again."""
    killed = register.killed | {model} if on else register.killed - {model}
    changed = replace(register, revision=register.revision + 1, killed=killed)
    everyone = [entry.experiment for entry in register.entries.values()]
    hit = [e for e in everyone if register.is_killed(e.model) is not changed.is_killed(e.model)]
    running = sorted(e.name for e in hit if e.state is State.RUNNING)
    word = "get the default version" if on else "are drawn again"
    if not on and changed.is_killed(model):
        return Change(
            register=changed,
            entry=None,
            units_moved_bp=0.0,
            warnings=("they stay off: all models' experiments are switched off",),
        )
    warnings = (f"all units of {', '.join(running)} {word}",) if running else ("no running experiment is touched",)
    return Change(register=changed, entry=None, units_moved_bp=0.0, warnings=warnings)


def encode(register: Register) -> bytes:
    """Return what is stored."""
    experiments = {
        name: {
            "document": entry.experiment.document,
            "revision": entry.experiment.revision,
            "epoch": entry.experiment.epoch,
            "created_at_us": entry.created_at_us,
            "step_since_us": entry.step_since_us,
        }
        for name, entry in sorted(register.entries.items())
    }
    stored = {
        "format": FORMAT,
        "revision": register.revision,
        "killed": sorted(register.killed),
        "experiments": experiments,
    }
    if register.retired:
        stored["retired"] = dict(register.retired)
    return json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes, known: Register | None = None) -> Register:
    """Read what is stored. Raises RegisterError.

    known: a register read before, whose experiments are taken over where they have not changed: to compile one costs
        more than all the rest.
    """
    try:
        stored = json.loads(data)
        _refuse_format(stored["format"])
        entries = {name: _decoded(name, entry, known) for name, entry in stored["experiments"].items()}
        return Register(
            revision=int(stored["revision"]),
            entries=entries,
            killed=frozenset(map(str, stored["killed"])),
            retired={name: int(epoch) for name, epoch in stored.get("retired", {}).items()},
        )
    except RegisterError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise RegisterError(f"it cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _refuse_format(found: Any) -> None:
    if found != FORMAT:
        raise RegisterError(f"it has format {found!r}, and this program reads {FORMAT}")


def _decoded(name: str, stored: Mapping[str, Any], known: Register | None) -> Entry:
    old = known.entries.get(name) if known is not None else None
    revision, epoch = int(stored["revision"]), int(stored["epoch"])
    numbers_stay = old is not None and (old.experiment.revision, old.experiment.epoch) == (revision, epoch)
    # The document too: a store that was emptied, or set back, gives the same numbers to others.
    if old is not None and numbers_stay and old.experiment.document == stored["document"]:
        experiment = old.experiment
    else:
        experiment = parse_experiment(stored["document"], revision=revision, epoch=epoch)
        if experiment.name != name:
            raise RegisterError(f"{name!r} holds the document of {experiment.name!r}")
    return Entry(
        experiment=experiment,
        created_at_us=int(stored["created_at_us"]),
        step_since_us=int(stored["step_since_us"]),
    )


def _filled(wanted: Experiment, before: Entry | None, revision: int, *, is_new_draw: bool) -> dict[str, Any]:
    """Return the document with what the register decides: a new draw's salt, and ranges."""
    document = _as_json(wanted.document)
    starts_again = (
        before is not None and before.experiment.state is State.CONCLUDED and wanted.state is not State.CONCLUDED
    )
    if "salt" not in document:
        if starts_again or is_new_draw:
            document["salt"] = f"{fingerprint([wanted.name, revision]):08x}"
        elif before is not None:
            document["salt"] = before.experiment.salt
        else:
            document["salt"] = default_salt(wanted.name)
    new_draw = before is None or document["salt"] != before.experiment.salt or wanted.hash is not before.experiment.hash
    given = any(variant.get("ranges") is not None for variant in document["variants"])
    if before is None or new_draw or given or not refills_ranges(wanted):
        return document
    ranges = least_moving_ranges(before.experiment.variants, [(v.name, v.bp) for v in wanted.variants])
    in_turn = ranges_in_turn([variant.bp for variant in wanted.variants])
    return document if list(ranges) == in_turn else with_ranges(document, ranges)


def _as_json(document: Mapping[str, Any]) -> dict[str, Any]:
    # As it will be read back: YAML has keys that are numbers, and values that are dates.
    copy: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return copy


def _warnings_of_name(after: Experiment, past_epochs: int) -> tuple[str, ...]:
    if not past_epochs:
        return ()
    return (f"an experiment of this name was deleted: its rows are in the log, and epoch {after.epoch} begins",)


def _warnings(before: Experiment | None, after: Experiment) -> tuple[str, ...]:
    found = []
    if after.state is State.RUNNING and before is not None and before.state is State.RUNNING:
        if before.document.get("where") != after.document.get("where"):
            found.append("the change of `where` moves units that cannot be counted: it depends on their requests")
        if before.epoch != after.epoch:
            found.append(
                f"epoch {after.epoch} begins: units that change arms carry over what they have seen in the other one"
            )
        other = [v.name for v in after.variants if (b := before.variant_named(v.name)) and b.version != v.version]
        if other:
            found.append(f"another version answers in {', '.join(other)}: its units do not change arms, but models")
        if after.enrol_bp < before.enrol_bp:
            found.append("units leave the experiment: those that come back later have a gap")
    if after.state is State.RUNNING and after.ramp is not None and after.enrol_bp not in (0, *after.ramp.steps_bp):
        found.append(f"enrol_bp {after.enrol_bp} is no step of the ramp: it goes on with the next larger one")
    if after.state is State.RUNNING and after.ramp is not None and not after.guardrails:
        found.append("the ramp has no guardrails: it climbs by time alone")
    return tuple(found)
