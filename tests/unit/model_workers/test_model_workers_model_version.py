import numpy as np
import pytest

from contracts.manifest import Input, Output
from model_workers.errors import ExecutionFailed
from model_workers.model_version import ModelVersion
from model_workers.warm_up import ExecutionCost, warm_up
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock
from tests.unit.model_workers.published_models import onnx_manifest


def version_of(function, *outputs, **changes):
    runtime = FakeRuntime(function)
    fields = {"inputs": (Input("x", "FP32", (-1, 2)),), "outputs": outputs, **changes}
    return ModelVersion(onnx_manifest("m", "1", 2, **fields), runtime), runtime


def matrix(rows):
    return np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)


def test_an_output_is_narrowed_to_its_column_and_renamed():
    version, _ = version_of(
        lambda inputs: {"probabilities": inputs["x"]}, Output("p", "FP32", source="probabilities", column=1)
    )
    answers = version.execute({"x": matrix(3)}, ["p"])
    assert answers["p"].tolist() == [1, 3, 5]


def test_an_output_is_cast_to_the_declared_kind():
    version, _ = version_of(lambda inputs: {"p": np.ones(len(inputs["x"]))}, Output("p", "FP32"))
    assert version.execute({"x": matrix(2)}, ["p"])["p"].dtype == np.float32


def test_a_call_of_more_rows_than_a_batch_may_have_is_run_in_parts_and_joined_in_order():
    version, runtime = version_of(lambda inputs: {"p": inputs["x"][:, 0]}, Output("p", "FP32"), batch_rows_max=4)
    assert version.execute({"x": matrix(10)}, ["p"])["p"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert runtime.rows_seen == [4, 4, 2]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"p": np.zeros(3)}, r"output 'p' has shape \[3\] for 2 rows"),
        ({"p": np.array(1.0)}, r"output 'p' has shape \[\] for 2 rows"),
        ({"p": [0.0, 0.0]}, "output 'p' has list for 2 rows"),
        ({}, "output 'p' has NoneType for 2 rows"),
        ({"p": np.zeros((2, 1))}, r"output 'p' is declared \[-1\], it has shape \[2, 1\]"),
        ({"p": np.array(["a", "b"], dtype=object)}, "output 'p' does not cast to FP32"),
    ],
)
def test_an_answer_other_than_declared_fails_the_execution(raw, said):
    version, _ = version_of(lambda _: raw, Output("p", "FP32"))
    with pytest.raises(ExecutionFailed, match=said):
        version.execute({"x": matrix(2)}, ["p"])


@pytest.mark.parametrize(
    ("raw", "dtype", "said"),
    [
        (np.array([0.7, 0.2]), "INT64", "does not cast to INT64"),
        (np.array([-1, 2]), "UINT8", "does not cast to UINT8"),
        (np.array([1, 0]), "BOOL", "does not cast to BOOL"),
        (np.array([0.7, 0.2]), "BYTES", "is float64 where words are declared"),
    ],
)
def test_an_answer_of_another_kind_fails_rather_than_lose_what_it_says(raw, dtype, said):
    version, _ = version_of(lambda _: {"p": raw}, Output("p", dtype))
    with pytest.raises(ExecutionFailed, match=f"output 'p' {said}"):
        version.execute({"x": matrix(2)}, ["p"])


@pytest.mark.parametrize(("raw", "dtype"), [([1, 2], "FP32"), ([True, False], "INT8"), ([0.5, 0.25], "FP16")])
def test_an_answer_whose_kind_holds_in_the_declared_one_is_cast(raw, dtype):
    version, _ = version_of(lambda _: {"p": np.array(raw)}, Output("p", dtype))
    assert version.execute({"x": matrix(2)}, ["p"])["p"].tolist() == raw


def test_a_declared_width_is_checked():
    version, _ = version_of(lambda inputs: {"p": inputs["x"]}, Output("p", "FP32", (-1, 3)))
    with pytest.raises(ExecutionFailed, match=r"declared \[-1, 3\], it has shape \[2, 2\]"):
        version.execute({"x": matrix(2)}, ["p"])


def test_what_a_runtime_raises_is_told_with_model_and_rows():
    version, _ = version_of(lambda _: 1 / 0, Output("p", "FP32"))
    with pytest.raises(ExecutionFailed, match="m@1 failed on 2 rows: ZeroDivisionError: division by zero"):
        version.execute({"x": matrix(2)}, ["p"])


def test_warming_up_runs_one_row_and_then_a_full_batch():
    version, runtime = version_of(lambda inputs: {"p": inputs["x"][:, 0]}, Output("p", "FP32"), batch_rows_max=32)
    cost = warm_up(version, HandClock())
    assert set(runtime.rows_seen) == {1, 32}
    assert cost.batch_rows == 32


def test_warming_up_gives_every_kind_of_input_rows_that_it_takes():
    seen = {}
    version, _ = version_of(
        lambda inputs: seen.update(inputs) or {"p": np.zeros(len(inputs["t"]))},
        Output("p", "FP32"),
        batch_rows_max=2,
        inputs=(Input("t", "BYTES", (-1, 1)), Input("n", "INT64", (-1, -1)), Input("x", "FP16", (-1,))),
    )
    warm_up(version, HandClock())
    assert seen["t"].tolist() == [["0"], ["0"]]
    assert (seen["n"].dtype, seen["n"].shape) == (np.int64, (2, 1))
    assert (seen["x"].dtype, seen["x"].shape) == (np.float16, (2,))


def test_a_wide_model_is_warmed_with_fewer_rows():
    wide = (Input("x", "FP32", (-1, 1_000_000)),)
    version, runtime = version_of(lambda inputs: {"p": inputs["x"][:, 0]}, Output("p", "FP32"), inputs=wide)
    warm_up(version, HandClock())
    assert max(runtime.rows_seen) == 4


@pytest.mark.parametrize(
    ("cost", "budget_us", "rows"),
    [
        (ExecutionCost(10, 110, 101), 9, 0),
        (ExecutionCost(10, 110, 101), 10, 1),
        (ExecutionCost(10, 110, 101), 60, 51),
        (ExecutionCost(10, 110, 101), 500, 101),
        (ExecutionCost(10, 10, 1), 10, 1),
        (ExecutionCost(10, 10, 1), 9, 0),
    ],
)
def test_the_rows_within_a_budget_lie_on_a_line_between_one_row_and_a_batch(cost, budget_us, rows):
    assert cost.rows_within(budget_us) == rows
