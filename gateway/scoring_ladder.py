"""The ladder of answers: the drawn version, then the fallback version, then a fixed value. Each rung down is said."""

from typing import Any, Final

import msgspec

from gateway.dispatch.batch import Scores
from gateway.errors import (
    FeaturesUnavailable,
    ModelNotReady,
    Overloaded,
    WorkerRefused,
    WorkerUnavailable,
)
from gateway.feature_rows import ModelRows
from gateway.row_sources import RowSource
from gateway.served_models import PlannedVersion, ServedModel

VARIANT_FALLBACK: Final = "variant_fallback"
STATIC_SCORE: Final = "static_score"

STEP_DOWN_ON: Final = (WorkerUnavailable, WorkerRefused, ModelNotReady, Overloaded, FeaturesUnavailable)
"""Faults of the version, for which another may do better. Not a deadline: nobody waits any more."""


class Scored(msgspec.Struct):
    """One request's scores, from whichever rung gave them."""

    planned: PlannedVersion | None
    """None: the static score."""

    rows: ModelRows | None
    names: tuple[str, ...]
    """Of the outputs, as clients know them."""

    outputs: list[list[Any]]
    finite: bool
    degraded: tuple[str, ...]
    error_code: str | None
    """The first fault that made the ladder step down."""

    queue_us: int
    infer_us: int


class ScoringLadder:
    """Scores a request on the first rung that holds."""

    async def score(
        self,
        model: ServedModel,
        version: str,
        source: RowSource,
        expires_at: float,
        patience_s: float,
        *,
        exactly: bool = False,
    ) -> Scored:
        """Score every row. Raises the first fault where no rung is left, and a fault of the request at once.

        patience_s: how long the rows may have to wait for a worker; where it will be longer, the version is overloaded.
        exactly: this version or none; its caller asked for it by name.
        """
        try:
            return await self._by_version(model, version, source, expires_at, patience_s)
        except STEP_DOWN_ON as fault:
            # Only its code goes further: a frame that held the exception would be held by its traceback in turn, and
            # a storm of such garbage stops the process for the collector when it can least afford it.
            scored = (
                None if exactly else await self._step_down(model, version, source, expires_at, patience_s, fault.code)
            )
            if scored is None:
                raise
            return scored

    async def _by_version(
        self, model: ServedModel, version: str, source: RowSource, expires_at: float, patience_s: float
    ) -> Scored:
        served = model.versions.get(version)
        planned = served.planned if served is not None else None
        if planned is None:
            raise ModelNotReady(
                f"{model.name}@{version}: {served.problem if served else 'the route has no such version'}"
            )
        dispatcher = planned.dispatcher
        if dispatcher.rows_waiting:
            wait_s = dispatcher.expected_wait_s()
            if wait_s > patience_s:
                raise Overloaded(f"{model.name}@{version}: rows wait {wait_s * 1000:.0f} ms for a worker just now")
        rows = await source.rows(planned)
        scores: Scores = await dispatcher.submit(rows.inputs, rows.count, expires_at, rows.row_shapes)
        return Scored(
            planned,
            rows,
            planned.output_names,
            scores.outputs,
            scores.finite,
            rows.degraded,
            None,
            scores.queue_us,
            scores.infer_us,
        )

    async def _step_down(
        self,
        model: ServedModel,
        version: str,
        source: RowSource,
        expires_at: float,
        patience_s: float,
        fault_code: str,
    ) -> Scored | None:
        champion = model.route.fallback.version or model.route.default_version
        if champion != version:
            try:
                scored = await self._by_version(model, champion, source, expires_at, patience_s)
            except STEP_DOWN_ON:
                pass  # the last rung, below; the caller is told of the first fault
            else:
                scored.degraded = (VARIANT_FALLBACK, *scored.degraded)
                scored.error_code = fault_code
                return scored
        value = model.route.fallback.value
        if value is None:
            return None
        # Before any version was planned nobody knows the outputs' names; one value then stands without one.
        by_name = model.static_outputs or (value if isinstance(value, dict) else {"value": value})
        outputs = [[v] * source.count for v in by_name.values()]
        return Scored(None, None, tuple(by_name), outputs, True, (STATIC_SCORE,), fault_code, 0, 0)
