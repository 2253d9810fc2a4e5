import sys

import numpy as np
import pytest

from contracts.manifest import Input
from model_workers.errors import ModelMismatch
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from model_workers.runtimes.lightgbm import LightGbmParameters
from model_workers.runtimes.lookup import BUILT_IN
from model_workers.runtimes.onnx import DATATYPE_BY_ONNX_TYPE, OnnxParameters
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.runtime_example import (
    DOCUMENT,
    code,
    install_example,
    linear_manifest,
    linear_scores,
    publish_linear_model,
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    directory = tmp_path / "installed"
    directory.mkdir()
    install_example(directory)
    monkeypatch.syspath_prepend(directory)
    yield
    for name in ("our_runtimes", "our_runtimes.linear"):
        sys.modules.pop(name, None)


def load_linear(directory, manifest):
    path = publish_linear_model(directory, manifest)
    return load_version(VersionDirectory(manifest.model, manifest.version, path), HandClock()).model


def test_every_runtime_and_each_of_its_parameters_stand_in_the_documents():
    assert [name for name in BUILT_IN if f"**`{name}`**" not in DOCUMENT] == []
    for parameters in (OnnxParameters, LightGbmParameters):
        assert [p for p in parameters.__struct_fields__ if f"| `parameters.{p}` |" not in DOCUMENT] == []


def test_every_datatype_of_onnx_runtime_stands_in_the_documents_by_name_or_in_a_range():
    ranges = {"INT16", "INT32", "UINT16", "UINT32"}
    assert [name for name in DATATYPE_BY_ONNX_TYPE.values() if f"`{name}`" not in DOCUMENT and name not in ranges] == []


def test_the_documented_runtime_keeps_its_promise_of_30_lines():
    assert len([line for line in code("python").splitlines() if line.strip()]) <= 30


@pytest.mark.usefixtures("installed")
def test_the_documented_runtime_runs_as_it_is_written(tmp_path):
    model = load_linear(tmp_path, linear_manifest())
    rows = np.arange(15.0).reshape(5, 3)
    assert model.execute({"x": rows}, ["y"])["y"].tolist() == linear_scores(rows).tolist()
    model.close()


@pytest.mark.usefixtures("installed")
def test_the_documented_runtime_refuses_a_manifest_that_does_not_fit_its_model(tmp_path):
    with pytest.raises(ModelMismatch, match="price@1: the model has 3 columns"):
        load_linear(tmp_path, linear_manifest(inputs=(Input("x", "FP64", (-1, 4)),)))
