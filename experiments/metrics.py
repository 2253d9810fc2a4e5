"""What an experiment is judged by: its metrics, and the plan of how large a difference is to be found how surely."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from experiments import fields
from experiments.errors import ExperimentError

SECONDARY_MAX: Final = 50
"""More are a search, not a set of questions; each also costs the report a pass over the units."""

OUTCOME_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}\Z")
"""As `POST /v1/outcomes` takes them."""

SCORE: Final = "score"
LATENCY_MS: Final = "latency_ms"
ERROR_RATE: Final = "error_rate"
FALLBACK_RATE: Final = "fallback_rate"
LOGGED: Final = (SCORE, LATENCY_MS, ERROR_RATE, FALLBACK_RATE)
"""Metrics that are in the prediction log itself and need no outcome: each is a mean over the logged rows."""

MDE_REL: Final = 0.02
POWER: Final = 0.8
ALPHA: Final = 0.05
WINDOW_S: Final = 7 * 86_400
COVARIATE_DAYS: Final = 14

WINDOW_S_MAX: Final = 366 * 86_400
COVARIATE_DAYS_MAX: Final = 366
UNITS_PLANNED_MAX: Final = 10**12

_PLAN_KEYS: Final = (
    "primary",
    "secondary",
    "mde_rel",
    "power",
    "alpha",
    "window_s",
    "covariate_days",
    "units_planned",
)
_METRIC_KEYS: Final = ("name", "of", "numerator", "denominator", "better")

Word = TypeVar("Word", bound=StrEnum)


class Of(StrEnum):
    """What a metric's sum is divided by."""

    PER_OUTCOME = "per_outcome"
    PER_UNIT = "per_unit"
    RATIO = "ratio"


class Better(StrEnum):
    """Which way is the good one."""

    INCREASE = "increase"
    DECREASE = "decrease"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One question. By unit it is a numerator and a denominator, and its value is the ratio of their means.

    numerator: the outcome metric that is summed, or one of LOGGED. denominator: of a ratio, the outcome metric that
    divides; else None, and `of` says what does.
    """

    name: str
    of: Of
    numerator: str
    denominator: str | None
    better: Better

    @property
    def logged(self) -> bool:
        """Whether the prediction log itself holds it."""
        return self.numerator in LOGGED

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcome metrics that it reads."""
        if self.logged:
            return ()
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPlan:
    """The metrics, and what they are to show.

    mde_rel: the least relative effect that is to be found. window_s: an outcome counts so long after the prediction,
        or after the unit's first exposure.
    covariate_days: so much of a unit's past, before its first exposure, explains away its differences; 0 for none.
    units_planned: over all arms, fixed before the start; None where nobody said.
    """

    primary: Metric
    secondary: tuple[Metric, ...] = ()
    mde_rel: float = MDE_REL
    power: float = POWER
    alpha: float = ALPHA
    window_s: float = WINDOW_S
    covariate_days: float = COVARIATE_DAYS
    units_planned: int | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All of them, the primary first."""
        return (self.primary, *self.secondary)


def parse_metrics(value: Any) -> MetricsPlan:
    """Read the document's `metrics`. Raises ExperimentError, which names the key at fault."""
    given = fields.mapping(value, "metrics", _PLAN_KEYS)
    if given.get("primary") is None:
        raise ExperimentError("metrics.primary", "is required: the one metric that decides")
    listed = given.get("secondary", [])
    if not isinstance(listed, list) or len(listed) > SECONDARY_MAX:
        raise ExperimentError("metrics.secondary", f"a list of at most {SECONDARY_MAX} metrics is expected")
    metrics = [parse_metric(given["primary"], "metrics.primary")]
    for index, entry in enumerate(listed):
        at = f"metrics.secondary[{index}]"
        metric = parse_metric(entry, at)
        if any(metric.name == other.name for other in metrics):
            raise ExperimentError(f"{at}.name", f"{metric.name!r} is used twice")
        metrics.append(metric)
    planned = given.get("units_planned")
    return MetricsPlan(
        primary=metrics[0],
        secondary=tuple(metrics[1:]),
        mde_rel=fields.number(given.get("mde_rel", MDE_REL), "metrics.mde_rel", 1e-6, 100),
        power=fields.number(given.get("power", POWER), "metrics.power", 0.5, 0.9999),
        alpha=fields.number(given.get("alpha", ALPHA), "metrics.alpha", 1e-6, 0.5),
        window_s=fields.number(given.get("window_s", WINDOW_S), "metrics.window_s", 1, WINDOW_S_MAX),
        covariate_days=fields.number(
            given.get("covariate_days", COVARIATE_DAYS), "metrics.covariate_days", 0, COVARIATE_DAYS_MAX
        ),
        units_planned=None
        if planned is None
        else fields.whole(planned, "metrics.units_planned", 2, UNITS_PLANNED_MAX, "units"),
    )


def parse_metric(value: Any, at: str) -> Metric:
    """Read one metric: its name, or a mapping. `at` is its path, for errors. Raises ExperimentError."""
    if isinstance(value, str):
        name = fields.text(value, at, OUTCOME_NAME)
        return Metric(name=name, of=Of.PER_OUTCOME, numerator=name, denominator=None, better=_usual(name))
    given = fields.mapping(value, at, _METRIC_KEYS)
    name = fields.text(given.get("name"), f"{at}.name", OUTCOME_NAME)
    numerator = fields.text(given.get("numerator", name), f"{at}.numerator", OUTCOME_NAME)
    denominator = given.get("denominator")
    if denominator is not None:
        denominator = fields.text(denominator, f"{at}.denominator", OUTCOME_NAME)
    return Metric(
        name=name,
        of=_of(given, at, numerator, denominator),
        numerator=numerator,
        denominator=denominator,
        better=_word(Better, given.get("better", _usual(numerator)), f"{at}.better"),
    )


def _of(given: Mapping[str, Any], at: str, numerator: str, denominator: str | None) -> Of:
    if denominator is not None:
        if "numerator" not in given:
            raise ExperimentError(f"{at}.numerator", "is required beside a denominator")
        if given.get("of") not in (None, Of.RATIO):
            raise ExperimentError(f"{at}.of", "a metric with a denominator is a ratio: leave `of` out")
        for key, outcome in (("numerator", numerator), ("denominator", denominator)):
            if outcome in LOGGED:
                raise ExperimentError(f"{at}.{key}", f"{outcome!r} is no outcome: a ratio is one of outcomes")
        return Of.RATIO
    of = _word(Of, given.get("of", Of.PER_OUTCOME), f"{at}.of")
    if of is Of.RATIO:
        raise ExperimentError(f"{at}.denominator", "is required in a ratio")
    if of is Of.PER_UNIT and numerator in LOGGED:
        raise ExperimentError(f"{at}.of", f"{numerator!r} is a mean over the logged rows: per_outcome")
    return of


def _usual(name: str) -> Better:
    return Better.DECREASE if name in (LATENCY_MS, ERROR_RATE, FALLBACK_RATE) else Better.INCREASE


def _word(kind: type[Word], value: Any, at: str) -> Word:
    try:
        return kind(value)
    except ValueError:
        raise ExperimentError(at, f"{fields.shown(value)}: one of {', '.join(kind)} is expected") from None
