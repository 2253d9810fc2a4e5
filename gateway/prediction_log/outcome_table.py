"""Outcome entries → rows of the outcome record."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from contracts.outcome_record import OUTCOME_SCHEMA, SCHEMA_VERSION


class OutcomeEntry(NamedTuple):
    """One accepted outcome; `ts_us` is when it was received, UTC."""

    ts_us: int
    prediction_id: str | None
    row: int | None
    unit: str | None
    metric: str
    value: float
    at_us: int

    @property
    def row_count(self) -> int:
        """Rows that the entry makes."""
        return 1


class OutcomeTable:
    """The outcome log's rows."""

    directory = "outcomes"
    label = "outcomes"
    schema = OUTCOME_SCHEMA

    def batch(self, entries: Sequence[OutcomeEntry]) -> pa.RecordBatch:
        """Build one batch, a row an entry."""
        ts_us, prediction_ids, rows, units, metrics, values, ats_us = zip(*entries, strict=True)
        columns = {
            "schema_version": np.full(len(entries), SCHEMA_VERSION, np.int16),
            "prediction_id": prediction_ids,
            "row": rows,
            "unit": units,
            "metric": metrics,
            "value": values,
            "at": np.array(ats_us, "M8[us]"),
            "received_at": np.array(ts_us, "M8[us]"),
        }
        return pa.RecordBatch.from_arrays(
            [pa.array(columns[field.name], field.type) for field in self.schema], schema=self.schema
        )
