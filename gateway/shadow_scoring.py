"""Shadows: a second version scores what was answered, on the same features, and nobody waits for it.

A shadow is dropped rather than queued: it takes what its workers have left, and where they have nothing left, it is
counted and forgotten.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.errors import GatewayError
from gateway.metrics import GatewayMetrics
from gateway.prediction_log.log_writer import LogWriter, entry_bytes
from gateway.prediction_log.prediction_table import PredictionEntry
from gateway.row_sources import RowSource
from gateway.served_models import ServedModel

SHADOWS_IN_FLIGHT_MAX: Final = 64

SCORED: Final = "scored"
DROPPED_BUSY: Final = "dropped_busy"
"""The version's workers had rows waiting."""

DROPPED_FULL: Final = "dropped_full"
FAILED: Final = "failed"
"""No answer within the model's deadline, or none at all."""

logger = logging.getLogger(__name__)


class ShadowScorer:
    """Scores shadows. clock: seconds, monotonic."""

    def __init__(
        self,
        log: LogWriter,
        metrics: GatewayMetrics,
        now_us: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._log, self._metrics, self._now_us, self._clock = log, metrics, now_us, clock
        self._in_flight: set[asyncio.Task[None]] = set()

    def offer(self, model: ServedModel, version: str, source: RowSource, answered: PredictionEntry) -> None:
        """Score once more what was answered, unless there is no room for it. source: with the features as they were."""
        served = model.versions.get(version)
        planned = served.planned if served is not None and served.ready else None
        if planned is None:
            self._count(model, FAILED)
        elif len(self._in_flight) >= SHADOWS_IN_FLIGHT_MAX:
            self._count(model, DROPPED_FULL)
        elif planned.dispatcher.rows_waiting:
            self._count(model, DROPPED_BUSY)
        else:
            task = asyncio.create_task(self._score(model, version, source, answered))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def close(self) -> None:
        """Wait for those in flight: by their deadline they have ended."""
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _score(self, model: ServedModel, version: str, source: RowSource, answered: PredictionEntry) -> None:
        began_at = self._clock()
        budget_s = model.route.deadline_ms / 1000
        planned = model.versions[version].planned
        assert planned is not None
        try:
            async with asyncio.timeout(budget_s):
                rows = await source.rows(planned)
                scores = await planned.dispatcher.submit(rows.inputs, rows.count, began_at + budget_s, rows.row_shapes)
        except (GatewayError, TimeoutError):
            self._count(model, FAILED)
            return
        except Exception:
            logger.exception("a shadow failed", extra={"model": model.name, "version": version})
            self._count(model, FAILED)
            return
        entry = answered._replace(
            ts_us=self._now_us(),
            variant_served=None,
            inputs=rows.inputs,
            found=rows.found,
            outputs=scores.outputs,
            degraded=rows.degraded,
            error_code=None,
            features_us=0,
            queue_us=scores.queue_us,
            infer_us=scores.infer_us,
            total_us=int((self._clock() - began_at) * 1e6),
            shadow=True,
        )
        self._log.offer(planned.table, entry, entry_bytes(rows.inputs, 0))
        self._count(model, SCORED)

    def _count(self, model: ServedModel, outcome: str) -> None:
        self._metrics.shadows.add(model.name, outcome)
