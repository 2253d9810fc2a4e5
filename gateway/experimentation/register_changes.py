"""Changes of experiments: checked against what there is and what is routed, compared, swapped, and written down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from experiments import Experiment, ExperimentError, State
from experiments.register import ALL_MODELS, Change, Entry, Register, RegisterError, decode, delete, encode, kill, put
from gateway.configuration.experiment_routes import refuse_unrouted
from gateway.errors import (
    ExperimentsUnavailable,
    InvalidRequest,
    PreconditionFailed,
    PreconditionRequired,
    UnknownExperiment,
    UnknownModel,
)
from gateway.experimentation.experiment_store import ExperimentStore, StoreUnavailable, keys_of
from gateway.experimentation.live_register import LiveRegister
from gateway.routes_file import ModelRoute

ATTEMPTS_MAX: Final = 50
"""Of one change, while others are made at the same time. Each attempt that is lost is another's that was not."""

NEW: Final = 0
"""The expected revision of an experiment that is not to be there yet."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and why."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change has led to, or would."""

    change: Change
    created: bool


_Changed = tuple[Change, dict[str, Any], list[str]]
"""A change, what the audit trail is told of it, and keys that are void by it."""


class RegisterChanges:
    """Makes changes. routes: what is served just now."""

    def __init__(
        self,
        store: ExperimentStore,
        live: LiveRegister,
        routes: Callable[[], Mapping[str, ModelRoute]],
        now_us: Callable[[], int],
    ) -> None:
        self._store, self._live, self._routes, self._now_us = store, live, routes, now_us

    async def put(
        self, name: str, document: Mapping[str, Any], expected: int | None, author: Author, *, dry_run: bool
    ) -> Outcome:
        """Create an experiment, or replace its document.

        expected: the revision that it must have, or NEW. Raises InvalidRequest, PreconditionRequired,
        PreconditionFailed, ExperimentsUnavailable.
        """
        created = False

        def changed(register: Register) -> _Changed:
            nonlocal created
            before = register.entries.get(name)
            _check(name, before, expected)
            if document.get("experiment", name) != name:
                raise ExperimentError("experiment", f"the path says {name!r}")
            change = put(register, {"experiment": name, **document}, self._now_us())
            assert change.entry is not None
            if before is None or not _ends(change.entry.experiment):
                refuse_unrouted(change.entry.experiment, self._routes())
            created = before is None
            # Late counts of one that was deleted may still have come: they are not those of a new one of its name.
            forgotten = keys_of(name, change.entry.experiment.epoch) if created else []
            return change, {"action": "put", **_told(name, before, change)}, forgotten

        change = await self._change(changed, author, dry_run=dry_run)
        return Outcome(change, created)

    async def delete(self, name: str, expected: int | None, author: Author, *, dry_run: bool) -> Outcome:
        """Remove an experiment that does not run. Raises as `put`, and UnknownExperiment."""

        def changed(register: Register) -> _Changed:
            before = register.entries.get(name)
            if before is None:
                raise UnknownExperiment(f"there is no experiment {name[:64]!r}")
            _check(name, before, expected)
            change = delete(register, name)
            told = {"action": "delete", **_told(name, before, change)}
            return change, told, keys_of(name, before.experiment.epoch)

        return Outcome(await self._change(changed, author, dry_run=dry_run), created=False)

    async def kill(self, model: str, author: Author, *, on: bool, dry_run: bool) -> Change:
        """Switch a model's experiments off or on again. Raises UnknownModel, ExperimentsUnavailable."""
        if model != ALL_MODELS and model not in self._routes():
            raise UnknownModel(
                f"no model {model[:64]!r} is served here; there are: {', '.join(sorted(self._routes()))}"
            )

        def changed(register: Register) -> _Changed:
            change = kill(register, model, on=on)
            told = {"action": "kill" if on else "unkill", "model": model, "revision": change.register.revision}
            return change, told, []

        return await self._change(changed, author, dry_run=dry_run)

    async def _change(self, changed: Callable[[Register], _Changed], author: Author, *, dry_run: bool) -> Change:
        try:
            for _ in range(ATTEMPTS_MAX):
                register = await self._read()
                change, told, forgotten = changed(register)
                if dry_run:
                    return change
                at = datetime.fromtimestamp(self._now_us() / 1e6, UTC).isoformat()
                entry = {"at": at, "actor": author.actor, "reason": author.reason, **told}
                after, data = change.register, encode(change.register)
                if await self._swap(register.revision, after.revision, data, entry, forgotten):
                    await self._live.take_own(after, data)
                    return change
        except ExperimentError as error:
            raise InvalidRequest(error.problem, error.key) from None
        except (StoreUnavailable, RegisterError) as error:
            raise ExperimentsUnavailable(f"nothing was changed: {error}") from None
        raise ExperimentsUnavailable(f"others changed the experiments {ATTEMPTS_MAX} times meanwhile: try again")

    async def _swap(self, *swapped: Any) -> bool:
        try:
            return await self._store.swap(*swapped)
        except StoreUnavailable as error:
            # It may have been stored although the answer was lost.
            raise ExperimentsUnavailable(f"it is not known whether it was changed: {error}; read it again") from None

    async def _read(self) -> Register:
        known = self._live.register
        stored = await self._store.read(None if self._live.from_disk else known.revision)
        if stored.revision < known.revision:
            # Emptied, or set back: what is in force here is given back to it first, so that nothing is written over a
            # loss, or made of what is long out of date.
            await self._live.look()
            return self._live.register
        return known if stored.data is None else decode(stored.data, known)


def revisioned(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as it is answered."""
    return {
        "revision": experiment.revision,
        "epoch": experiment.epoch,
        "units_moved_bp": 0,
        "warnings": [],
        "document": dict(experiment.document),
    }


def _ends(experiment: Experiment) -> bool:
    # Whatever is routed by now: one that cannot be concluded can never be removed.
    return experiment.state is State.CONCLUDED and experiment.winner is None


def _check(name: str, before: Entry | None, expected: int | None) -> None:
    if expected is None:
        raise PreconditionRequired(
            "send `If-Match` with the ETag of what you read, or `If-None-Match: *` to make a new experiment"
        )
    if (NEW if before is None else before.experiment.revision) == expected:
        return
    current = None if before is None else revisioned(before.experiment)
    if expected == NEW:
        raise PreconditionFailed(f"the experiment {name!r} is there already", current)
    if before is None:
        raise PreconditionFailed(f"there is no experiment {name[:64]!r} any more", None)
    raise PreconditionFailed(f"it has revision {before.experiment.revision} by now, not {expected}", current)


def _told(name: str, before: Entry | None, change: Change) -> dict[str, Any]:
    after = change.entry.experiment if change.entry is not None else None
    last = after or (before.experiment if before is not None else None)
    return {
        "experiment": name,
        "revision": change.register.revision,
        "epoch": last.epoch if last is not None else None,
        "units_moved_bp": round(change.units_moved_bp, 2),
        "before": _document(before.experiment if before is not None else None),
        "after": _document(after),
    }


def _document(experiment: Experiment | None) -> Mapping[str, Any] | None:
    return None if experiment is None else experiment.document
