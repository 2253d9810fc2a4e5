"""The register as a state machine, beside a plain model of its rules."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from experiments import ExperimentError
from experiments.register import Register, decode, delete, encode, kill, put

NAMES = ("a", "b", "c")
AFTER = {
    "draft": {"draft", "running", "paused", "concluded"},
    "running": {"running", "paused", "concluded"},
    "paused": {"running", "paused", "concluded"},
    "concluded": {"concluded", "draft", "running"},
}
LIVE = ("running", "paused")
WHOLE = ((0, 10_000),)
LOWER, UPPER = ((0, 5_000),), ((5_000, 10_000),)


@dataclass(frozen=True)
class Wanted:
    """What a document says, whichever way it says it."""

    model: str = "m"
    unit: str = "user"
    state: str = "running"
    hash: str = "v1"
    salt: str | None = None
    layer: tuple[str, tuple[tuple[int, int], ...]] = ("default", WHOLE)
    holdout: tuple[str, int] | None = None
    enrol_bp: int = 10_000
    where: str | None = None
    arms: tuple[tuple[str, str, int], ...] = (("control", "1", 5_000), ("treatment", "2", 5_000))
    winner: str | None = None


def said(name: str, wanted: Wanted, *, at_length: bool) -> dict[str, Any]:
    """Write a document: with every default, or with none."""
    arms = [{"name": arm, "version": version, "bp": bp} for arm, version, bp in wanted.arms]
    document: dict[str, Any] = {"experiment": name, "model": wanted.model, "unit": wanted.unit, "variants": arms}
    parts = {
        "state": (wanted.state, "draft"),
        "hash": (wanted.hash, "v1"),
        "layer": (
            {"name": wanted.layer[0], "slots": [list(slot) for slot in wanted.layer[1]]},
            {"name": "default", "slots": [[0, 10_000]]},
        ),
        "holdout": (wanted.holdout and dict(zip(("name", "bp"), wanted.holdout, strict=True)), None),
        "enrol_bp": (wanted.enrol_bp, 10_000),
        "where": (wanted.where, None),
        "winner": (wanted.winner, None),
    }
    document |= {key: value for key, (value, default) in parts.items() if at_length or value != default}
    return document if wanted.salt is None else document | {"salt": wanted.salt}


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["m", "m", "n"]),
        "unit": st.sampled_from(["user", "user", "session"]),
        "state": st.sampled_from(["draft", "running", "running", "paused", "concluded"]),
        "hash": st.sampled_from(["v1", "v1", "growthbook-v2", "eppo"]),
        "salt": st.sampled_from([None, None, "s1", "s2"]),
        "layer": st.sampled_from([("default", WHOLE), ("default", LOWER), ("default", UPPER), ("page", WHOLE)]),
        "holdout": st.sampled_from([None, ("h", 500), ("h", 600), ("g", 500)]),
        "enrol_bp": st.sampled_from([0, 100, 5_000, 10_000]),
        "where": st.sampled_from([None, "age > 3"]),
        "arms": st.sampled_from(
            [
                (("control", "1", 5_000), ("treatment", "2", 5_000)),
                (("control", "1", 9_000), ("treatment", "2", 1_000)),
                (("control", "1", 9_000), ("treatment", "3", 1_000)),
                (("control", "1", 2_000), ("treatment", "2", 3_000), ("other", "3", 5_000)),
            ]
        ),
        "winner": st.sampled_from([None, None, "treatment", "other"]),
    },
)
BAD = st.sampled_from(
    [
        {"experiment": "../e"},
        {"model": None},
        {"state": "runing"},
        {"hash": "v2"},
        {"enrol_bp": 10_001},
        {"where": "age.real > 3"},
        {"variants": []},
        {"variants": [{"name": "control", "version": "1", "bp": 9_999}]},
        {"overrides": {"p7": "nobody"}},
        {"guardrails": [{"metric": "errors", "max_abs_increase": 0}]},
        {"ramp": {}},
        {"nonsense": 1},
    ]
)


class RegisterMachine(RuleBasedStateMachine):
    """Makes changes, and says of each beforehand whether it stands, and what it must lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.register = Register()
        self.now_us = 0
        self.wanted: dict[str, Wanted] = {}
        self.epochs: dict[str, int] = {}
        self.revisions: dict[str, int] = {}
        self.created: dict[str, int] = {}
        self.step_since: dict[str, int] = {}
        self.killed: set[str] = set()

    @rule(name=st.sampled_from(NAMES), changes=CHANGES, at_length=st.booleans())
    def put(self, name: str, changes: dict[str, Any], at_length: bool) -> None:
        """Create an experiment, or change some of it."""
        self.now_us += 1
        before = self.wanted.get(name)
        wanted = replace(before or Wanted(), **changes)
        if wanted.state != "concluded":
            wanted = replace(wanted, winner=None)
        if "salt" not in changes:
            wanted = replace(wanted, salt=None)  # left out of the document
        document = said(name, wanted, at_length=at_length)
        drawn_by = self._salt(name, wanted)
        if not self._stands(name, replace(wanted, salt=drawn_by)):
            with pytest.raises(ExperimentError):
                put(self.register, document, self.now_us)
            return
        change = put(self.register, document, self.now_us)
        assert change.entry is change.register.entries[name]
        assert 0 <= change.units_moved_bp <= 10_000
        self._take(change.register)
        self._remember(name, before, replace(wanted, salt=change.entry.experiment.salt), drawn_by)

    @rule(name=st.sampled_from(NAMES), changes=CHANGES, bad=BAD)
    def put_bad(self, name: str, changes: dict[str, Any], bad: dict[str, Any]) -> None:
        """A wrong document changes nothing, whatever else it says."""
        before = self.register
        with pytest.raises(ExperimentError):
            put(self.register, said(name, replace(Wanted(), **changes), at_length=False) | bad, self.now_us)
        assert self.register is before

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def put_the_same(self, data: st.DataObject) -> None:
        """What was read may be written: nobody moves, and no epoch begins."""
        name = data.draw(st.sampled_from(sorted(self.wanted)))
        change = put(self.register, dict(self.register.entries[name].experiment.document), self.now_us)
        assert (change.units_moved_bp, change.entry.experiment.epoch) == (0, self.epochs[name])
        assert change.entry.experiment.document == self.register.entries[name].experiment.document
        self._take(change.register)
        self.revisions[name] = change.register.revision

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """Delete one that does not run."""
        if name not in self.wanted:
            with pytest.raises(KeyError):
                delete(self.register, name)
        elif self.wanted[name].state in LIVE:
            with pytest.raises(ExperimentError):
                delete(self.register, name)
        else:
            self._take(delete(self.register, name).register)
            # Its epochs stay: one that gets its name goes on counting.
            for known in (self.wanted, self.revisions, self.created, self.step_since):
                del known[name]

    @rule(model=st.sampled_from(["m", "n", "*"]), on=st.booleans())
    def kill(self, model: str, on: bool) -> None:
        """Switch experiments off or on."""
        change = kill(self.register, model, on=on)
        self._take(change.register)
        (self.killed.add if on else self.killed.discard)(model)

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        assert self.register.killed == self.killed
        assert set(self.register.entries) == set(self.wanted)
        for name, entry in self.register.entries.items():
            made, wanted = entry.experiment, self.wanted[name]
            assert (made.revision, made.epoch) == (self.revisions[name], self.epochs[name])
            assert (entry.created_at_us, entry.step_since_us) == (self.created[name], self.step_since[name])
            assert (made.state, made.salt, made.enrol_bp) == (wanted.state, wanted.salt, wanted.enrol_bp)
            assert [(v.name, v.version, v.bp) for v in made.variants] == list(wanted.arms)
        for model in ("m", "n"):
            off = model in self.killed or "*" in self.killed
            serving = [] if off else sorted(name for name, wanted in self.wanted.items() if wanted.model == model)
            assert [made.name for made in self.register.of_model(model)] == serving

    @invariant()
    def conflicts_never_stand(self) -> None:
        live = [wanted for wanted in self.wanted.values() if wanted.state in LIVE]
        for index, one in enumerate(live):
            assert not any(conflict(one, other) for other in live[index + 1 :])

    @invariant()
    def what_is_stored_is_read_as_it_was(self) -> None:
        stored = encode(self.register)
        read = decode(stored)
        assert encode(read) == stored
        assert told(read) == told(self.register)
        known = decode(stored, self.register)
        assert told(known) == told(self.register)
        assert all(known.entries[n].experiment is e.experiment for n, e in self.register.entries.items())

    def _salt(self, name: str, wanted: Wanted) -> str | None:
        """Say which salt the document will have: its own, the one before, or None for one that was never used."""
        before = self.wanted.get(name)
        if wanted.salt is not None or before is None:
            return wanted.salt
        return None if before.state == "concluded" and wanted.state != "concluded" else before.salt

    def _stands(self, name: str, wanted: Wanted) -> bool:
        before = self.wanted.get(name)
        arms = [arm for arm, _, _ in wanted.arms]
        if wanted.winner is not None and wanted.winner not in arms:
            return False
        if before is not None:
            starts_again = before.state == "concluded" and wanted.state != "concluded"
            same_draw = (before.hash, before.salt) == (wanted.hash, wanted.salt)
            if wanted.state not in AFTER[before.state]:
                return False
            if before.state != "draft" and ((before.model, before.unit) != (wanted.model, wanted.unit)):
                return False
            if before.state != "draft" and starts_again == same_draw:
                return False
        others = [other for other_name, other in self.wanted.items() if other_name != name and other.state in LIVE]
        return wanted.state not in LIVE or not any(conflict(wanted, other) for other in others)

    def _remember(self, name: str, before: Wanted | None, wanted: Wanted, drawn_by: str | None) -> None:
        if drawn_by is not None:
            assert wanted.salt == drawn_by
        elif before is not None:
            assert wanted.salt != before.salt
        same = before is not None and replace(
            before,
            model=wanted.model,
            unit=wanted.unit,
            state=wanted.state,
            enrol_bp=wanted.enrol_bp,
            winner=wanted.winner,
        )
        epoch_stays = same == wanted
        step_stays = (
            epoch_stays and before is not None and ((before.state, before.enrol_bp) == (wanted.state, wanted.enrol_bp))
        )
        self.wanted[name] = wanted
        self.revisions[name] = self.register.revision
        self.epochs[name] = self.epochs.get(name, 0) + (not epoch_stays)
        self.created.setdefault(name, self.now_us)
        self.step_since[name] = self.step_since[name] if step_stays else self.now_us

    def _take(self, after: Register) -> None:
        assert after.revision == self.register.revision + 1
        self.register = after


def conflict(one: Wanted, other: Wanted) -> bool:
    same_holdout = one.holdout and other.holdout and one.holdout[0] == other.holdout[0]
    if same_holdout and (one.holdout[1] != other.holdout[1] or one.unit != other.unit):
        return True
    if (one.model, one.layer[0]) != (other.model, other.layer[0]):
        return False
    overlap = any(a < d and c < b for a, b in one.layer[1] for c, d in other.layer[1])
    return one.unit != other.unit or overlap


def told(register: Register) -> list[Any]:
    """Return all that a register says."""
    entries = [
        (name, e.experiment.document, e.experiment.revision, e.experiment.epoch, e.created_at_us, e.step_since_us)
        for name, e in sorted(register.entries.items())
    ]
    return [register.revision, sorted(register.killed), dict(register.retired), entries]


RegisterMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTheRegisterAsAStateMachine = RegisterMachine.TestCase
