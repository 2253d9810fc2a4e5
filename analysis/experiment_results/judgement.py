"""From two arms' values to what a report says of a metric: effects, their intervals, and a verdict with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp
from typing import Final

import msgspec

from analysis.experiment_results.contrast import Contrast
from analysis.experiment_results.intervals import (
    ANYTIME_UNITS_MIN,
    Interval,
    anytime_factor,
    anytime_p_value,
    around,
    clock,
    fixed_factor,
    fixed_p_value,
)
from analysis.experiment_results.power import UNITS_MAX, detectable
from analysis.experiment_results.report import Bounds, Covariate, Effect, MetricResult, Role, Verdict
from analysis.experiment_results.report_words import effect_words
from analysis.noise_floor import benjamini_hochberg
from experiments.metrics import Better, Metric

EFFECT_UNITS_MIN: Final = 20
"""Units an arm. Below it not even one look gives an interval that is worth its name."""

EVENTS_MIN: Final = 10
"""Units of both arms whose numerator is not 0: of three errors against none, no normal approximation can tell."""

_CONTROL_FROM_ZERO: Final = 3.0
"""Standard errors. A control mean nearer to 0 may be of either sign: no effect relative to it is given."""

_ROUNDING: Final = 1e-12
"""A standard error that, beside the mean, is what is left of equal numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a metric is judged.

    alpha: of one interval. pairs_planned: effective units of two arms at the planned size. units_planned: over all
        arms, where somebody said; units: over all arms, now.
    """

    alpha: float
    power: float
    mde_rel: float
    pairs_planned: float
    units_planned: int | None
    units: int


def absolute_effect(found: Contrast, rules: Rules) -> Effect:
    """Give the difference with both intervals."""
    fixed, anytime = _reaches(found, rules)
    return _effect(found.difference, found.standard_error, fixed, anytime)


def relative_effect(found: Contrast, rules: Rules) -> Effect | None:
    """Give treatment over control, less 1, with both intervals: by the delta method on the logarithm of the ratio.

    None where the control mean is not surely above 0, or the treatment's is not above 0.
    """
    if found.log_ratio is None or found.control < _CONTROL_FROM_ZERO * found.covariance[0, 0] ** 0.5:
        return None
    fixed, anytime = _reaches(found, rules)
    effect = _effect(found.log_ratio, found.log_ratio_error, fixed, anytime)
    return Effect(
        estimate=exp(effect.estimate) - 1,
        fixed=_exponential(effect.fixed),
        anytime=None if effect.anytime is None else _exponential(effect.anytime),
    )


def why_too_few(found: Contrast | None, units_control: int, units_treatment: int) -> str:
    """Say why no interval can be given; empty where one can."""
    least = min(units_control, units_treatment)
    if least < EFFECT_UNITS_MIN:
        return f"{least:,} units in an arm; an interval needs {EFFECT_UNITS_MIN}"
    if found is None:
        return "nothing to divide by in one of the arms: no outcome yet"
    if found.nonzero < EVENTS_MIN:
        return f"{found.nonzero:,} units with a value other than 0; an interval needs {EVENTS_MIN}"
    if found.standard_error <= _ROUNDING * abs(found.control):
        return "all units have the same value: how far it may vary is not known yet"
    return ""


def judge(
    metric: Metric,
    role: Role,
    treatment: str,
    units: tuple[int, int],
    found: Contrast | None,
    unadjusted: Contrast | None,
    rules: Rules,
) -> MetricResult:
    """Judge one metric of one treatment by the anytime-valid interval.

    units: of control and of the treatment, over all epochs, whether they could be used or not. unadjusted: without the
        units' past, where `found` uses it.
    """
    blank = MetricResult(
        name=metric.name,
        role=role,
        of=str(metric.of),
        better=str(metric.better),
        treatment=treatment,
        verdict="too_few_units",
        reason=why_too_few(found, *units),
        alpha=rules.alpha,
        units_control=units[0],
        units_treatment=units[1],
        control_mean=None if found is None else found.control,
        treatment_mean=None if found is None else found.treatment,
    )
    if blank.reason or found is None:
        return blank
    absolute, relative = absolute_effect(found, rules), relative_effect(found, rules)
    if relative is not None and _leaves_out_0(relative) != _leaves_out_0(absolute):
        relative = None  # on its logarithmic scale it says something else: the absolute one, which is judged, is shown
    z = found.difference / found.standard_error
    effect = detectable(found.standard_error, reach=fixed_factor(found.degrees, rules.alpha), power=rules.power)
    detectable_rel = effect / abs(found.control) if found.control else None
    needed = None if detectable_rel is None else sum(units) * (detectable_rel / rules.mde_rel) ** 2
    verdict = _verdict(absolute.anytime, metric)
    reached = detectable_rel is not None and detectable_rel <= rules.mde_rel
    if rules.units_planned is not None:
        reached = rules.units >= rules.units_planned
    return msgspec.structs.replace(
        blank,
        verdict=verdict,
        reason=_reason(verdict, absolute, relative, rules, reached=reached),
        absolute=absolute,
        relative=relative,
        p_value=fixed_p_value(z, found.degrees),
        p_value_anytime=None if absolute.anytime is None else anytime_p_value(z, _clock(found, rules)),
        covariate=None
        if unadjusted is None
        else Covariate(variance_reduction=found.variance_reduction, unadjusted=absolute_effect(unadjusted, rules)),
        detectable_rel=detectable_rel,
        units_needed=None if needed is None or needed > UNITS_MAX else max(4, ceil(needed)),
        planned_size_reached=reached,
    )


def with_q_values(results: Sequence[MetricResult], alpha: float) -> list[MetricResult]:
    """Adjust secondary metrics' p-values for their number, and withdraw the verdicts that they do not bear out."""
    tested = [i for i, result in enumerate(results) if result.p_value is not None]
    fixed = benjamini_hochberg([results[i].p_value or 0.0 for i in tested])
    # Without an anytime p-value nothing is claimed, so that it counts as 1.
    anytime = benjamini_hochberg([_known(results[i].p_value_anytime) for i in tested])
    adjusted = list(results)
    for index, q_value, q_value_anytime in zip(tested, fixed, anytime, strict=True):
        one = msgspec.structs.replace(
            results[index],
            q_value=q_value,
            q_value_anytime=None if results[index].p_value_anytime is None else q_value_anytime,
        )
        if one.verdict in {"better", "worse"} and q_value_anytime > alpha:
            one = msgspec.structs.replace(
                one,
                verdict="no_effect_found",
                reason=f"{one.reason}; not after the correction for {len(tested)} secondary comparisons "
                f"(q {q_value_anytime:.2g})",
            )
        adjusted[index] = one
    return adjusted


