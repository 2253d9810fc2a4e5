"""The sentences that the terminal and the HTML report share. They say "no effect was found", never "no effect"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from analysis.experiment_results.report import (
    DisagreementResult,
    ExperimentResults,
    MetricResult,
    RatioCheck,
    Stage,
    Verdict,
    Window,
)
from analysis.experiment_results.report_words import (
    STAGES,
    VERDICTS,
    counted,
    effect_words,
    level,
    p_words,
    percent,
    time_words,
)

Outcome = Literal["mismatch", "better", "worse", "open"]
"""Of the whole report, which sets its colour. `open`: nothing was found, so far."""

ADVICE: Final[dict[Stage, str]] = {
    "assigned": "Units are missing or added before anything is measured. Look for rows that one arm loses (dropped log "
    "rows, crashes or time-outs before the row is logged), for robots, for a targeting condition that reads what an "
    "arm changes, and for weights that changed without a new epoch.",
    "served": "Units of one arm never got their own version. Look at that arm's fallbacks and errors by time and host.",
    "outcome": "Outcomes are told of one arm more than of another. Look at how they are reported: joins by prediction "
    "id, client versions, late batches; and whether the treatment itself makes people report.",
}

EXPLANATIONS: Final = {
    "Anytime interval": "A confidence sequence: with the stated confidence it holds the true effect at all times at "
    "once. Look as often as you like, and stop when you like.",
    "Fixed-horizon interval": "The usual one, for one look at the planned size. Looked at on the way it misleads: of a "
    "thousand experiments without any effect, many will seem to have one at some moment.",
    "No effect was found": "The interval holds 0. It holds other values too: only what it leaves out can be excluded.",
    "Sample ratio": "Whether the arms have as many units as the split says (chi-square on units, p < 0.001). If not, "
    "units were lost or added for a reason, and that reason is in every effect.",
    "Detectable": "The relative effect that this many units would find with the planned power, in one look at the end.",
    "CUPED": "What a unit did before it was first exposed explains part of what it does after; taking that off narrows "
    "the intervals and moves no effect.",
    "q": "A p-value of a secondary metric, corrected for the number of them (Benjamini-Hochberg): the share of false "
    "findings that one accepts by accepting this one. Guardrails are not corrected.",
    "Epochs": "Times in which the split did not change. Arms are compared within each and the differences averaged, so "
    "that a ramp is not taken for an effect; a unit that comes back counts as one.",
    "Intention to treat": "A unit counts in the arm that it was assigned to, whatever answered it: a fallback is an "
    "outcome of the arm.",
}

_OUTCOMES: Final[dict[Verdict, Outcome]] = {"better": "better", "worse": "worse"}


@dataclass(frozen=True, slots=True)
class Headline:
    """The report in a line: what it comes to, in a word or two, and the sentence that says it."""

    outcome: Outcome
    title: str
    sentence: str


def headline(results: ExperimentResults) -> Headline:
    """Say what the report comes to: the sample ratio first, then the primary metric."""
    if results.sample_ratio.failed:
        hidden = (
            "Effects are hidden" if results.effects_hidden else "Effects are shown despite it: do not decide by them"
        )
        return Headline("mismatch", "Sample-ratio mismatch", f"{ratio_sentence(results)} {hidden}.")
    primary = results.of("primary")
    if not primary and results.plan is not None:
        return Headline("open", "Nothing to compare", "No treatment has a row that counts.")
    if not primary:
        return Headline("open", "Guardrails only", "No primary metric is named, so nothing is decided.")
    if len(primary) == 1:
        (only,) = primary
        return Headline(_outcome(only), title_of(only), f"{only.treatment} in {only.name}: {only.reason}.")
    best = next((one for one in primary if one.verdict == "better"), None)
    worst = next((one for one in primary if one.verdict == "worse"), None)
    told = "; ".join(f"{one.treatment}: {VERDICTS[one.verdict]}" for one in primary)
    return Headline(_outcome(best or worst or primary[0]), _several(best, worst), f"{primary[0].name} of {told}.")


def title_of(result: MetricResult) -> str:
    """Say a primary verdict as a title."""
    titles = {
        "better": "Better",
        "worse": "Worse",
        "no_effect_found": "No effect found",
        "too_few_units": "Too few units",
    }
    return titles[result.verdict]


def ratio_sentence(results: ExperimentResults) -> str:
    """Say how the sample ratio stands."""
    ratio = results.sample_ratio
    if not ratio.failed:
        least = min(check.p_value for check in ratio.checks)
        return f"The arms have as many units as the split says (least p {p_words(least)}, limit {ratio.alpha:g})."
    failed = next(check for check in ratio.checks if check.failed)
    noticed = f"; it could be noticed at {time_words(ratio.noticed_at)}" if ratio.noticed_at is not None else ""
    limit = f"p {p_words(failed.p_value)}, limit {ratio.alpha:g}"
    return f"Units {stage_words(failed)} do not fit the split ({limit}){noticed}."


def ratio_advice(results: ExperimentResults) -> str:
    """Say where to look, for the first stage that fails: what is missing there is missing in the later ones too."""
    failed = next((check for check in results.sample_ratio.checks if check.failed), None)
    return "" if failed is None else ADVICE[failed.stage]


def stage_words(check: RatioCheck) -> str:
    """Name what a check counts."""
    metric = f" of {check.metric}" if check.metric else ""
    epoch = f" in epoch {check.epoch}" if check.epoch is not None else ""
    return f"{STAGES[check.stage]}{metric}{epoch}"


def plan_sentence(results: ExperimentResults, primary: MetricResult) -> str:
    """Say how far the experiment is from its planned size, and so which interval may be read."""
    plan = results.plan
    if plan is None or primary.detectable_rel is None:
        return ""
    finds = f"So many units find a relative effect of {percent(primary.detectable_rel)[1:]} with power {plan.power:g}"
    if primary.planned_size_reached:
        return f"{finds}. The planned size is reached: the fixed-horizon interval may be read, once."
    wanted = f"for {percent(plan.mde_rel)[1:]}"
    if plan.units_planned is not None:
        wanted = f"planned are {plan.units_planned:,} in all arms, {results.window.units:,} are here"
    elif primary.units_needed is not None:
        wanted += f" it takes about {primary.units_needed:,} in both arms"
    return f"{finds}; {wanted}. Until then, read the anytime interval."


def disagreement_sentence(result: DisagreementResult) -> str:
    """Say what the shadow pairs tell."""
    told = (
        f"{result.treatment}: of {counted(result.units, 'unit')} that versions {result.versions[0]} and "
        f"{result.versions[1]} both scored, they differ on {result.units_differing:,} ({result.rule}); "
        f"{result.share_differing:.1%} of what is counted"
    )
    if result.diluted is None or result.narrower is None:
        return f"{told}. Too few of them for an interval."
    change = f"{abs(result.narrower):.0%} {'narrower' if result.narrower > 0 else 'wider'}"
    return (
        f"{told}. The effect on all of them, from those alone: {result.diluted.estimate:+.4g}, in an interval {change}."
    )


def covariate_sentence(result: MetricResult) -> str:
    """Say what the past explained; empty where it was not used."""
    if result.covariate is None:
        return ""
    before = effect_words(result.covariate.unadjusted, None, result.alpha)
    return f"The units' past explains {result.covariate.variance_reduction:.0%} of the variance; without it: {before}."


def window_sentence(window: Window) -> str:
    """Say what was counted, and when it was served."""
    return (
        f"{counted(window.rows, 'row')} of {counted(window.units, 'unit')}, {time_words(window.first_row)} to "
        f"{time_words(window.last_row)}"
    )


def coverage_sentence(window: Window) -> str:
    """Say which share of the served rows the log lacks."""
    if window.coverage is None or window.rows_served is None:
        return "Share of served rows that is missing from the log: unknown"
    return f"Missing from the log: {max(0.0, 1 - window.coverage):.2%} of {window.rows_served:,} served rows"


def left_out_sentence(results: ExperimentResults) -> str:
    """Say which rows of the experiment do not count."""
    left = results.left_out
    reasons = (
        (left.shadow, "shadow"),
        (left.forced, "forced"),
        (left.overridden, "overridden or given a winner"),
        (left.not_enrolled, "not enrolled"),
        (left.no_unit, "without a unit"),
    )
    told = ", ".join(f"{number:,} {reason}" for number, reason in reasons if number)
    return f"Left out: {told or 'no row'}"


def intervals_sentence(metrics: Sequence[MetricResult]) -> str:
    """Say how sure the intervals of some metrics are, and which may be read when."""
    levels: dict[float, list[str]] = {}
    for metric in metrics:
        levels.setdefault(metric.alpha, []).append(metric.name)
    *some, (last, _) = levels.items()
    told = [f"{level(alpha)} for {', '.join(names)}" for alpha, names in some]
    told.append(f"{level(last)} for the others" if some else f"{level(last)} intervals")
    return f"{', '.join(told)}. Any time: look as often as you like. At the end: for one look at the planned size."


def _outcome(result: MetricResult) -> Outcome:
    return _OUTCOMES.get(result.verdict, "open")


def _several(best: MetricResult | None, worst: MetricResult | None) -> str:
    if best is not None:
        return f"Better: {best.treatment}"
    return "Worse" if worst is not None else "No effect found"
