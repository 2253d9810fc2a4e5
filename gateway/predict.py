"""The data path: admit, assign, fetch and score, log, answer."""

from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import msgspec

from experiments import UNASSIGNED, Assignment, shadow_version
from gateway.admission import PATIENCE_BY_PRIORITY, Admission, Priority
from gateway.arm_counts import ARM_FAULTS, ArmCounter
from gateway.deadline_watch import DeadlineWatch
from gateway.errors import DeadlineExceeded
from gateway.metrics import GatewayMetrics
from gateway.prediction_log.log_writer import LogWriter, entry_bytes
from gateway.prediction_log.prediction_table import PredictionEntry
from gateway.request_names import check_names, unit_of
from gateway.scoring_ladder import Scored, ScoringLadder
from gateway.served_models import ServedModel
from gateway.shadow_scoring import ShadowScorer
from gateway.variant_draw import Call, draw

STATIC_VERSION: Final = "static"
"""In place of a version's name: of a fixed score."""


# A msgspec.Struct although it stays in process: a dataclass of ten fields takes 0.7 µs to make, this 0.2.
class Prediction(msgspec.Struct):
    """One answer, and the time that its stages took."""

    prediction_id: str
    scored: Scored
    assignment: Assignment
    variant_served: str | None
    predictions: list[Any]
    degraded: list[str]
    features_us: int
    total_us: int


class Predictor:
    """Answers predict calls."""

    def __init__(
        self,
        admission: Admission,
        ladder: ScoringLadder,
        log: LogWriter,
        metrics: GatewayMetrics,
        arms: ArmCounter,
        shadows: ShadowScorer,
        new_id: Callable[[], str],
        now_us: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._admission, self._ladder, self._log, self._metrics = admission, ladder, log, metrics
        self._arms, self._shadows = arms, shadows
        self._new_id, self._now_us, self._clock = new_id, now_us, clock
        self._deadlines = DeadlineWatch(clock)

    def check_room(self, model: ServedModel, priority: Priority) -> None:
        """Refuse a request that would not be admitted, before what it brings is read. Raises Overloaded."""
        self._admission.of(model.name, model.route.deadline_ms).check(priority)

    async def predict(self, call: Call) -> Prediction:
        """Score every instance of one request. Raises a GatewayError of the request, the workers or the deadline."""
        place = self._admission.of(call.model.name, call.model.route.deadline_ms)
        place.admit(call.priority)
        waited_s: float | None = None  # what is refused says nothing of how long answers take
        assignment = UNASSIGNED
        try:
            check_names(call.model, call.request)
            unit = unit_of(call.model, call.request, optional=call.unit_optional)
            assignment = draw(call, unit)
            drawn = assignment.variant.version if assignment.variant else call.model.route.default_version
            if shadow_version(assignment, unit, drawn) is not None:
                call.source.keep()
            expires_at = call.received_at + call.budget_ms / 1000
            if expires_at <= self._clock():
                raise DeadlineExceeded("the request was read", call.budget_ms)
            watched = self._deadlines.enter(expires_at)
            try:
                scored = await self._ladder.score(
                    call.model,
                    call.version or drawn,
                    call.source,
                    expires_at,
                    call.budget_ms * PATIENCE_BY_PRIORITY[call.priority] / 1000,
                    exactly=call.version is not None,
                )
                waited_s = self._clock() - call.received_at
            finally:
                if self._deadlines.leave(watched):
                    waited_s = self._clock() - call.received_at
                    raise DeadlineExceeded("features were read and rows scored", call.budget_ms) from None
        except ARM_FAULTS:
            # A caller who gives less time than the route, or lets itself be shed, does not speak for the arm.
            if call.budget_ms >= call.model.route.deadline_ms and call.priority is not Priority.SHEDDABLE:
                self._arms.failed(assignment, call.received_at)
            raise
        finally:
            place.release(waited_s)
        return self._answered(call, unit, assignment, scored)

    def _answered(self, call: Call, unit: str | None, assignment: Assignment, scored: Scored) -> Prediction:
        total_us = int((self._clock() - call.received_at) * 1e6)
        features_us = max(0, total_us - scored.queue_us - scored.infer_us)
        # The arm served only where its own version answered: a fallback is an outcome of the arm, not the arm.
        stepped_down = scored.error_code is not None
        served = None if stepped_down or assignment.variant is None else assignment.variant.name
        version = scored.planned.version if scored.planned else STATIC_VERSION
        predictions, degraded = values_for_clients(scored)
        prediction = Prediction(
            self._new_id(), scored, assignment, served, predictions, degraded, features_us, total_us
        )
        table = scored.planned.table if scored.planned else call.model.static_table
        if table is not None:
            rows = scored.rows
            inputs = rows.inputs if rows else ()
            entry = PredictionEntry(
                self._now_us(),
                prediction.prediction_id,
                call.request_id,
                call.request,
                unit,
                assignment,
                served,
                call.source.count,
                inputs,
                rows.found if rows else [],
                scored.outputs,
                tuple(degraded),
                scored.error_code,
                features_us,
                scored.queue_us,
                scored.infer_us,
                total_us,
            )
            self._log.offer(table, entry, entry_bytes(inputs, call.body_bytes))
            shadow = shadow_version(assignment, unit, version)
            if shadow is not None:
                self._shadows.offer(call.model, shadow, call.source, entry)
        self._arms.answered(assignment, total_us, scored.outputs, stepped_down=stepped_down, degraded=bool(degraded))
        self._metrics.answered(
            call.model.name,
            (version, served or ""),
            call.source.count,
            degraded,
            (features_us, scored.queue_us, scored.infer_us),
        )
        return prediction


def values_for_clients(scored: Scored) -> tuple[list[Any], list[str]]:
    """Shape scores as clients know them: a value an instance, or an object by output name where there are several.

    A NaN or an infinity, which JSON cannot say, becomes null and is named in the second result.
    """
    degraded = list(scored.degraded)
    outputs, names = scored.outputs, scored.names
    if not scored.finite:
        cleaned = []
        for name, values in zip(names, outputs, strict=True):
            finite = [_finite(value) for value in values]
            if finite != values:
                degraded.append(f"score_not_finite:{name}")
            cleaned.append(finite)
        outputs = cleaned
    if len(outputs) == 1:
        return outputs[0], degraded
    return [dict(zip(names, row, strict=True)) for row in zip(*outputs, strict=True)], degraded


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value
