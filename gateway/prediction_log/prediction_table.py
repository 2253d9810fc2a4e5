"""Prediction entries → rows of the prediction record, column by column."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from contracts.inference import split_byte_elements
from contracts.manifest import Input, Output
from contracts.prediction_record import (
    ARROW_TYPE_BY_DATATYPE,
    FEATURE_PREFIX,
    SCHEMA_VERSION,
    STATUSES,
    prediction_schema,
)
from experiments import Assignment, Reason
from feature_store import FeatureStatus, ProjectedRow
from gateway.feature_plan import FeaturePlan
from gateway.predict_request import EntityId, PredictRequest
from gateway.prediction_log.packed_columns import packed_field
from gateway.prediction_log.prediction_columns import (
    Constant,
    Counts,
    Lookup,
    durations,
    integers,
    rows_within,
    scores,
    spread,
    texts,
    times,
    words,
)

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
    shadow: bool = False
    """Whether nobody got this answer: another version gave it."""


class PredictionTable:
    """The rows of one model version, or of a model's static score."""

    def __init__(self, model: str, version: str, entities: Sequence[str], columns: LoggedColumns) -> None:
        self._columns = columns
        self._entities = tuple(entities)
        self.directory = f"predictions/model={model}"
        self.label = f"{model}@{version}"
        self.schema = prediction_schema(
            entities=self._entities,
            views=columns.views,
            features=list(chain.from_iterable(columns.inputs)),
            outputs=list(chain.from_iterable(columns.outputs)),
        )
        self._stream_schema = _stream_schema(self.schema, columns)
        self._model, self._version = Constant(words([model])), Constant(words([version]))
        self._schema_version = Constant(pa.array([SCHEMA_VERSION], pa.int16()))
        self._first_row = Constant(pa.array([0], pa.int32()))
        self._false = Constant(pa.array([False]))
        self._nothing_degraded = Constant(pa.array([[]], pa.list_(pa.string())))
        self._no_error = Constant(words([None]))
        self._one = Constant(pa.array([1.0]))
        self._statuses = pa.array(STATUSES, pa.string())
        self._present = Constant(self._status_of([FeatureStatus.PRESENT]))
        self._decisions = Lookup(_decision_columns)
        self._served, self._errors = Lookup(_word_column), Lookup(_word_column)

    def batch(self, entries: Sequence[PredictionEntry]) -> pa.RecordBatch:
        """Build one batch, with each tensor's columns packed; an entry of n instances makes n rows.

        No statement runs once a row and column: the entries are turned into tuples, one a field, and each tuple into
        columns. What an entry has one value of is made by entry, and then spread over its rows.
        """
        fields: Any = PredictionEntry._make(zip(*entries, strict=True))  # each field holds the values of all entries
        rows = sum(fields.row_count)
        single = rows == len(entries)
        counts = None if single else np.array(fields.row_count)
        columns = self._fixed(fields, counts, rows)
        columns += self._entity_columns(fields, counts)
        columns += self._view_columns(fields, rows)
        columns += self._feature_columns(fields, rows)
        columns += self._output_columns(fields)
        return pa.RecordBatch.from_arrays(columns, schema=self._stream_schema)

    def _fixed(self, fields: Any, counts: Counts | None, rows: int) -> list[pa.Array]:
        entries = len(fields.row_count)
        experiments, variants, reasons, enrol_buckets, split_buckets = zip(*fields.assignment, strict=True)
        # By identity: experiments and variants are few and live long, and to hash one takes as long as a whole row.
        keys = list(zip(map(id, experiments), map(id, variants), map(id, reasons), strict=True))
        experiment, revision, epoch, variant, probability, forced = spread(
            self._decisions.columns(keys, fields.assignment), counts
        )
        degraded, errors, shadows = fields.degraded, fields.error_code, fields.shadow
        each = [
            texts(fields.prediction_id),
            texts(fields.request_id),
            times(fields.ts_us),
            texts(fields.unit),
            *self._served.columns(fields.variant_served, fields.variant_served),
            integers(enrol_buckets, np.int16, pa.int16()),
            integers(split_buckets, np.int16, pa.int16()),
            pa.array(shadows, pa.bool_()) if any(shadows) else self._false.rows(entries),
            pa.array(degraded, pa.list_(pa.string())) if any(degraded) else self._nothing_degraded.rows(entries),
            *(self._errors.columns(errors, errors) if any(errors) else [self._no_error.rows(entries)]),
            *durations([fields.features_us, fields.queue_us, fields.infer_us, fields.total_us]),
        ]
        prediction_id, request_id, ts, unit, served, enrol, split, shadow, fallbacks, error, *stages = spread(
            each, counts
        )
        return [
            prediction_id,
            self._first_row.rows(rows) if counts is None else rows_within(counts),
            request_id,
            self._schema_version.rows(rows),
            ts,
            self._model.rows(rows),
            self._version.rows(rows),
            experiment,
            revision,
            epoch,
            unit,
            variant,
            served,
            enrol,
            split,
            probability,
            forced,
            shadow,
            fallbacks,
            error,
            *stages,
            self._one.rows(rows),  # sample_weight
        ]

    def _entity_columns(self, fields: Any, counts: Counts | None) -> list[pa.Array]:
        requests: Sequence[PredictRequest] = fields.request
        if all(request.instances is None for request in requests):
            shared = [request.entities for request in requests]
            return spread([texts([entities.get(kind) for entities in shared]) for kind in self._entities], counts)
        columns = []
        for kind in self._entities:
            values: list[EntityId | None] = []
            for request, rows in zip(requests, fields.row_count, strict=True):
                of_request = request.entities.get(kind)
                if request.instances is None:
                    values += [of_request] * rows
                else:
                    values += [instance.entities.get(kind, of_request) for instance in request.instances]
            columns.append(texts(values))
        return columns

    def _view_columns(self, fields: Any, rows: int) -> list[pa.Array]:
        if not self._columns.views:
            return []
        found = list(chain.from_iterable(fields.found))
        if len(found) != rows:
            # Rows that were sent as tensors were looked up in no view.
            nowhere = ((None,) * len(self._columns.views),)
            each = (of_entry or nowhere * count for of_entry, count in zip(fields.found, fields.row_count, strict=True))
            found = list(chain.from_iterable(each))
        statuses, event_times = [], []
        for of_view in zip(*found, strict=True):
            statuses.append(self._status_column([row and row.status for row in of_view]))
            event_times.append(times([row and row.event_time_us for row in of_view]))
        return [*statuses, *event_times]

    def _status_column(self, statuses: list[FeatureStatus | None]) -> pa.Array:
        if statuses.count(FeatureStatus.PRESENT) == len(statuses):
            return self._present.rows(len(statuses))
        return self._status_of(statuses)

    def _status_of(self, statuses: Sequence[FeatureStatus | None]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(integers(statuses, np.int32, pa.int32()), self._statuses)

    def _feature_columns(self, fields: Any, rows: int) -> list[pa.Array]:
        columns: list[pa.Array] = []
        for names, pieces in zip(self._columns.inputs, zip(*fields.inputs, strict=True), strict=True):
            if not names:
                continue
            datatype = names[0][1]
            data = b"".join(pieces)
            if datatype == BYTES:
                elements = [e.decode("utf-8", "replace") for e in split_byte_elements(data, names[0][0])]
                columns += [pa.array(elements[j :: len(names)], pa.string()) for j in range(len(names))]
            else:
                width = DTYPE_BY_DATATYPE[datatype].itemsize * len(names)
                assert len(data) == rows * width
                columns.append(pa.Array.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(data)]))
        return columns

    def _output_columns(self, fields: Any) -> list[pa.Array]:
        columns: list[pa.Array] = []
        for names, pieces in zip(self._columns.outputs, zip(*fields.outputs, strict=True), strict=True):
            if not names:
                continue
            values = list(chain.from_iterable(pieces))
            each = zip(*values, strict=True) if isinstance(values[0], list) else [values]
            columns += [
                scores(column, ARROW_TYPE_BY_DATATYPE[datatype])
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


def _stream_schema(schema: pa.Schema, columns: LoggedColumns) -> pa.Schema:
    """Put one packed field in the place of each input's columns. Texts, whose length varies, stay as they are."""
    fields = list(schema)
    for i, names in enumerate(columns.inputs):
        if names and names[0][1] != BYTES:
            own = [FEATURE_PREFIX + name for name, _ in names]
            place = fields.index(schema.field(own[0]))
            dtype = DTYPE_BY_DATATYPE[names[0][1]]
            fields[place : place + len(names)] = [packed_field(f"packed.{i}", own, dtype)]
    return pa.schema(fields, schema.metadata)


def _word_column(values: list[str | None]) -> list[pa.Array]:
    return [words(values)]


def _decision_columns(assignments: list[Assignment]) -> list[pa.Array]:
    """Return what experiment, variant and reason decide: the columns of that, a row a decision."""
    experiments = [assignment.experiment for assignment in assignments]
    return [
        words([e.name if e else None for e in experiments]),
        pa.array([e.revision if e else None for e in experiments], pa.int64()),
        pa.array([e.epoch if e else None for e in experiments], pa.int64()),
        words([a.variant.name if a.variant else None for a in assignments]),
        pa.array([a.probability for a in assignments], pa.float64()),
        pa.array([a.reason is Reason.FORCED for a in assignments], pa.bool_()),
    ]
