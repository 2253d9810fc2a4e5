"""Prediction entries → rows of the prediction record, column by column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from contracts.inference import split_byte_elements
from contracts.manifest import Input, Output
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
TENSOR_COLUMNS_MAX: Final = 1_024
"""Elements of a row for which a tensor that is no feature row is logged, a column each."""

Columns = tuple[tuple[str, str], ...]
"""(name, datatype) of each column that a tensor's row makes; none where it is not logged."""


@dataclass(frozen=True, slots=True)
class LoggedColumns:
    """What of a version's tensors is logged: feature views, and by input and by output the columns."""

    views: tuple[str, ...]
    inputs: tuple[Columns, ...]
    outputs: tuple[Columns, ...]


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
    """The rows of one model version, or of a model's static score."""

    def __init__(self, model: str, version: str, entities: Sequence[str], columns: LoggedColumns) -> None:
        self._model, self._version, self._columns = model, version, columns
        self._entities = tuple(entities)
        self.directory = f"predictions/model={model}"
        self.label = f"{model}@{version}"
        self.schema = prediction_schema(
            entities=self._entities,
            views=columns.views,
            features=list(chain.from_iterable(columns.inputs)),
            outputs=list(chain.from_iterable(columns.outputs)),
        )

    def batch(self, entries: Sequence[PredictionEntry]) -> pa.RecordBatch:
        """Build one batch; an entry of n instances makes n rows."""
        rows = sum(entry.row_count for entry in entries)
        columns = [*self._fixed(entries, rows), *self._entity_columns(entries), *self._view_columns(entries, rows)]
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
                    values += [None if shared is None else str(shared)] * entry.row_count
                else:
                    own = (instance.entities.get(kind, shared) for instance in entry.request.instances)
                    values += [None if entity is None else str(entity) for entity in own]
            columns.append(pa.array(values, pa.string()))
        return columns

    def _view_columns(self, entries: Sequence[PredictionEntry], rows: int) -> list[pa.Array]:
        if not self._columns.views:
            return []
        # Rows that were sent as tensors were looked up in no view.
        nowhere = [(None,) * len(self._columns.views)]
        found = list(chain.from_iterable(entry.found or nowhere * entry.row_count for entry in entries))
        assert len(found) == rows
        statuses, times = [], []
        for v in range(len(self._columns.views)):
            of_view: list[ProjectedRow | None] = [row[v] for row in found]
            codes = pa.array([None if row is None else int(row.status) for row in of_view], pa.int32())
            statuses.append(pa.DictionaryArray.from_arrays(codes, pa.array(STATUSES, pa.string())))
            times_us = [None if row is None else row.event_time_us for row in of_view]
            times.append(pa.array(times_us, pa.int64()).cast(TIMESTAMP))
        return [*statuses, *times]

    def _feature_columns(self, entries: Sequence[PredictionEntry], rows: int) -> list[pa.Array]:
        columns: list[pa.Array] = []
        for i, names in enumerate(self._columns.inputs):
            if not names:
                continue
            datatype = names[0][1]
            data = b"".join([entry.inputs[i] for entry in entries])
            if datatype == BYTES:
                elements = [e.decode("utf-8", "replace") for e in split_byte_elements(data, names[0][0])]
                columns += [pa.array(elements[j :: len(names)], pa.string()) for j in range(len(names))]
            else:
                matrix = np.frombuffer(data, DTYPE_BY_DATATYPE[datatype]).reshape(rows, len(names))
                # One transposing copy, after which each column is contiguous and needs none of its own.
                columns += [pa.array(column) for column in np.ascontiguousarray(matrix.T)]
        return columns

    def _output_columns(self, entries: Sequence[PredictionEntry]) -> list[pa.Array]:
        columns: list[pa.Array] = []
        for o, names in enumerate(self._columns.outputs):
            if not names:
                continue
            values = list(chain.from_iterable(entry.outputs[o] for entry in entries))
            each = [list(c) for c in zip(*values, strict=True)] if isinstance(values[0], list) else [values]
            columns += [
                pa.array(column, ARROW_TYPE_BY_DATATYPE[datatype])
                for column, (_, datatype) in zip(each, names, strict=True)
            ]
        return columns


def logged_columns(inputs: Sequence[Input], outputs: Sequence[Output], plan: FeaturePlan | None) -> LoggedColumns:
    """Name the columns of a version: features where its inputs list some, else elements of its tensors.

    A tensor whose rows vary in shape, or have more than TENSOR_COLUMNS_MAX elements, is not logged.
    """
    return LoggedColumns(
        views=tuple(view.name for view in plan.views) if plan else (),
        inputs=plan.columns if plan else tuple(tensor_columns(i.name, i.dtype, i.shape) for i in inputs),
        # A score of more than one dimension a row is no column that anybody compares.
        outputs=tuple(tensor_columns(o.name, o.dtype, o.shape) if len(o.shape) < 3 else () for o in outputs),
    )


def tensor_columns(name: str, datatype: str, shape: Sequence[int]) -> Columns:
    """Name a tensor's columns: `name`, or `name.0`, `name.1`… where a row has several elements."""
    if len(shape) == 1:
        return ((name, datatype),)
    elements = prod(shape[1:])
    if -1 in shape[1:] or elements > TENSOR_COLUMNS_MAX:
        return ()
    return tuple((f"{name}.{i}", datatype) for i in range(elements))


def _repeated(values: Sequence[Any], entries: Sequence[PredictionEntry]) -> list[Any]:
    return list(
        chain.from_iterable(repeat(value, entry.row_count) for value, entry in zip(values, entries, strict=True))
    )


def _constant(value: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], pa.string()))
