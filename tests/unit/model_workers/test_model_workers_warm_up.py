import json

import numpy as np
import pytest

from contracts.manifest import Input, Output
from model_workers import warm_up_requests
from model_workers.errors import ExecutionFailed, RepositoryError
from model_workers.model_version import ModelVersion
from model_workers.warm_up import WARM_ROUNDS, warm_up
from model_workers.warm_up_requests import read_warm_up_requests
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock
from tests.unit.model_workers.published_models import onnx_manifest

FILE = "warm-up/requests.json"


def manifest(**changes):
    fields = {"inputs": (Input("x", "FP32", (-1, 2)),), "outputs": (Output("y", "FP32"),), "warm_up": FILE}
    return onnx_manifest("churn", "1", 2, **{**fields, **changes})


def request(*rows, **fields):
    x = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": [list(row) for row in rows]}
    return {"inputs": [x], **fields}


def read(folder, document, declared=None):
    (folder / "warm-up").mkdir()
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / FILE).write_bytes(data)
    return read_warm_up_requests(folder, declared or manifest())


def record(seen):
    """Make a runtime that keeps its inputs, and fails on a row that begins with -1."""

    def infer(inputs):
        seen.append(inputs["x"].copy())
        if (inputs["x"][:, 0] == -1).any():
            raise ValueError("a row that this model cannot take")
        return {"y": inputs["x"].sum(axis=1)}

    return FakeRuntime(infer)


def test_a_manifest_that_names_no_file_has_no_recorded_requests(tmp_path):
    assert read_warm_up_requests(tmp_path, manifest(warm_up="")) == []


def test_one_request_stands_for_an_array_of_one(tmp_path):
    (only,) = read(tmp_path, request((1, 2)))
    assert only.rows.arrays["x"].tolist() == [[1, 2]]
    assert only.outputs == ("y",)


def test_recorded_requests_run_first_and_their_rows_are_what_the_cost_is_measured_with(tmp_path):
    seen = []
    declared = manifest(batch_rows_max=5)
    recorded = read(tmp_path, [request((1, 2), (3, 4)), request((5, 6))], declared)
    cost = warm_up(ModelVersion(declared, record(seen)), HandClock(), recorded)
    assert [rows.tolist() for rows in seen[:2]] == [[[1, 2], [3, 4]], [[5, 6]]]
    assert [rows.tolist() for rows in seen[2 : 2 + WARM_ROUNDS]] == [[[1, 2]]] * WARM_ROUNDS
    assert seen[-1].tolist() == [[1, 2], [3, 4], [5, 6], [1, 2], [3, 4]]
    assert cost.batch_rows == 5


def test_a_recorded_request_that_the_model_fails_on_refuses_the_version_and_is_named(tmp_path):
    recorded = read(tmp_path, [request((1, 2)), request((-1, 2))])
    with pytest.raises(ExecutionFailed, match=r"warm-up request 2 of 2: .*a row that this model cannot take"):
        warm_up(ModelVersion(manifest(), record([])), HandClock(), recorded)


def test_rows_of_another_shape_run_and_are_not_mixed_with_the_first(tmp_path):
    seen = []
    declared = manifest(inputs=(Input("x", "FP32", (-1, -1)),), batch_rows_max=3)
    wide = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [7, 8, 9]}]}
    recorded = read(tmp_path, [request((1, 2)), wide], declared)
    warm_up(ModelVersion(declared, record(seen)), HandClock(), recorded)
    assert seen[1].tolist() == [[7, 8, 9]]
    assert seen[-1].tolist() == [[1, 2]] * 3


def test_without_recorded_requests_rows_are_generated(tmp_path):
    seen = []
    warm_up(ModelVersion(manifest(warm_up="", batch_rows_max=4), record(seen)), HandClock())
    assert {len(rows) for rows in seen} == {1, 4}
    assert np.isfinite(seen[0]).all()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "is no JSON array of inference requests"),
        (b"[1", "is no JSON array of inference requests"),
        (b"[" * 10_000, "is no JSON array of inference requests"),
        ([], "holds 0 warm-up requests; give 1 to 1024"),
        ([request((1, 2))] * 1_025, "holds 1025 warm-up requests"),
        ([request((1, 2)), {"inputs": []}], "warm-up request 2 of 2: "),
        ([request()], "warm-up request 1 of 1: the inputs have no rows"),
        ([request((1, 2), outputs=[{"name": "z"}])], "there is no output 'z'"),
        ({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}, "the inputs are"),
    ],
)
def test_a_file_that_does_not_fit_refuses_the_version_and_says_where(tmp_path, document, said):
    with pytest.raises(RepositoryError) as refusal:
        read(tmp_path, document)
    assert said in str(refusal.value)
    assert FILE in str(refusal.value)


def test_a_missing_file_is_refused_by_its_path(tmp_path):
    with pytest.raises(RepositoryError, match=r"requests\.json: the warm-up requests cannot be read: No such file"):
        read_warm_up_requests(tmp_path, manifest())


def test_a_file_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(warm_up_requests, "FILE_BYTES_MAX", 10)
    with pytest.raises(RepositoryError, match="has more than 10 bytes"):
        read(tmp_path, request((1, 2)))
