import json

import numpy as np
import pytest

from model_workers.errors import ArtifactMismatch, ExecutionFailed, RepositoryError
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock
from tests.unit.model_workers.published_models import onnx_manifest, publish


def load(path):
    return load_version(VersionDirectory("churn", "1", path), HandClock())


def use_runtime(monkeypatch, runtime, while_opening=lambda directory: None):
    """Let every manifest be opened by `runtime`; something may happen meanwhile."""

    def open_artifact(directory, manifest):
        while_opening(directory)
        return runtime

    monkeypatch.setattr("model_workers.loading.find_runtime", lambda name: open_artifact)


@pytest.fixture
def runtime():
    return FakeRuntime(lambda inputs: {"probabilities": np.zeros((len(inputs["X"]), 2), dtype=np.float32)})


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json"])
def test_a_file_that_is_replaced_between_its_hash_and_its_opening_refuses_the_version(
    tmp_path, monkeypatch, runtime, file
):
    def replace(directory):
        other = directory / ".other"
        other.write_bytes((directory / file).read_bytes())
        other.rename(directory / file)

    use_runtime(monkeypatch, runtime, replace)
    with pytest.raises(ArtifactMismatch, match="changed while it was read"):
        load(publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 2)))
    assert runtime.closed


def test_a_version_is_warmed_with_the_requests_that_lie_beside_it(tmp_path, monkeypatch, runtime):
    use_runtime(monkeypatch, runtime)
    path = publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 2, warm_up="warm-up.json"))
    x = {"name": "X", "datatype": "FP32", "shape": [3, 2], "data": [1, 2, 3, 4, 5, 6]}
    (path / "warm-up.json").write_text(json.dumps({"inputs": [x]}))
    load(path)
    assert runtime.rows_seen[0] == 3


def test_a_warm_up_file_that_does_not_fit_refuses_the_version_before_it_is_opened(tmp_path, monkeypatch, runtime):
    use_runtime(monkeypatch, runtime)
    path = publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 2, warm_up="warm-up.json"))
    with pytest.raises(RepositoryError, match="the warm-up requests cannot be read"):
        load(path)
    assert runtime.rows_seen == []


def test_a_model_that_fails_on_its_warm_up_is_closed(tmp_path, monkeypatch):
    runtime = FakeRuntime(lambda inputs: {"probabilities": np.zeros((0, 2), dtype=np.float32)})
    use_runtime(monkeypatch, runtime)
    with pytest.raises(ExecutionFailed):
        load(publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 2)))
    assert runtime.closed
