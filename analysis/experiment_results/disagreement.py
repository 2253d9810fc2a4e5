"""Sharper effects from shadow pairs: where two versions say the same, it cannot matter which of them answered.

A shadow row is the same row scored by the version that did not answer. So of every unit of the shadow sample, in either
arm, it is known whether the versions ever differ on it, and this does not depend on the arm. Units on which they never
differ carry no information on the effect, only noise: the effect is estimated on the others and scaled by their share
(triggered analysis; Deng and Hu 2015, Diluted treatment effect estimation for trigger analysis in online controlled
experiments).
"""

from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Final

import ibis
import msgspec

from analysis.experiment_results.contrast import Contrast, contrast
from analysis.experiment_results.experiment_log import ExperimentLog
from analysis.experiment_results.intervals import around, fixed_factor
from analysis.experiment_results.judgement import Rules, why_too_few
from analysis.experiment_results.report import Bounds, DisagreementResult, Effect
from analysis.experiment_results.unit_moments import metric_units
from analysis.experiment_results.unit_table import UnitTable
from experiments.metrics import Metric

SCORE_TOLERANCE: Final = 1e-6
"""Scores nearer than this are the same: the same model in another batch may differ in the last bits of a float."""


@dataclass(frozen=True, slots=True)
class DisagreementRule:
    """When two scores differ: one reaches the threshold and one does not; without one, by more than the tolerance."""

    threshold: float | None = None
    tolerance: float = SCORE_TOLERANCE

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"one score reaches {self.threshold:g} and the other does not"
        return f"scores differ by more than {self.tolerance:g}"

    def differs(self, one: Any, other: Any) -> Any:
        """Make the condition over two columns of scores."""
        if self.threshold is not None:
            return (one >= self.threshold) != (other >= self.threshold)
        return (one - other).abs() > self.tolerance


def keep_pairs(log: ExperimentLog, shadows: ibis.Table, rows: ibis.Table, rule: DisagreementRule) -> ibis.Table:
    """Pair each shadow row with the answered one; give by unit and pair of versions whether they ever differ.

    shadows: the experiment's shadow rows. rows: the counted ones. Rows without a score on either side are no pair.
    Gives unit, version, other_version (in the order of their names), differs.
    """
    second = shadows.select("prediction_id", "row", shadow_version=shadows.version, shadow_score=shadows.score)
    pairs = rows.join(second, ["prediction_id", "row"])
    pairs = pairs.filter(pairs.score.notnull(), pairs.shadow_score.notnull())
    named = pairs.select(
        "unit",
        version=ibis.least(pairs.version, pairs.shadow_version),
        other_version=ibis.greatest(pairs.version, pairs.shadow_version),
        differs=rule.differs(pairs.score, pairs.shadow_score),
    )
    by_unit = named.group_by("unit", "version", "other_version").agg(differs=named.differs.any())
    return log.keep("pairs", by_unit)


def disagreement(
    units: UnitTable,
    pairs: ibis.Table,
    metric: Metric,
    arms: tuple[str, str],
    versions: tuple[str, str],
    rule: DisagreementRule,
    rules: Rules,
) -> DisagreementResult | None:
    """Estimate the effect from the units on which the two arms' versions differ; None where no unit has such a pair.

    arms, versions: control's and the treatment's.
    """
    least, most = sorted(versions)
    mine = pairs.filter(pairs.version == least, pairs.other_version == most).select("unit", "differs")
    everyone = units.table.filter(units.table.arm.isin(list(arms))).join(mine, "unit")
    share, share_error, counts = _share(units, everyone, units.columns(metric)[1])
    if not counts[0]:
        return None
    result = DisagreementResult(
        treatment=arms[1],
        versions=versions,
        rule=str(rule),
        units=counts[0],
        units_differing=counts[1],
        share_differing=share,
    )
    plain = _contrast(units, metric, arms, everyone)
    on_differing = _contrast(units, metric, arms, everyone.filter(everyone.differs))
    if plain is None or on_differing is None:
        return result
    diluted = _diluted(on_differing, share, share_error, rules)
    before = _effect(plain.difference, plain.standard_error, plain, rules)
    return msgspec.structs.replace(
        result,
        on_differing=_effect(on_differing.difference, on_differing.standard_error, on_differing, rules),
        diluted=diluted,
        plain=before,
        narrower=1 - _width(diluted) / _width(before),
    )


def _share(units: UnitTable, everyone: ibis.Table, denominator: str) -> tuple[float, float, tuple[int, int]]:
    """Give differing units' share of the denominators, its standard error, and how many units there are and differ."""
    by_unit = everyone.group_by("unit").agg(d=everyone[denominator].sum(), differs=everyone.differs.any())
    lines = units.log.lines(
        by_unit.group_by("differs").agg(units=by_unit.count(), d=by_unit.d.sum(), dd=(by_unit.d * by_unit.d).sum())
    )
    found = {bool(line["differs"]): line for line in lines}
    counts = [int(found[differs]["units"]) if differs in found else 0 for differs in (False, True)]
    sums = [float(found[differs]["d"] or 0.0) if differs in found else 0.0 for differs in (False, True)]
    squares = [float(found[differs]["dd"] or 0.0) if differs in found else 0.0 for differs in (False, True)]
    total = sum(sums)
    if total <= 0:
        return 0.0, 0.0, (sum(counts), counts[1])
    share = sums[1] / total
    error = sqrt(squares[1] * (1 - share) ** 2 + squares[0] * share**2) / total
    return share, error, (sum(counts), counts[1])


def _contrast(units: UnitTable, metric: Metric, arms: tuple[str, str], table: ibis.Table) -> Contrast | None:
    part = metric_units(units, metric, table)
    strata = part.strata(*arms)
    found = contrast(strata, partial(part.clustered, *arms))
    counts = [sum(one.arms[side].units for one in strata) for side in (0, 1)]
    return None if why_too_few(found, counts[0], counts[1]) else found


def _diluted(found: Contrast, share: float, share_error: float, rules: Rules) -> Effect:
    """Scale an effect by the share; both are uncertain, and the share does not depend on the arm."""
    error = sqrt((share * found.standard_error) ** 2 + (found.difference * share_error) ** 2)
    return _effect(share * found.difference, error, found, rules)


def _effect(estimate: float, error: float, found: Contrast, rules: Rules) -> Effect:
    interval = around(estimate, fixed_factor(found.degrees, rules.alpha) * error)
    return Effect(estimate=estimate, fixed=Bounds(interval.low, interval.high))


def _width(effect: Effect) -> float:
    return effect.fixed.high - effect.fixed.low
