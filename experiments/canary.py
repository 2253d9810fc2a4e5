"""What to do with a running experiment: roll it back, take the ramp's next step, promote it, or leave it.

Pure: counts and time come in, a decision comes out. Who counts, and who carries it out, is not known here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from experiments.definition import Experiment, State
from experiments.evidence import distance_beyond_chance, log_evidence_quantile, log_evidence_rate
from experiments.guardrails import ALPHA, ERROR_RATE, SCORE_DRIFT, Action, Guardrail
from experiments.register import Entry

LATENCY_MS_MIN: Final = 0.05
LATENCY_GROWTH: Final = 1.05
"""Of bins of latency: quantiles are known to 5 %."""

SCORE_SCALE: Final = 0.02
SCORE_BINS_PER_UNIT: Final = 12.0
"""Of bins of scores: fine around 0, and as wide as the score is large far from it."""

BINS_MAX: Final = 400


@dataclass(slots=True)
class ArmCounts:
    """What one arm's enrolled requests came to. Latencies and scores: counts by bin."""

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    scores: dict[int, int] = field(default_factory=dict)

    def add(self, other: "ArmCounts") -> None:
        """Add another's counts to these."""
        self.requests += other.requests
        self.errors += other.errors
        self.fallbacks += other.fallbacks
        for own, more in ((self.latency, other.latency), (self.scores, other.scores)):
            for index, count in more.items():
                own[index] = own.get(index, 0) + count


