"""Every metric of every treatment, judged by its role."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import numpy as np

from analysis.experiment_results.contrast import Stratum, contrast
from analysis.experiment_results.intervals import around, fixed_factor, planned_effective_units
from analysis.experiment_results.judgement import EFFECT_UNITS_MIN, Rules, judge, with_q_values
from analysis.experiment_results.report import Bounds, EpochEffect, MetricResult, Role
from analysis.experiment_results.unit_moments import metric_units
from analysis.experiment_results.unit_table import UnitTable
from experiments.metrics import (
    ALPHA,
    ERROR_RATE,
    FALLBACK_RATE,
    LATENCY_MS,
    MDE_REL,
    POWER,
    Metric,
    MetricsPlan,
    parse_metric,
)

GUARDRAILS: Final = (ERROR_RATE, FALLBACK_RATE, LATENCY_MS)
"""Looked at in every experiment, planned or not."""


def roles_of(plan: MetricsPlan | None) -> dict[Metric, Role]:
    """List what is judged: the plan's metrics, then the guardrails that it does not name itself."""
    roles: dict[Metric, Role] = {}
    if plan is not None:
        roles[plan.primary] = "primary"
        roles |= dict.fromkeys(plan.secondary, "secondary")
    taken = {metric.name for metric in roles}
    for name in GUARDRAILS:
        if name not in taken and not any(metric.numerator == name for metric in roles):
            roles[parse_metric(name, "metrics")] = "guardrail"
    return roles


def rules_of(plan: MetricsPlan | None, role: Role, *, arms: int, units: int) -> Rules:
    """Give the rules of a role. A primary metric asked of several treatments has its alpha divided by their number."""
    alpha = ALPHA if plan is None else plan.alpha
    units_planned = None if plan is None else plan.units_planned
    return Rules(
        alpha=alpha / max(1, arms - 1) if role == "primary" else alpha,
        power=POWER if plan is None else plan.power,
        mde_rel=MDE_REL if plan is None else plan.mde_rel,
        pairs_planned=planned_effective_units(units_planned, max(2, arms)),
        units_planned=units_planned,
        units=units,
    )


def metric_results(
    units: UnitTable, plan: MetricsPlan | None, control: str, treatments: Sequence[str], total_units: int
) -> tuple[MetricResult, ...]:
    """Judge every metric of every treatment: the primary first, then secondaries and guardrails."""
    people = _units_by_arm(units)
    by_role: dict[Role, list[MetricResult]] = {"primary": [], "secondary": [], "guardrail": []}
    for metric, role in roles_of(plan).items():
        rules = rules_of(plan, role, arms=len(treatments) + 1, units=total_units)
        by_role[role] += _results_of(units, metric, role, people, (control, treatments), rules)
    alpha = rules_of(plan, "secondary", arms=2, units=total_units).alpha
    by_role["secondary"] = with_q_values(by_role["secondary"], alpha)
    return tuple(result for results in by_role.values() for result in results)


def _units_by_arm(units: UnitTable) -> dict[str, int]:
    """Count units by arm: each once, however many epochs it was in the arm."""
    lines = units.log.lines(units.table.group_by("arm").agg(units=units.table.code.nunique()))
    return {str(line["arm"]): int(line["units"]) for line in lines}


def _results_of(
    units: UnitTable,
    metric: Metric,
    role: Role,
    people: Mapping[str, int],
    arms: tuple[str, Sequence[str]],
    rules: Rules,
) -> list[MetricResult]:
    control, treatments = arms
    found = metric_units(units, metric)
    results = []
    for treatment in treatments:
        strata = found.strata(control, treatment)
        clustered = partial(found.clustered, control, treatment)
        compared = contrast(strata, clustered)
        adjusted = compared is not None and compared.variance_reduction > 0
        unadjusted = contrast(strata, clustered, covariates=False) if adjusted else None
        counts = people.get(control, 0), people[treatment]
        result = judge(metric, role, treatment, counts, compared, unadjusted, rules)
        results.append(msgspec.structs.replace(result, epochs=_by_epoch(strata, rules)))
    return results


def _by_epoch(strata: Sequence[Stratum], rules: Rules) -> tuple[EpochEffect, ...]:
    """Compare within each epoch, where there are several."""
    usable = [stratum for stratum in strata if stratum.usable]
    if len(strata) < 2 or not usable:
        return ()
    total = sum(stratum.weight for stratum in usable)
    effects = []
    for stratum in usable:
        found = contrast([stratum], None)
        if found is None or min(arm.units for arm in stratum.arms) < EFFECT_UNITS_MIN:
            continue
        if not np.isfinite(found.standard_error) or found.standard_error <= 0:
            continue
        interval = around(found.difference, fixed_factor(found.degrees, rules.alpha) * found.standard_error)
        effects.append(
            EpochEffect(
                epoch=stratum.epoch,
                control_mean=found.control,
                treatment_mean=found.treatment,
                difference=found.difference,
                fixed=Bounds(interval.low, interval.high),
                weight=stratum.weight / total,
            )
        )
    return tuple(effects)
