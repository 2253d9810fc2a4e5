"""What an experiment's logs say: the JSON that `sekisho-experiments results --json` writes."""

from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from analysis.errors import UnreadableFile

SCHEMA_VERSION: Final = 1

REPORT_BYTES_MAX: Final = 64 * 1024 * 1024

Stage = Literal["assigned", "served", "outcome"]
"""Where units may go missing: drawn by the split, answered by their own arm's version, told an outcome of."""

Role = Literal["primary", "secondary", "guardrail"]

Verdict = Literal["better", "worse", "no_effect_found", "too_few_units"]
"""By the anytime-valid interval, or its p-value where it is corrected: it may be read whenever one likes."""


class Bounds(msgspec.Struct, frozen=True):
    """An interval."""

    low: float
    high: float


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A difference, with the interval for one look at the planned end, and the one for any number of looks.

    Relative effects are shares: 0.02 is two percent more than control. `anytime` is None under 100 units an arm.
    """

    estimate: float
    fixed: Bounds
    anytime: Bounds | None = None


class Covariate(msgspec.Struct, frozen=True, kw_only=True):
    """What the units' own past explained (CUPED), and the absolute effect without it."""

    variance_reduction: float
    unadjusted: Effect


class EpochEffect(msgspec.Struct, frozen=True, kw_only=True):
    """The difference within one epoch alone, by the fixed-horizon interval. weight: its share of the whole."""

    epoch: int
    control_mean: float
    treatment_mean: float
    difference: float
    fixed: Bounds
    weight: float


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """One metric, one treatment against control. Means are those of the epochs, by the same weights as the effect.

    alpha: of each interval; already divided where a primary metric is asked of several treatments (Bonferroni).
    q_value, q_value_anytime: of secondary metrics, after Benjamini and Hochberg.
    detectable_rel: the relative effect that this many units find with the planned power, at the end.
    units_needed: of both arms together, as they are split now, to find the planned effect. planned_size_reached:
    whether there are as many.
    """

    name: str
    role: Role
    of: str
    better: str
    treatment: str
    verdict: Verdict
    reason: str
    alpha: float
    units_control: int
    units_treatment: int
    control_mean: float | None = None
    treatment_mean: float | None = None
    absolute: Effect | None = None
    relative: Effect | None = None
    p_value: float | None = None
    p_value_anytime: float | None = None
    q_value: float | None = None
    q_value_anytime: float | None = None
    covariate: Covariate | None = None
    detectable_rel: float | None = None
    units_needed: int | None = None
    planned_size_reached: bool | None = None
    epochs: tuple[EpochEffect, ...] = ()


class LatencyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One quantile of the latency in one treatment and in control, in milliseconds, over rows, as served."""

    treatment: str
    quantile: float
    control_ms: float
    control_fixed: Bounds
    treatment_ms: float
    treatment_fixed: Bounds
    difference_ms: Effect
    verdict: Verdict


class DisagreementResult(msgspec.Struct, frozen=True, kw_only=True):
    """The primary metric over the units that both versions scored: only those on which they differ can differ.

    units: that both versions scored. on_differing: the effect on those that differ. diluted: the same, times their
    share, which is the effect on all. plain: the effect on all of them without knowing who differs. narrower: the
    share by which the diluted interval is narrower than the plain one. All by the fixed-horizon interval, in the
    metric's own units.
    """

    treatment: str
    versions: tuple[str, str]
    rule: str
    units: int
    units_differing: int
    share_differing: float
    on_differing: Effect | None = None
    diluted: Effect | None = None
    plain: Effect | None = None
    narrower: float | None = None


class RatioCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Units by arm, in the report's order of arms, and how many the split expects.

    epoch: None for all epochs together, where each unit counts in its first one. metric: of the outcome stage.
    """

    stage: Stage
    epoch: int | None = None
    metric: str | None = None
    units: tuple[int, ...]
    expected: tuple[float, ...]
    p_value: float
    failed: bool


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the arms have as many units as they should.

    p_value_anytime: of the units assigned, looked at all along. noticed_at: when that first fell below alpha.
    """

    failed: bool
    alpha: float
    p_value_anytime: float
    noticed_at: datetime | None = None
    checks: tuple[RatioCheck, ...]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm. rows_not_served: answered by another version than its own; they count as the arm's all the same."""

    name: str
    is_control: bool
    versions: tuple[str, ...]
    units: int
    rows: int
    rows_not_served: int


