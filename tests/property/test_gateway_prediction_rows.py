import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from experiments import UNASSIGNED, Assignment, Reason, parse_experiment
from feature_store import FeatureStatus, ProjectedRow
from gateway.predict_request import Instance, PredictRequest
from gateway.prediction_log.packed_columns import unpacked
from gateway.prediction_log.prediction_columns import MICROSECONDS_MAX
from gateway.prediction_log.prediction_table import LoggedColumns, PredictionEntry, PredictionTable

VIEWS = ("profile", "stats")
ENTITIES = ("item", "user")
INPUTS = (
    (("profile.a", "FP32"), ("profile.b", "FP32"), ("stats.c", "FP32")),
    (("stats.n", "INT64"),),
    (("not logged", "FP32"),),
    (("profile.word", BYTES), ("stats.word", BYTES)),
    (("stats.yes", "BOOL"), ("stats.no", "BOOL")),
)
OUTPUTS = (
    (("score", "FP32"),),
    (("roots.0", "FP64"), ("roots.1", "FP64")),
    (("unlogged", "FP32"),),
    (("visits", "INT64"),),
    (("label", BYTES),),
)
NOT_LOGGED = 2
"""Of the inputs and of the outputs: the one whose columns are left out."""


def logged(columns: Any) -> Any:
    return tuple(() if i == NOT_LOGGED else names for i, names in enumerate(columns))


def experiment(name: str) -> Any:
    variants = [{"name": n, "version": v, "bp": 5_000} for n, v in (("control", "1"), ("treatment", "2"))]
    return parse_experiment(
        {"experiment": name, "model": "m", "unit": "user", "state": "running", "variants": variants}
    )


EXPERIMENTS = (experiment("first"), experiment("second"))
ASSIGNMENTS = [
    UNASSIGNED,
    Assignment(EXPERIMENTS[0], None, Reason.NOT_TARGETED),
    Assignment(EXPERIMENTS[1], None, Reason.NOT_ENROLLED, 9_999),
    *(Assignment(e, v, Reason.SPLIT, 7, 9) for e in EXPERIMENTS for v in e.variants),
    *(Assignment(e, v, Reason.FORCED) for e in EXPERIMENTS for v in e.variants),
    Assignment(EXPERIMENTS[0], EXPERIMENTS[0].variants[1], Reason.OVERRIDE),
]

words = st.text(max_size=5)
STAGES = ("features_us", "queue_us", "infer_us", "total_us")
ids = words | st.integers(-(1 << 63), (1 << 63) - 1)
entities = st.dictionaries(st.sampled_from(ENTITIES), ids)
times_us = st.integers(0, 2_000_000_000_000_000)
durations = st.integers(0, 2**40)
floats = st.floats(width=32, allow_nan=False)
found_rows = st.builds(
    ProjectedRow, st.just(()), st.sampled_from(FeatureStatus), st.none() | times_us
)  # no two share an object


def elements(datatype: str) -> st.SearchStrategy[Any]:
    kinds = {"INT64": st.integers(-(1 << 63), (1 << 63) - 1), BYTES: words, "BOOL": st.booleans()}
    return kinds.get(datatype, floats)


def rows_of(columns: Any) -> st.SearchStrategy[Any]:
    return st.tuples(*(st.tuples(*(elements(datatype) for _, datatype in names)) for names in columns))


def tensor(values: list[Any], datatype: str) -> bytes:
    if datatype == BYTES:
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return np.array(values, DTYPE_BY_DATATYPE[datatype]).tobytes()


