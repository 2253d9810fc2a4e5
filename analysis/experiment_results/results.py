"""Compute an experiment's results from its document and the logs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ibis

from analysis.errors import AnalysisError, NoRows
from analysis.experiment_results.counted_rows import (
    EpochArm,
    Span,
    counted,
    epoch_arms,
    epochs_in_order,
    in_span,
    rows_left_out,
    versions_by_arm,
)
from analysis.experiment_results.disagreement import disagreement, keep_pairs
from analysis.experiment_results.effect_path import PATH_UNITS_MAX, effect_paths
from analysis.experiment_results.effects import metric_results, roles_of, rules_of
from analysis.experiment_results.experiment_log import (
    SECOND_US,
    ExperimentLog,
    microseconds,
    moment,
    open_experiment_log,
)
from analysis.experiment_results.latency import latency_results
from analysis.experiment_results.notes import Facts, notes_of
from analysis.experiment_results.ratio_checks import SplitShares, sample_ratio, split_shares, watch_units
from analysis.experiment_results.report import (
    Arm,
    DisagreementResult,
    Epoch,
    EpochArmUnits,
    ExperimentResults,
    LeftOut,
    Plan,
    Window,
)
from analysis.experiment_results.request import ResultsRequest
from analysis.experiment_results.time_slots import time_slots
from analysis.experiment_results.unit_table import UnitTable, keep_units
from experiments.definition import Experiment, parse_experiment
from experiments.metrics import WINDOW_S, MetricsPlan

EPOCHS_MAX: Final = 200
"""Each adds a term to every effect. More means that weights are changed by a program, every hour or so."""


class TooManyEpochs(AnalysisError):
    """The split changed more often than results can be combined over."""

    def __init__(self, experiment: str, epochs: int) -> None:
        super().__init__(f"experiment {experiment!r}: {epochs} epochs; at most {EPOCHS_MAX}: narrow --from and --to")
        self.experiment, self.epochs = experiment, epochs


def experiment_results(
    document: Mapping[str, Any], log_dir: Path, request: ResultsRequest | None = None
) -> ExperimentResults:
    """Compute the results of the experiment that the document describes.

    log_dir: the predictions root, or the directory that holds `predictions`.
    Raises ExperimentError for a wrong document, NoRows where no row of the experiment counts, TooManyEpochs, and
    UnreadableFile for a damaged log.
    """
    wanted = request or ResultsRequest()
    experiment = parse_experiment(document)
    with open_experiment_log(
        log_dir,
        experiment.model,
        end=wanted.end,
        outcomes_dir=wanted.outcomes_dir,
        threads=wanted.threads,
    ) as log:
        return _Results(log, experiment, wanted).report()


class _Results:
    """What the parts of one report share while it is computed."""

    def __init__(self, log: ExperimentLog, experiment: Experiment, wanted: ResultsRequest) -> None:
        self._log, self._experiment, self._wanted = log, experiment, wanted
        self._plan: MetricsPlan | None = experiment.metrics
        self._window_s = WINDOW_S if self._plan is None else self._plan.window_s
        self._window_us = int(self._window_s * SECOND_US)
        span = Span(*(None if bound is None else microseconds(bound) for bound in (wanted.start, wanted.end)))
        self._mine = in_span(log.rows, span)
        self._rows = log.view("counted_rows", counted(self._mine, experiment.name))
        self._found = epoch_arms(log, self._rows)
        if not self._found:
            raise NoRows(
                log.root, f"experiment {experiment.name!r} of model {experiment.model!r} that count in results"
            )
        self._epochs = epochs_in_order(self._found)
        if len(self._epochs) > EPOCHS_MAX:
            raise TooManyEpochs(experiment.name, len(self._epochs))
        names = [variant.name for variant in experiment.variants]
        control = experiment.control.name
        self._split = split_shares(self._found, [control, *(name for name in names if name != control)])
        self._units = self._keep_units()
        self._versions = versions_by_arm(log, self._rows)

    def report(self) -> ExperimentResults:
        """Put the report together: the sample ratio first, effects only where it holds or they are asked for."""
        experiment, units = self._experiment, self._units
        watched = watch_units(units, self._split)
        ratio = sample_ratio(units, self._split, watched)
        arms, window = self._arms(watched.points[-1].units), self._window()
        left_out = rows_left_out(self._log, self._mine, experiment.name)
        hidden = ratio.failed and not self._wanted.show_despite_srm
        control, treatments = experiment.control.name, self._treatments()
        effects: dict[str, Any] = {} if hidden else self._effects(control, treatments, window.units)
        facts = Facts(
            plan=self._plan,
            split=self._split,
            found=self._found,
            declared=tuple(variant.name for variant in experiment.variants),
            treatments=treatments,
            window=window,
            left_out=left_out,
            metrics=effects.get("metrics", ()),
        )
        return ExperimentResults(
            experiment=experiment.name,
            model=experiment.model,
            unit=experiment.unit,
            state=str(experiment.state),
            control=control,
            plan=_plan(self._plan),
            window=window,
            left_out=LeftOut(**left_out),
            arms=arms,
            epochs=self._epoch_lines(),
            sample_ratio=ratio,
            effects_hidden=hidden,
            units_over_time=watched.points,
            notes=notes_of(facts),
            **effects,
        )

    def _keep_units(self) -> UnitTable:
        log, plan = self._log, self._plan
        metrics = list(roles_of(plan))
        first_us = min(one.first_us for one in self._found)
        last_us = max(one.last_us for one in self._found)
        names = sorted({name for metric in metrics for name in metric.outcomes})
        told = log.told.filter(log.told.metric.isin(names), log.told.at_us < last_us + self._window_us)
        last_told_us = log.lines(told.agg(last=told.at_us.max()))[0]["last"] if names else None
        return keep_units(
            log,
            self._rows,
            metrics=metrics,
            window_s=self._window_s,
            covariate_days=0 if plan is None else plan.covariate_days,
            epoch_starts_us=[min(one.first_us for one in self._found if one.epoch == epoch) for epoch in self._epochs],
            slots=time_slots(first_us, max(last_us, last_told_us or last_us)),
            exposures=None if self._wanted.start is None else counted(log.rows, self._experiment.name),
        )

    def _treatments(self) -> tuple[str, ...]:
        control = self._experiment.control.name
        seen = {one.arm for one in self._found}
        return tuple(arm for arm in self._split.arms if arm in seen and arm != control)

    def _effects(self, control: str, treatments: tuple[str, ...], total: int) -> dict[str, Any]:
        units, plan = self._units, self._plan
        found: dict[str, Any] = {
            "metrics": metric_results(units, plan, control, treatments, total),
            "latency": latency_results(
                units, control, treatments, rules_of(plan, "guardrail", arms=len(treatments) + 1, units=total)
            ),
        }
        if plan is not None:
            rules = rules_of(plan, "primary", arms=len(treatments) + 1, units=total)
            if total * len(self._epochs) <= PATH_UNITS_MAX:
                found["effect_paths"] = effect_paths(units, plan.primary, control, treatments, rules)
            found["disagreement"] = self._disagreement(plan, control, treatments, total)
        return found

    def _disagreement(
        self, plan: MetricsPlan, control: str, treatments: Sequence[str], total: int
    ) -> tuple[DisagreementResult, ...]:
        mine = self._mine
        shadows = mine.filter(mine.experiment == self._experiment.name, mine.shadow)
        if not self._log.lines(shadows.agg(rows=shadows.count()))[0]["rows"]:
            return ()
        pairs = keep_pairs(self._log, shadows, self._rows, self._wanted.rule)
        rules = rules_of(plan, "primary", arms=len(treatments) + 1, units=total)
        results = [
            disagreement(
                self._units,
                pairs,
                plan.primary,
                (control, treatment),
                (self._version(control), self._version(treatment)),
                self._wanted.rule,
                rules,
            )
            for treatment in treatments
        ]
        return tuple(result for result in results if result is not None)

    def _version(self, arm: str) -> str:
        declared = self._experiment.variant_named(arm)
        return declared.version if declared is not None else next(iter(self._versions.get(arm, ())), "")

    def _arms(self, units: tuple[int, ...]) -> tuple[Arm, ...]:
        return tuple(
            Arm(
                name=name,
                is_control=name == self._experiment.control.name,
                versions=self._versions.get(name, ()),
                units=units[index],
                rows=sum(one.rows for one in self._found if one.arm == name),
                rows_not_served=sum(one.rows_not_served for one in self._found if one.arm == name),
            )
            for index, name in enumerate(self._split.arms)
        )

    def _epoch_lines(self) -> tuple[Epoch, ...]:
        table = self._units.table
        lines = self._log.lines(table.group_by("epoch", "arm").agg(units=(table.weight > 0).sum()))
        units = {(line["epoch"], line["arm"]): int(line["units"]) for line in lines}
        return tuple(_epoch_line(epoch, self._found, self._split, units) for epoch in self._epochs)

    def _window(self) -> Window:
        table = self._units.table
        last_us = max(one.last_us for one in self._found)
        (counts,) = self._log.lines(
            table.agg(
                units=(table.is_first & (table.weight > 0)).sum(),
                in_two_arms=table.in_two_arms.sum(),
                open=(table.is_first & (table.first_us + self._window_us > last_us)).sum(),
            )
        )
        everyone = answered_weight(self._log, self._mine)
        served = self._wanted.rows_served
        return Window(
            start=self._wanted.start,
            end=self._wanted.end,
            first_row=moment(min(one.first_us for one in self._found)),
            last_row=moment(last_us),
            rows=sum(one.rows for one in self._found),
            units=int(counts["units"] or 0),
            units_in_two_arms=int(counts["in_two_arms"] or 0),
            units_open=int(counts["open"] or 0),
            weight=everyone,
            rows_served=served,
            coverage=None if served is None else everyone / served,
        )


def answered_weight(log: ExperimentLog, rows: ibis.Table) -> float:
    """Estimate how many rows were answered: the sum of the sample weights of all but shadow rows."""
    shown = rows.filter(~rows.shadow)
    return float(log.lines(shown.agg(weight=shown.weight.sum()))[0]["weight"] or 0.0)


def _epoch_line(
    epoch: int, found: Sequence[EpochArm], split: SplitShares, units: Mapping[tuple[int, str], int]
) -> Epoch:
    mine = [one for one in found if one.epoch == epoch]
    shares = split.shares[epoch]
    return Epoch(
        epoch=epoch,
        begins=moment(min(one.first_us for one in mine)),
        ends=moment(max(one.last_us for one in mine)),
        arms=tuple(
            EpochArmUnits(arm, float(share), units.get((epoch, arm), 0))
            for arm, share in zip(split.arms, shares, strict=True)
        ),
    )


def _plan(plan: MetricsPlan | None) -> Plan | None:
    if plan is None:
        return None
    return Plan(
        primary=plan.primary.name,
        mde_rel=plan.mde_rel,
        power=plan.power,
        alpha=plan.alpha,
        window_s=plan.window_s,
        covariate_days=plan.covariate_days,
        units_planned=plan.units_planned,
    )