class EpochArmUnits(msgspec.Struct, frozen=True):
    """One arm in one epoch: the split's probability and the units drawn."""

    arm: str
    probability: float
    units: int


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the split did not change. `ends` is its last row."""

    epoch: int
    begins: datetime
    ends: datetime
    arms: tuple[EpochArmUnits, ...]


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the experiment that do not count, by reason. overridden: or given a winner."""

    shadow: int
    forced: int
    no_unit: int
    not_enrolled: int
    overridden: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at: the bounds asked for (`start <= ts < end`), and what was found between them.

    rows: that count. units_open: units whose time for outcomes was not over at the last row. weight: of all answered
    rows of the model in the window, an estimate of those served.
    rows_served is the true number where it was given; coverage is the share of it that the log stands for, 0 to 1.
    """

    start: datetime | None
    end: datetime | None
    first_row: datetime
    last_row: datetime
    rows: int
    units: int
    units_in_two_arms: int
    units_open: int
    weight: float
    rows_served: int | None = None
    coverage: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was planned. units_planned: over all arms; None where nobody said."""

    primary: str
    mde_rel: float
    power: float
    alpha: float
    window_s: float
    covariate_days: float
    units_planned: int | None = None


class PathPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The primary effect as it stood at the end of a slot of time."""

    at: datetime
    absolute: Effect
    relative: Effect | None = None


class EffectPath(msgspec.Struct, frozen=True, kw_only=True):
    """One treatment's primary effect over time."""

    treatment: str
    points: tuple[PathPoint, ...]


class UnitsPoint(msgspec.Struct, frozen=True):
    """Units so far, by arm in the report's order; each counts in its first epoch."""

    at: datetime
    units: tuple[int, ...]


class ExperimentResults(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report. effects_hidden: the sample ratio fails, and nobody asked to see effects despite it."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    model: str
    unit: str
    state: str
    control: str
    plan: Plan | None
    window: Window
    left_out: LeftOut
    arms: tuple[Arm, ...]
    epochs: tuple[Epoch, ...]
    sample_ratio: SampleRatio
    effects_hidden: bool
    metrics: tuple[MetricResult, ...] = ()
    latency: tuple[LatencyResult, ...] = ()
    disagreement: tuple[DisagreementResult, ...] = ()
    effect_paths: tuple[EffectPath, ...] = ()
    units_over_time: tuple[UnitsPoint, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, role: Role) -> tuple[MetricResult, ...]:
        """The metrics of one role."""
        return tuple(metric for metric in self.metrics if metric.role == role)


def encode_results(results: ExperimentResults) -> bytes:
    """Encode as indented JSON. It never holds NaN or infinity."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"


def read_results(path: Path) -> ExperimentResults:
    """Read a report back. Raises UnreadableFile where it is none, or of a schema version that is not known here."""
    try:
        size = path.stat().st_size
        if size > REPORT_BYTES_MAX:
            raise UnreadableFile(path, f"{size} bytes; a report has at most {REPORT_BYTES_MAX}")
        results = msgspec.json.decode(path.read_bytes(), type=ExperimentResults)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(path, f"is not a report of an experiment: {error}") from error
    if results.schema_version != SCHEMA_VERSION:
        raise UnreadableFile(path, f"has schema version {results.schema_version}; {SCHEMA_VERSION} is known")
    return results