@st.composite
def entries(draw: Any, *, single: bool) -> tuple[PredictionEntry, list[dict[str, Any]]]:
    """Draw an entry, and say plainly which rows it makes."""
    count = 1 if single else draw(st.integers(1, 3))
    instances = None
    if not single and draw(st.booleans()):
        instances = [Instance(entities=draw(entities)) for _ in range(count)]
    request = PredictRequest(instances=instances, entities=draw(entities))
    sent_as_tensors = draw(st.booleans()) if not single else False
    found = [] if sent_as_tensors else [(draw(found_rows), draw(found_rows)) for _ in range(count)]
    inputs = [draw(rows_of(INPUTS)) for _ in range(count)]
    outputs = [draw(rows_of(OUTPUTS)) for _ in range(count)]
    entry = PredictionEntry(
        ts_us=draw(times_us),
        prediction_id=draw(words),
        request_id=draw(words),
        request=request,
        unit=draw(st.none() | words),
        assignment=draw(st.sampled_from(ASSIGNMENTS)),
        variant_served=draw(st.sampled_from([None, "control", "treatment"])),
        row_count=count,
        inputs=tuple(tensor([v for row in inputs for v in row[i]], names[0][1]) for i, names in enumerate(INPUTS)),
        found=found,
        outputs=[[list(row[o]) if len(names) > 1 else row[o][0] for row in outputs] for o, names in enumerate(OUTPUTS)],
        degraded=draw(st.just(()) | st.tuples(words, words)),
        error_code=draw(st.none() | st.sampled_from(["worker_unavailable", "deadline"])),
        features_us=draw(durations),
        queue_us=draw(durations),
        infer_us=draw(durations),
        total_us=draw(durations),
        shadow=draw(st.booleans()),
    )
    return entry, [
        expected_row(entry, row, {**request.entities, **(instances[row].entities if instances else {})}, *values)
        for row, values in enumerate(zip(inputs, outputs, strict=True))
    ]


def moment(time_us: int | None) -> datetime | None:
    return None if time_us is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


def expected_row(entry: PredictionEntry, row: int, of_row: dict[str, Any], fed: Any, said: Any) -> dict[str, Any]:
    made = entry.assignment
    views = entry.found[row] if entry.found else (None, None)
    expected = {
        "prediction_id": entry.prediction_id,
        "row": row,
        "request_id": entry.request_id,
        "schema_version": 1,
        "ts": moment(entry.ts_us),
        "model": "m",
        "version": "1",
        "experiment": made.experiment.name if made.experiment else None,
        "revision": made.experiment.revision if made.experiment else None,
        "epoch": made.experiment.epoch if made.experiment else None,
        "unit": entry.unit,
        "variant_assigned": made.variant.name if made.variant else None,
        "variant_served": entry.variant_served,
        "enrol_bucket": made.enrol_bucket,
        "split_bucket": made.split_bucket,
        "assignment_probability": made.probability,
        "forced": made.reason is Reason.FORCED,
        "shadow": entry.shadow,
        "degraded": list(entry.degraded),
        "error_code": entry.error_code,
        "sample_weight": 1.0,
    }
    expected |= {name: min(getattr(entry, name), MICROSECONDS_MAX) for name in STAGES}
    expected |= {f"entity.{kind}": str(of_row[kind]) if kind in of_row else None for kind in ENTITIES}
    expected |= {f"status.{name}": view.status.name if view else None for name, view in zip(VIEWS, views, strict=True)}
    expected |= {
        f"event_time.{name}": moment(view.event_time_us) if view else None
        for name, view in zip(VIEWS, views, strict=True)
    }
    for prefix, columns, values in (("f.", INPUTS, fed), ("y.", OUTPUTS, said)):
        for i, names in enumerate(columns):
            if i != NOT_LOGGED:
                expected |= {prefix + name: value for (name, _), value in zip(names, values[i], strict=True)}
    return expected


def assert_logged_as_expected(
    table: PredictionTable, drawn: list[tuple[PredictionEntry, list[dict[str, Any]]]]
) -> None:
    batch = table.batch([entry for entry, _ in drawn])
    rows = unpacked(pa.Table.from_batches([batch]))
    rows.validate(full=True)
    assert rows.schema.equals(table.schema, check_metadata=True)
    assert rows.to_pylist() == [row for _, expected in drawn for row in expected]


def prediction_table() -> PredictionTable:
    return PredictionTable("m", "1", ENTITIES, LoggedColumns(VIEWS, logged(INPUTS), logged(OUTPUTS)))


@given(st.lists(entries(single=True), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_one_row_of_each_entry_is_logged_as_it_was_answered(drawn):
    assert_logged_as_expected(prediction_table(), drawn)


@given(st.lists(st.lists(entries(single=False), min_size=1, max_size=4), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_rows_of_any_shape_are_logged_as_they_were_answered_batch_after_batch(batches):
    table = prediction_table()
    for drawn in batches:
        assert_logged_as_expected(table, drawn)