def _known(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value


def _clock(found: Contrast, rules: Rules) -> float:
    return clock(found.effective_units, rules.pairs_planned, rules.alpha)


def _reaches(found: Contrast, rules: Rules) -> tuple[float, float | None]:
    fixed = fixed_factor(found.degrees, rules.alpha)
    if min(found.units_control, found.units_treatment) < ANYTIME_UNITS_MIN:
        return fixed, None
    return fixed, anytime_factor(_clock(found, rules), rules.alpha)


def _effect(estimate: float, error: float, fixed: float, anytime: float | None) -> Effect:
    return Effect(
        estimate=estimate,
        fixed=_bounds(around(estimate, fixed * error)),
        anytime=None if anytime is None else _bounds(around(estimate, anytime * error)),
    )


def _bounds(interval: Interval) -> Bounds:
    return Bounds(interval.low, interval.high)


def _exponential(bounds: Bounds) -> Bounds:
    return Bounds(_grown(bounds.low), _grown(bounds.high))


def _grown(log_ratio: float) -> float:
    # Past e^700 there is no float, and no meaning.
    return exp(min(log_ratio, 700.0)) - 1


def _leaves_out_0(effect: Effect) -> bool:
    return effect.anytime is not None and not effect.anytime.low <= 0 <= effect.anytime.high


def _verdict(anytime: Bounds | None, metric: Metric) -> Verdict:
    if anytime is None:
        return "too_few_units"
    if anytime.low <= 0 <= anytime.high:
        return "no_effect_found"
    return "better" if (anytime.low > 0) == (metric.better is Better.INCREASE) else "worse"


def _reason(verdict: Verdict, absolute: Effect, relative: Effect | None, rules: Rules, *, reached: bool) -> str:
    told = effect_words(absolute, relative, rules.alpha)
    if verdict == "too_few_units":
        return f"{told}; an interval that may be looked at any time needs {ANYTIME_UNITS_MIN} units in each arm"
    if verdict != "no_effect_found":
        return told
    told = f"no effect was found: {told}"
    if absolute.fixed.low <= 0 <= absolute.fixed.high:
        return told
    if reached:
        return f"{told}. The fixed-horizon interval leaves out 0: an effect, if this is the one look that was planned"
    return f"{told}. The fixed-horizon interval leaves out 0, but the planned size is not reached: not to be stopped on"