Counts = Mapping[int, Mapping[str, ArmCounts]]
"""By enrolment (basis points) while they were counted, by arm; all of one epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One guardrail, looked at. evidence: that of the breach, at least 1/alpha where it is one."""

    metric: str
    variant: str
    breached: bool
    action: Action
    control: float
    treatment: float
    allowed: float
    evidence: float
    requests: int

    def __str__(self) -> str:
        return (
            f"{self.metric} of {self.variant} {self.treatment:.4g}, of control {self.control:.4g}, "
            f"allowed {self.allowed:.4g}; after {self.requests} requests to {self.variant}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A change to make. document: the experiment's next one."""

    document: dict[str, Any]
    reason: str


def latency_bin(latency_us: int) -> int:
    """Return the bin of a latency; bin i holds latencies up to `bin_edge_ms(i)`."""
    if latency_us <= LATENCY_MS_MIN * 1000:
        return 0
    return min(BINS_MAX, math.ceil(math.log(latency_us / (LATENCY_MS_MIN * 1000)) / math.log(LATENCY_GROWTH)))


def bin_edge_ms(index: int) -> float:
    """Return a bin's upper edge."""
    return LATENCY_MS_MIN * LATENCY_GROWTH**index


def score_bin(score: float) -> int:
    """Return the bin of a score that is finite."""
    index = math.asinh(score / SCORE_SCALE) * SCORE_BINS_PER_UNIT  # infinite for scores near the largest float
    return math.floor(max(-BINS_MAX, min(BINS_MAX, index)))


def look(experiment: Experiment, counts: Counts) -> tuple[Finding, ...]:
    """Judge every guardrail for every treatment arm, at an even share of ALPHA each."""
    totals = _totals(counts)
    control = totals.get(experiment.control.name, ArmCounts())
    treatments = [variant for variant in experiment.variants if variant.name != experiment.control.name]
    alpha = ALPHA / max(1, len(experiment.guardrails) * len(treatments))
    return tuple(
        _judge(guardrail, variant.name, totals.get(variant.name, ArmCounts()), control, alpha)
        for guardrail in experiment.guardrails
        for variant in treatments
    )


def decide(entry: Entry, counts: Counts, findings: tuple[Finding, ...], now_us: int) -> Decision | None:
    """Say what is to be done now; None: nothing."""
    experiment = entry.experiment
    if experiment.state is not State.RUNNING:
        return None
    document = dict(experiment.document)
    breach = next((f for f in findings if f.breached and f.action is Action.ROLLBACK), None)
    if breach is not None:
        return Decision(document={**document, "state": State.CONCLUDED.value}, reason=f"rolled back: {breach}")
    ramp = experiment.ramp
    if ramp is None or not _has_held(entry, counts, now_us):
        return None
    step = ramp.after(experiment.enrol_bp)
    held = f"{experiment.enrol_bp} bp held for {ramp.hold_s:g} s"
    if step is not None:
        return Decision(document={**document, "enrol_bp": step}, reason=f"ramp: {held}; the next step is {step} bp")
    if not ramp.promote:
        return None
    winner = next(v.name for v in experiment.variants if v.name != experiment.control.name)
    concluded = {**document, "state": State.CONCLUDED.value, "winner": winner}
    return Decision(document=concluded, reason=f"promoted: the last step, {held}, and no guardrail was breached")


def _has_held(entry: Entry, counts: Counts, now_us: int) -> bool:
    experiment = entry.experiment
    assert experiment.ramp is not None
    if now_us - entry.step_since_us < experiment.ramp.hold_s * 1e6:
        return False
    of_step = counts.get(experiment.enrol_bp, {})
    seen = [of_step[v.name].requests if v.name in of_step else 0 for v in experiment.variants if v.bp]
    return experiment.enrol_bp == 0 or min(seen) >= experiment.ramp.requests_min


def _totals(counts: Counts) -> dict[str, ArmCounts]:
    totals: dict[str, ArmCounts] = {}
    for of_step in counts.values():
        for arm, own in of_step.items():
            totals.setdefault(arm, ArmCounts()).add(own)
    return totals


def _judge(guardrail: Guardrail, variant: str, treatment: ArmCounts, control: ArmCounts, alpha: float) -> Finding:
    quantile = guardrail.quantile
    if guardrail.metric == SCORE_DRIFT:
        allowed = guardrail.max_abs_increase or 0.0
        beyond = distance_beyond_chance(treatment.scores, control.scores, alpha)
        breached = beyond > allowed
        seen, base, log_evidence = beyond, 0.0, -math.log(alpha) if breached else 0.0
    elif quantile is not None:
        seen, base = quantile_ms(treatment.latency, quantile), quantile_ms(control.latency, quantile)
        allowed = _allowed(guardrail, base)

        def allowed_bin(edge: int) -> int:
            return latency_bin(math.ceil(_allowed(guardrail, bin_edge_ms(edge)) * 1000))

        log_evidence = log_evidence_quantile(treatment.latency, control.latency, quantile, allowed_bin)
        breached = log_evidence >= -math.log(alpha)
    else:
        hits, control_hits = (
            (treatment.errors, control.errors)
            if guardrail.metric == ERROR_RATE
            else (treatment.fallbacks, control.fallbacks)
        )
        seen, base = hits / max(1, treatment.requests), control_hits / max(1, control.requests)
        allowed = _allowed(guardrail, base)
        log_evidence = log_evidence_rate(
            (hits, treatment.requests), (control_hits, control.requests), lambda rate: _allowed(guardrail, rate)
        )
        breached = log_evidence >= -math.log(alpha)
    return Finding(
        metric=guardrail.metric,
        variant=variant,
        breached=breached,
        action=guardrail.action,
        control=base,
        treatment=seen,
        allowed=allowed,
        evidence=math.exp(min(log_evidence, 700.0)),
        requests=treatment.requests,
    )


def _allowed(guardrail: Guardrail, control: float) -> float:
    if guardrail.max_abs_increase is not None:
        return control + guardrail.max_abs_increase
    return control * (1 + (guardrail.max_rel_increase or 0.0))


def quantile_ms(latency: Mapping[int, int], quantile: float) -> float:
    """Return the upper edge of the bin that holds a quantile; 0 where nothing was counted."""
    left = quantile * sum(latency.values())
    for index in sorted(latency):
        left -= latency[index]
        if left <= 0:
            return bin_edge_ms(index)
    return 0.0
