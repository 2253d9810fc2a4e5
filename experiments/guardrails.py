"""Guardrails: what a treatment must not do, compared with control; and the ramp that they gate."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from experiments import fields
from experiments.errors import ExperimentError

GUARDRAILS_MAX: Final = 20
STEPS_MAX: Final = 50
ALPHA: Final = 0.05
"""Of all guardrails of an experiment together, as long as an epoch lasts: the chance of a rollback that nothing gave
cause for."""

HOLD_S_MAX: Final = 30 * 86_400
REQUESTS_MAX: Final = 10**9
HOLD_S: Final = 600
REQUESTS_MIN: Final = 100
"""Of each arm, during a step of a ramp, before the next one: time alone is no evidence."""

ERROR_RATE: Final = "error_rate"
FALLBACK_RATE: Final = "fallback_rate"
SCORE_DRIFT: Final = "score_drift"
QUANTILE: Final = re.compile(r"p([0-9]{2}(?:\.[0-9]{1,2})?)_ms\Z")

_KEYS: Final = ("metric", "max_abs_increase", "max_rel_increase", "action")


class Action(StrEnum):
    """What a breach leads to."""

    ROLLBACK = "rollback"
    ALERT = "alert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """One promise. The treatment may exceed control by the absolute allowance, or by the relative one."""

    metric: str
    max_abs_increase: float | None
    max_rel_increase: float | None
    action: Action

    @property
    def quantile(self) -> float | None:
        """Of a latency: 0.99 for `p99_ms`. None where it is no latency."""
        found = QUANTILE.match(self.metric)
        return float(found[1]) / 100 if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Steps of enrolment, each held for a time, and for so many requests of each arm."""

    steps_bp: tuple[int, ...]
    hold_s: float
    requests_min: int
    promote: bool
    """Whether, after the last step has held, the treatment wins and is given to every unit."""

    def after(self, enrol_bp: int) -> int | None:
        """Return the step that follows an enrolment; None after the last."""
        return next((step for step in self.steps_bp if step > enrol_bp), None)


def parse_guardrails(value: Any) -> tuple[Guardrail, ...]:
    """Read them. Raises ExperimentError."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > GUARDRAILS_MAX:
        raise ExperimentError("guardrails", f"a list of at most {GUARDRAILS_MAX} is expected")
    read = tuple(_guardrail(entry, f"guardrails[{index}]") for index, entry in enumerate(value))
    for index, guardrail in enumerate(read):
        if any(guardrail.metric == other.metric for other in read[:index]):
            raise ExperimentError(f"guardrails[{index}].metric", f"{guardrail.metric!r} is guarded twice")
    return read


def parse_ramp(value: Any) -> Ramp | None:
    """Read it. Raises ExperimentError."""
    if value is None:
        return None
    given = fields.mapping(value, "ramp", ("steps_bp", "hold_s", "requests_min", "promote"))
    steps = given.get("steps_bp")
    if not isinstance(steps, list) or not 1 <= len(steps) <= STEPS_MAX:
        raise ExperimentError("ramp.steps_bp", f"a list of 1 to {STEPS_MAX} steps is expected")
    read: list[int] = []
    for index, step in enumerate(steps):
        read.append(fields.basis_points(step, f"ramp.steps_bp[{index}]"))
        if index and read[index] <= read[index - 1]:
            raise ExperimentError(f"ramp.steps_bp[{index}]", "each step is larger than the one before it")
    promote = given.get("promote", False)
    if not isinstance(promote, bool):
        raise ExperimentError("ramp.promote", "true or false is expected")
    return Ramp(
        steps_bp=tuple(read),
        hold_s=fields.number(given.get("hold_s", HOLD_S), "ramp.hold_s", 0, HOLD_S_MAX),
        requests_min=fields.whole(
            given.get("requests_min", REQUESTS_MIN), "ramp.requests_min", 0, REQUESTS_MAX, "requests"
        ),
        promote=promote,
    )


def _guardrail(entry: Any, at: str) -> Guardrail:
    given: Mapping[str, Any] = fields.mapping(entry, at, _KEYS)
    metric = given.get("metric")
    if not isinstance(metric, str) or not (metric in (ERROR_RATE, FALLBACK_RATE, SCORE_DRIFT) or _is_latency(metric)):
        known = f"{ERROR_RATE}, {FALLBACK_RATE}, {SCORE_DRIFT}, or a latency: p50_ms to p99.9_ms"
        raise ExperimentError(f"{at}.metric", f"{fields.shown(metric)} cannot be guarded; there are: {known}")
    allowances = [key for key in ("max_abs_increase", "max_rel_increase") if given.get(key) is not None]
    if len(allowances) != 1:
        raise ExperimentError(at, "give max_abs_increase or max_rel_increase, one of them")
    if metric == SCORE_DRIFT and allowances != ["max_abs_increase"]:
        raise ExperimentError(f"{at}.max_rel_increase", f"{SCORE_DRIFT} is a distance from 0 to 1: max_abs_increase")
    allowance = fields.number(given[allowances[0]], f"{at}.{allowances[0]}", 0, 1e6)
    try:
        action = Action(given.get("action", Action.ROLLBACK))
    except ValueError:
        problem = f"{fields.shown(given['action'])}: one of {', '.join(Action)} is expected"
        raise ExperimentError(f"{at}.action", problem) from None
    is_absolute = allowances == ["max_abs_increase"]
    return Guardrail(
        metric=metric,
        max_abs_increase=allowance if is_absolute else None,
        max_rel_increase=None if is_absolute else allowance,
        action=action,
    )


def _is_latency(metric: str) -> bool:
    found = QUANTILE.match(metric)
    return found is not None and 0 < float(found[1]) < 100
