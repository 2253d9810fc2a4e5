"""Prediction entries → rows of the prediction record, column by column."""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from contracts.inference import split_byte_elements
from contracts.manifest import Manifest
from contracts.prediction_record import (
    ARROW_TYPE_BY_DATATYPE,
    DICTIONARY,
    SCHEMA_VERSION,
    STATUSES,
    TIMESTAMP,
    prediction_schema,
)
from experiments import Assignment, Reason
from feature_store import ProjectedRow
from gateway.feature_plan import FeaturePlan
from gateway.predict_request import PredictRequest

MICROSECONDS_MAX = 2**31 - 1


class PredictionEntry(NamedTuple):
    """One answered request, as it stood in memory: nothing is computed for the log before the writer's thread."""

    ts_us: int
    prediction_id: str
    request_id: str
    request: PredictRequest
    unit: str | None
    assignment: Assignment
    variant_served: str | None
    row_count: int
    inputs: tuple[bytes, ...]
    found: list[tuple[ProjectedRow, ...]]
    outputs: list[list[Any]]
    degraded: tuple[str, ...]
    error_code: str | None
    features_us: int
    queue_us: int
    infer_us: int
    total_us: int


class PredictionTable:
    """The rows of one model version (or of a model's static score, whose plan is None)."""

    def __init__(
        self,
        model: str,
        version: str,
        entities: Sequence[str],
        outputs: Sequence[tuple[str, str]],
        plan: FeaturePlan | None,
    ) -> None:
        self._model, self._version, self._plan = model, version, plan
        self._entities = tuple(entities)
        self._outputs = tuple(outputs)
        self.directory = f"predictions/model={model}"
        self.label = f"{model}@{version}"
        self.schema = prediction_schema(
            entities=self._entities,
            views=[view.name for view in plan.views] if plan else [],
            features=list(chain.from_iterable(plan.columns)) if plan else [],
            outputs=self._outputs,
        )

    def batch(self, entries: Sequence[PredictionEntry]) -> pa.RecordBatch:
        """Build one batch; an entry of n instances makes n rows."""
        rows = sum(entry.row_count for entry in entries)
        columns = [*self._fixed(entries, rows), *self._entity_columns(entries), *self._view_columns(entries)]
        columns += self._feature_columns(entries, rows)
        columns += self._output_columns(entries)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _fixed(self, entries: Sequence[PredictionEntry], rows: int) -> list[pa.Array]:
        single = rows == len(entries)
        row = chain.from_iterable(range(entry.row_count) for entry in entries)

        def column(value: Callable[[PredictionEntry], Any], kind: pa.DataType) -> pa.Array:
            values = [value(entry) for entry in entries]
            return pa.array(values if single else _repeated(values, entries), kind)

        def word(value: Callable[[PredictionEntry], str | None]) -> pa.Array:
            return column(value, pa.string()).dictionary_encode().cast(DICTIONARY)

        return [
            column(lambda e: e.prediction_id, pa.string()),
            pa.array(list(row), pa.int32()),
            column(lambda e: e.request_id, pa.string()),
            pa.array(np.full(rows, SCHEMA_VERSION, np.int16)),
            column(lambda e: e.ts_us, pa.int64()).cast(TIMESTAMP),
            _constant(self._model, rows),
            _constant(self._version, rows),
            word(lambda e: e.assignment.experiment.name if e.assignment.experiment else None),
            column(lambda e: e.assignment.experiment.revision if e.assignment.experiment else None, pa.int64()),
            column(lambda e: e.assignment.experiment.epoch if e.assignment.experiment else None, pa.int64()),
            column(lambda e: e.unit, pa.string()),
            word(lambda e: e.assignment.variant.name if e.assignment.variant else None),
            word(lambda e: e.variant_served),
            column(lambda e: e.assignment.enrol_bucket, pa.int16()),
            column(lambda e: e.assignment.split_bucket, pa.int16()),
            column(lambda e: e.assignment.probability, pa.float64()),
            column(lambda e: e.assignment.reason is Reason.FORCED, pa.bool_()),
            column(lambda _: False, pa.bool_()),
            column(lambda e: e.degraded, pa.list_(pa.string())),
            word(lambda e: e.error_code),
            *(
                column(lambda e, i=i: min(e[i], MICROSECONDS_MAX), pa.int32())  # type: ignore[misc]
                for i in map(PredictionEntry._fields.index, ("features_us", "queue_us", "infer_us", "total_us"))
            ),
            pa.array(np.ones(rows)),
        ]

    def _entity_columns(self, entries: Sequence[PredictionEntry]) -> list[pa.Array]:
        columns = []
        for kind in self._entities:
            values: list[str | None] = []
            for entry in entries:
                shared = entry.request.entities.get(kind)
                if entry.request.instances is None:
                    values.append(None if shared is None else str(shared))
                else:
                    own = (instance.entities.get(kind, shared) for instance in entry.request.instances)
                    values += [None if entity is None else str(entity) for entity in own]
            columns.append(pa.array(values, pa.string()))
        return columns

    def _view_columns(self, entries: Sequence[PredictionEntry]) -> list[pa.Array]:
        if self._plan is None:
            return []
        found = list(chain.from_iterable(entry.found for entry in entries))
        statuses, times = [], []
        for v in range(len(self._plan.views)):
            codes = pa.array([int(row[v].status) for row in found], pa.int32())
            statuses.append(pa.DictionaryArray.from_arrays(codes, pa.array(STATUSES, pa.string())))
            times.append(pa.array([row[v].event_time_us for row in found], pa.int64()).cast(TIMESTAMP))
        return [*statuses, *times]

    def _feature_columns(self, entries: Sequence[PredictionEntry], rows: int) -> list[pa.Array]:
        if self._plan is None:
            return []
        columns: list[pa.Array] = []
        for i, (plan_input, names) in enumerate(zip(self._plan.inputs, self._plan.columns, strict=True)):
            data = b"".join([entry.inputs[i] for entry in entries])
            if plan_input.datatype == BYTES:
                elements = [e.decode("utf-8", "replace") for e in split_byte_elements(data, plan_input.name)]
                columns += [pa.array(elements[j :: len(names)], pa.string()) for j in range(len(names))]
            else:
                matrix = np.frombuffer(data, DTYPE_BY_DATATYPE[plan_input.datatype]).reshape(rows, len(names))
                # One transposing copy, after which each column is contiguous and needs none of its own.
                columns += [pa.array(column) for column in np.ascontiguousarray(matrix.T)]
        return columns

    def _output_columns(self, entries: Sequence[PredictionEntry]) -> list[pa.Array]:
        flat: list[list[Any]] = []
        for o in range(len(entries[0].outputs)):
            values = list(chain.from_iterable(entry.outputs[o] for entry in entries))
            flat += [list(c) for c in zip(*values, strict=True)] if isinstance(values[0], list) else [values]
        return [
            pa.array(values, ARROW_TYPE_BY_DATATYPE[datatype])
            for values, (_, datatype) in zip(flat, self._outputs, strict=True)
        ]


def output_columns(manifest: Manifest) -> list[tuple[str, str]]:
    """Name the score columns of a version: `output`, or `output.0`, `output.1`… where a row has several values."""
    columns: list[tuple[str, str]] = []
    for output in manifest.outputs:
        if len(output.shape) == 1:
            columns.append((output.name, output.dtype))
        elif len(output.shape) == 2 and output.shape[1] > 0:
            columns += [(f"{output.name}.{i}", output.dtype) for i in range(output.shape[1])]
        else:
            raise ValueError(f"output {output.name!r} of shape {list(output.shape)} cannot be logged as columns")
    return columns


def _repeated(values: Sequence[Any], entries: Sequence[PredictionEntry]) -> list[Any]:
    return list(
        chain.from_iterable(repeat(value, entry.row_count) for value, entry in zip(values, entries, strict=True))
    )


def _constant(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], pa.string()))
