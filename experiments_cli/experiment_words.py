"""An experiment in words: shares, arms, guardrails, and where its ramp stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from experiments import Experiment, ExperimentError, Reason, State, parse_experiment
from experiments.definition import what_decides
from experiments_cli.admin_answers import AuditEntry, Finding, Guardrails, UnitDecision, mapping_of
from experiments_cli.document_diff import ABSENT, KeyChange
from experiments_cli.terminal import shown

KEYS_SHOWN_MAX = 40
"""Changed keys that are shown to a person; ten thousand overrides are not read by one."""

_REASONS: dict[str, str] = {
    Reason.SPLIT: "drawn by the split",
    Reason.OVERRIDE: "listed in `overrides`; not counted",
    Reason.FORCED: "forced by the request; not counted",
    Reason.WINNER: "the winner's arm",
    Reason.NO_EXPERIMENT: "no experiment",
    Reason.NO_UNIT: "no unit, so nothing is drawn",
    Reason.NOT_RUNNING: "the experiment does not run",
    Reason.NOT_TARGETED: "`where` is not true of it, or not known to be",
    Reason.HELD_OUT: "held out: in the holdout's share",
    Reason.OTHER_SLOT: "in a slot of the layer that is not the experiment's",
    Reason.NOT_ENROLLED: "not enrolled: its enrolment bucket is beyond the share",
    "killed": "the kill switch is on",
}


def share(bp: float) -> str:
    """Return basis points as a person writes a share."""
    return f"{round(bp / 100, 4):g} %"


def moved(bp: float) -> str:
    """Say how many units change arms."""
    return f"moves {share(bp)} of units" if bp else "moves no unit"


def reason_words(reason: str) -> str:
    """Say why a unit is, or is not, in an arm."""
    return _REASONS.get(reason, reason)


def decision_words(decision: UnitDecision, experiment: Experiment | None) -> str:
    """Say the reason of a decision, with the numbers that made it where they are known."""
    words = reason_words(decision.reason)
    if experiment is None:
        return words
    if decision.reason == Reason.NOT_RUNNING:
        return f"the experiment does not run: it is {experiment.state}"
    if decision.reason == Reason.NOT_ENROLLED and decision.enrol_bucket is not None and decision.split_bucket is None:
        return f"not enrolled: bucket {decision.enrol_bucket} is not under {experiment.enrolled_below}"
    if decision.reason == Reason.HELD_OUT and experiment.holdout is not None:
        return f"held out by {experiment.holdout.name!r} ({share(experiment.holdout.bp)})"
    if decision.reason == Reason.OTHER_SLOT:
        slots = ", ".join(f"[{first}, {end})" for first, end in experiment.slots)
        return f"in a slot of layer {experiment.layer!r} beyond {slots}"
    return words


def arms_words(experiment: Experiment) -> str:
    """Name the arms with share and version."""
    return ", ".join(f"{v.name} {share(v.bp)} ({v.version})" for v in experiment.variants)


def guardrail_words(experiment: Experiment, found: Guardrails | None) -> str:
    """Say in a word how the guardrails stand; empty where there are none, or nothing runs."""
    if not experiment.guardrails or experiment.state is not State.RUNNING:
        return ""
    if found is None:
        return "unknown"
    breached = [f"{f.metric} of {f.variant}" for f in found.findings if f.breached]
    if breached:
        return f"BREACHED: {', '.join(breached)}"
    return "ok" if any(arm.requests for arm in found.arms.values()) else "no requests yet"


def finding_words(finding: Finding) -> str:
    """Say one finding."""
    if not finding.requests:
        return f"{finding.metric} of {finding.variant}: no requests yet"
    verdict = f"BREACHED ({finding.action})" if finding.breached else "ok"
    return (
        f"{finding.metric} of {finding.variant}: {verdict}; {finding.treatment:.4g}, of control {finding.control:.4g}, "
        f"allowed {finding.allowed:.4g}; after {finding.requests:,} requests"
    )


def change_lines(changes: Sequence[KeyChange]) -> list[str]:
    """Write changed keys, old → new."""
    lines = []
    for change in changes[:KEYS_SHOWN_MAX]:
        old = "(not there)" if change.old is ABSENT else shown(change.old)
        new = "(left out)" if change.new is ABSENT else shown(change.new)
        lines.append(f"{change.key}: {old} → {new}")
    if len(changes) > KEYS_SHOWN_MAX:
        lines.append(f"… and {len(changes) - KEYS_SHOWN_MAX:,} further keys")
    return lines


@dataclass(frozen=True, slots=True)
class RampPosition:
    """Where a ramp stands. next_bp: None after its last step. next_at: None where it is not known, or not running."""

    enrol_bp: int
    next_bp: int | None
    since: datetime | None
    next_at: datetime | None
    requests_min: int
    is_running: bool

    def words(self, now: datetime) -> str:
        """Say it."""
        at = f"at {share(self.enrol_bp)}"
        if self.next_bp is None:
            return f"{at}, its last step"
        if not self.is_running:
            return f"{at}; the next step is {share(self.next_bp)}, once it runs"
        when = "when its hold is over"
        if self.next_at is not None:
            left = (self.next_at - now).total_seconds()
            clock = self.next_at.isoformat(timespec="seconds").replace("+00:00", "Z")
            when = f"in {_duration(left)} ({clock}) at the earliest" if left > 0 else f"due since {clock}"
        wait = f", once each arm has had {self.requests_min} requests at this step" if self.requests_min else ""
        return f"{at}; the next step is {share(self.next_bp)}, {when}{wait}"

    def facts(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "enrol_bp": self.enrol_bp,
            "next_bp": self.next_bp,
            "since": self.since.isoformat() if self.since else None,
            "next_at": self.next_at.isoformat() if self.next_at else None,
        }


def ramp_position(experiment: Experiment, trail: Iterable[AuditEntry]) -> RampPosition | None:
    """Find where a ramp stands. trail: the experiment's audit entries, the newest first.

    A step began when state, enrolment or epoch last changed, which the trail tells.
    """
    ramp = experiment.ramp
    if ramp is None:
        return None
    since = None
    for entry in trail:
        if _step_of(entry.before) != _step_of(entry.after):
            since = _moment(entry.at)
            break
    next_bp = ramp.after(experiment.enrol_bp)
    is_running = experiment.state is State.RUNNING
    next_at = since + timedelta(seconds=ramp.hold_s) if since and next_bp is not None and is_running else None
    return RampPosition(experiment.enrol_bp, next_bp, since, next_at, ramp.requests_min, is_running)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _step_of(document: Any) -> Any:
    try:
        read = parse_experiment(mapping_of(document))
    except ExperimentError:
        return document
    return read.state, read.enrol_bp, what_decides(read)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
