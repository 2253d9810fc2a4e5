import struct

import pyarrow as pa
import pytest

from contracts.manifest import Input, Output
from experiments import UNASSIGNED
from gateway.predict_request import PredictRequest
from gateway.prediction_log.packed_columns import unpacked
from gateway.prediction_log.prediction_table import PredictionEntry, PredictionTable, logged_columns


def entry(inputs: tuple[bytes, ...], outputs: list, rows: int, unit: str | None = "u1") -> PredictionEntry:
    return PredictionEntry(
        ts_us=1,
        prediction_id="p",
        request_id="r",
        request=PredictRequest(unit=unit),
        unit=unit,
        assignment=UNASSIGNED,
        variant_served=None,
        row_count=rows,
        inputs=inputs,
        found=[],
        outputs=outputs,
        degraded=(),
        error_code=None,
        features_us=1,
        queue_us=2,
        infer_us=3,
        total_us=6,
    )


def table(inputs: tuple[Input, ...], outputs: tuple[Output, ...]) -> PredictionTable:
    return PredictionTable("m", "1", ["user"], logged_columns(inputs, outputs, None))


def logged(made: PredictionTable, entries: list[PredictionEntry]) -> pa.Table:
    return unpacked(pa.Table.from_batches([made.batch(entries)]))


def test_tensors_without_features_are_logged_a_column_an_element():
    made = table((Input("x", "FP32", (-1, 2)), Input("n", "INT64", (-1,))), (Output("y", "FP32", (-1, 2)),))
    inputs = (struct.pack("<4f", 1, 2, 3, 4), struct.pack("<2q", 5, 6))
    batch = logged(made, [entry(inputs, [[[0.5, 0.25], [0.75, 1.0]]], 2), entry(inputs, [[[1, 2], [3, 4]]], 2)])
    assert batch.column("f.x.0").to_pylist() == [1, 3, 1, 3]
    assert batch.column("f.x.1").to_pylist() == [2, 4, 2, 4]
    assert batch.column("f.n").to_pylist() == [5, 6, 5, 6]
    assert batch.column("y.y.1").to_pylist() == [0.25, 1.0, 2, 4]
    assert batch.column("row").to_pylist() == [0, 1, 0, 1]
    assert batch.column("entity.user").to_pylist() == [None] * 4


@pytest.mark.parametrize("shape", [(-1, -1), (-1, 1025), (-1, 32, 33)])
def test_a_tensor_whose_rows_vary_or_are_too_wide_is_left_out_and_the_rest_is_logged(shape):
    made = table((Input("x", "FP32", shape),), (Output("y", "FP32"), Output("z", "FP32", (-1, 2, 2))))
    batch = logged(made, [entry((bytes(8),), [[0.5], [[[1, 2], [3, 4]]]], 1)])
    assert [name for name in batch.schema.names if name.startswith(("f.", "y."))] == ["y.y"]
    assert batch.column("y.y").to_pylist() == [0.5]


def test_a_batch_has_one_column_for_all_elements_of_a_tensor_however_many():
    made = table((Input("x", "FP32", (-1, 500)),), (Output("y", "FP32"),))
    batch = made.batch([entry((bytes(2_000),), [[0.5]], 1)])
    assert batch.num_columns == len(made.schema) - 499


def test_a_null_among_scores_is_a_null_in_the_log():
    made = table((), (Output("y", "FP32"),))
    batch = logged(made, [entry((), [[0.5]], 1), entry((), [[None]], 1)])
    assert batch.column("y.y").to_pylist() == [0.5, None]


def test_rows_whose_number_is_not_that_of_their_features_are_refused():
    made = table((Input("x", "FP32", (-1, 2)),), (Output("y", "FP32"),))
    with pytest.raises(AssertionError):
        made.batch([entry((bytes(12),), [[0.5]], 1)])
