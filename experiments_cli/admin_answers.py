"""What the admin port answers, as types. Keys that they do not have are let pass: a newer gateway says more."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from experiments import Experiment, ExperimentError, parse_experiment

Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment as the gateway holds it. document: None where it is gone."""

    revision: Whole
    epoch: Whole | None = None
    units_moved_bp: float = 0.0
    warnings: tuple[str, ...] = ()
    document: dict[str, Any] | None = None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm's requests came to in this epoch."""

    requests: Whole = 0
    errors: Whole = 0
    fallbacks: Whole = 0
    p50_ms: float | None = None
    p99_ms: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One guardrail, looked at for one arm."""

    metric: str
    variant: str
    breached: bool
    action: str
    control: float
    treatment: float
    allowed: float
    evidence: float | None = None
    requests: Whole = 0


class Guardrails(msgspec.Struct, frozen=True, kw_only=True):
    """How an experiment's guardrails stand."""

    experiment: str
    arms: dict[str, Arm] = {}
    findings: tuple[Finding, ...] = ()
    alpha: float | None = None


class UnitDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment's decision for one unit."""

    experiment: str
    model: str
    reason: str
    enrolled: bool = False
    variant: str | None = None
    version: str | None = None
    enrol_bucket: Whole | None = None
    split_bucket: Whole | None = None
    revision: Whole | None = None
    epoch: Whole | None = None


class Serves(msgspec.Struct, frozen=True, kw_only=True):
    """What one model serves a unit by. version: None where it is the default one, and that is not known here."""

    reason: str
    experiment: str | None = None
    variant: str | None = None
    version: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Every experiment's decision for one unit, and what each model serves."""

    unit: str
    decisions: tuple[UnitDecision, ...]
    serves: dict[str, Serves]


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """For which models all experiments are switched off; `*`: every model."""

    revision: Whole
    killed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change. at: RFC 3339. model: of the kill switch. told: the entry as it was answered, with all its keys."""

    id: str
    at: str
    actor: str
    reason: str
    action: str
    experiment: str | None = None
    model: str | None = None
    revision: Whole | None = None
    epoch: Whole | None = None
    units_moved_bp: float | None = None
    before: Any = None
    after: Any = None
    told: dict[str, Any] = {}


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some changes, the newest first. next: what to give as `before` for those before them; None at the end."""

    entries: tuple[dict[str, Any], ...]
    next: str | None = None

    def read(self) -> tuple[AuditEntry, ...]:
        """Return the entries. Raises msgspec.ValidationError."""
        return tuple(msgspec.convert({**entry, "told": entry}, AuditEntry) for entry in self.entries)


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Which revision a gateway process has, as it said so many seconds ago."""

    revision: Whole
    age_s: float | None = None


class ExperimentsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The experiments' part of the status."""

    source: str = "store"
    revision: Whole | None = None
    problem: str | None = None
    acknowledged: dict[str, Acknowledgement] = {}


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The status page of one process, or of several."""

    experiments: ExperimentsStatus | None = None
    processes: dict[str, Any] = {}


def parsed(name: str, held: Held) -> Experiment | None:
    """Read a held document; None where a newer gateway has written what this program does not know."""
    if held.document is None:
        return None
    try:
        found = parse_experiment(held.document, revision=held.revision, epoch=held.epoch or 0)
    except ExperimentError:
        return None
    return found if found.name == name else None


def mapping_of(value: Any) -> Mapping[str, Any]:
    """Return a document of the audit trail; empty where there is none."""
    return value if isinstance(value, Mapping) else {}
