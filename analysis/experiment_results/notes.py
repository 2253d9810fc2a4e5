"""What a reader of the results must know besides the numbers: one sentence each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analysis.experiment_results.counted_rows import EpochArm
from analysis.experiment_results.ratio_checks import NOT_SEEN, SplitShares
from analysis.experiment_results.report import MetricResult, Window
from experiments.metrics import MetricsPlan

_PROBABILITY_SLACK: Final = 1e-9
_OPEN_TOLD: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the notes are made from."""

    plan: MetricsPlan | None
    split: SplitShares
    found: Sequence[EpochArm]
    declared: tuple[str, ...]
    treatments: tuple[str, ...]
    window: Window
    left_out: Mapping[str, int]
    metrics: Sequence[MetricResult]


def notes_of(facts: Facts) -> tuple[str, ...]:
    """Give the notes, what is wrong before what is only to be known."""
    return (*_faults(facts), *_methods(facts))


def _faults(facts: Facts) -> Iterator[str]:
    window = facts.window
    if window.units_in_two_arms:
        yield (
            f"{window.units_in_two_arms:,} units were seen in two arms within one epoch, which must not happen; each "
            "counts in the arm that it was first given. Look for a salt or weights that changed without a new epoch, "
            "or two gateways with different documents."
        )
    for one in facts.found:
        least, most = one.probabilities
        if most - least > _PROBABILITY_SLACK:
            yield f"epoch {one.epoch}: rows of arm {one.arm!r} state probabilities from {least:g} to {most:g}."
    for epoch in facts.split.epochs:
        total = float(facts.split.shares[epoch].sum())
        if total > 1 + 1e-6:
            yield f"epoch {epoch}: the arms' probabilities add up to {total:.4g}; one epoch holds several splits."
    unknown = [arm for arm in facts.split.arms if arm not in facts.declared and arm != NOT_SEEN]
    if unknown:
        yield f"arms in the log that the document does not have (any more): {', '.join(unknown)}."


def _methods(facts: Facts) -> Iterator[str]:
    if facts.plan is None:
        yield "The document has no `metrics`: only guardrails are judged. Name metrics.primary to have a result."
        return
    plan = facts.plan
    if len(facts.treatments) > 1:
        yield (
            f"{len(facts.treatments)} treatments: intervals and p-values of {plan.primary.name} are at alpha "
            f"{plan.alpha:g} / {len(facts.treatments)} (Bonferroni); secondary metrics are corrected over all "
            "treatments together."
        )
    if len(facts.split.epochs) > 1:
        yield (
            f"{len(facts.split.epochs)} epochs, each compared within itself; the differences are averaged, and a unit "
            "that comes back counts as one."
        )
    if plan.units_planned is None:
        yield (
            "The document states no metrics.units_planned, so the anytime interval is not tuned to a planned size: "
            "valid, and up to a quarter wider than it could be."
        )
    share = facts.window.units_open / max(1, facts.window.units)
    if share > _OPEN_TOLD and any(metric.outcomes for metric in plan.metrics):
        yield (
            f"{share:.0%} of the units came less than the outcome window ({plan.window_s / 86_400:.3g} days) before "
            "the last row: what they will still do is not counted, in any arm."
        )
    if facts.metrics and plan.covariate_days and not any(metric.covariate for metric in facts.metrics):
        yield "No unit has a past in the log before its first exposure, so nothing was explained by it (CUPED)."
