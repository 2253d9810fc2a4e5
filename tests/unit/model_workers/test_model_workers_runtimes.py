import re

import numpy as np
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from contracts.manifest import Artifact, Input, Output
from model_workers.errors import ModelMismatch, RuntimeMissing
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory, select_versions
from model_workers.runtimes import lookup
from model_workers.runtimes.lightgbm import LightGbmModel
from model_workers.runtimes.lookup import find_runtime
from model_workers.runtimes.onnx import OnnxModel
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.published_models import lightgbm_manifest, onnx_manifest, publish


def loaded(repository, offline):
    (directory,) = select_versions(repository, [f"{offline.model}@{offline.version}"])
    return load_version(directory, HandClock()).model


def load_changed(repository, offline, directory, manifest):
    """Publish the artifact of `offline` anew under another manifest, and load it."""
    source = repository / offline.model / offline.version / manifest.artifact.file
    path = publish(directory, source.read_bytes(), manifest)
    return load_version(VersionDirectory(manifest.model, manifest.version, path), HandClock())


CLASSIFIERS = ["onnx_classifier", "lightgbm_classifier"]


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("rows", [1, 2, 569])
def test_scores_equal_those_of_the_library_offline(repository, classifier, rows, request):
    offline = request.getfixturevalue(classifier)
    model = loaded(repository, offline)
    name = model.manifest.inputs[0].name
    scores = model.execute({name: offline.rows[:rows]}, ["malignant"])["malignant"]
    assert scores.dtype == np.float32
    assert scores.shape == (rows,)
    np.testing.assert_allclose(scores, offline.scores[:rows], rtol=0, atol=1e-6)


def test_a_single_row_and_a_batch_of_lightgbm_agree_to_the_last_bit(repository, lightgbm_regression):
    model = loaded(repository, lightgbm_regression)
    rows = lightgbm_regression.rows
    together = model.execute({"features": rows}, ["width_cm"])["width_cm"]
    alone = [model.execute({"features": rows[i : i + 1]}, ["width_cm"])["width_cm"][0] for i in range(len(rows))]
    assert together.tolist() == alone == lightgbm_regression.scores.tolist()


def test_a_multiclass_model_answers_with_a_column_a_class_or_with_the_one_asked(repository, lightgbm_multiclass):
    model = loaded(repository, lightgbm_multiclass)
    for rows in (1, 150):
        answers = model.execute({"features": lightgbm_multiclass.rows[:rows]}, ["virginica", "species"])
        assert answers["species"].tolist() == lightgbm_multiclass.scores[:rows].tolist()
        np.testing.assert_allclose(answers["virginica"], lightgbm_multiclass.scores[:rows, 2], atol=1e-6)


def test_lightgbm_takes_a_missing_value_as_it_does_offline(repository, lightgbm_classifier):
    rows = lightgbm_classifier.rows[:3].copy()
    rows[1, :] = np.nan
    model = loaded(repository, lightgbm_classifier)
    scores = model.execute({"features": rows}, ["malignant"])["malignant"]
    alone = model.execute({"features": rows[1:2]}, ["malignant"])["malignant"]
    assert np.isfinite(scores).all()
    assert scores[1] == alone[0]


MISMATCHES = [
    ("onnx_classifier", {"inputs": (Input("Z", "FP32", (-1, 30)),)}, r"declares inputs \['Z'\], the model has \['X'\]"),
    ("onnx_classifier", {"inputs": (Input("X", "FP64", (-1, 30)),)}, "FP64 in the manifest, FP32 in the model"),
    ("onnx_classifier", {"inputs": (Input("X", "FP32", (-1, 29)),)}, r"\[-1, 29\] in the manifest, \[-1, 30\] in the"),
    ("onnx_classifier", {"inputs": (Input("X", "FP32", (-1,)),)}, r"\[-1\] in the manifest, \[-1, 30\] in the"),
    ("onnx_classifier", {"outputs": (Output("p", "FP32", source="q"),)}, "'p' comes from 'q', the model has"),
    ("onnx_classifier", {"outputs": (Output("label", "FP32"),)}, "FP32 in the manifest, INT64 in the model"),
    ("onnx_classifier", {"parameters": {"thread": 2}}, "unknown field `thread`"),
    ("onnx_classifier", {"parameters": {"threads": 0}}, "Expected `int` >= 1"),
    ("onnx_classifier", {"parameters": {"providers": ["Abacus"]}}, "provider 'Abacus' is not installed"),
    ("lightgbm_classifier", {"inputs": (Input("f", "FP32", (-1, 29)),)}, "29 columns in the manifest, 30 in the model"),
    ("lightgbm_classifier", {"inputs": (Input("f", "INT64", (-1, 30)),)}, "INT64; a LightGBM model takes FP32 or FP64"),
    ("lightgbm_classifier", {"inputs": (Input("f", "FP32", (-1,)),)}, r"takes one input of shape \[-1, columns\]"),
    ("lightgbm_classifier", {"parameters": {"threads": "2"}}, "Expected `int`, got `str`"),
]


@pytest.mark.parametrize(("classifier", "changes", "said"), MISMATCHES)
def test_a_manifest_that_its_model_does_not_fit_is_refused(repository, tmp_path, request, classifier, changes, said):
    manifest_of = onnx_manifest if classifier == "onnx_classifier" else lightgbm_manifest
    offline = request.getfixturevalue(classifier)
    with pytest.raises(ModelMismatch, match=said):
        load_changed(repository, offline, tmp_path, manifest_of("changed", "1", 30, **changes))


def test_a_column_that_the_model_does_not_have_is_found_while_warming_up(repository, tmp_path, lightgbm_classifier):
    manifest = lightgbm_manifest("changed", "1", 30, outputs=(Output("p", "FP32", column=1),))
    with pytest.raises(Exception, match=r"output 'p' takes column 1 of shape \[1\]"):
        load_changed(repository, lightgbm_classifier, tmp_path, manifest)


@pytest.mark.parametrize(
    ("runtime", "file", "artifact", "said"),
    [
        ("onnxruntime", "model.onnx", b"not a model", "ONNX Runtime cannot open model.onnx: "),
        ("lightgbm", "model.txt", b"not a model", "model.txt: it is not LightGBM's text form"),
        ("lightgbm", "model.txt", b"tree\nnum_class=1\n", "model.txt: it has no trees; the file may be truncated"),
    ],
)
def test_an_artifact_that_is_no_model_is_refused_by_name(tmp_path, runtime, file, artifact, said):
    manifest = lightgbm_manifest("broken", "1", 3, runtime=runtime, artifact=Artifact(file, "0" * 64))
    path = publish(tmp_path, artifact, manifest)
    with pytest.raises(ModelMismatch, match=re.escape(said)):
        load_version(VersionDirectory("broken", "1", path), HandClock())


def identity_model(rows, kind=TensorProto.FLOAT):
    """Build an ONNX model that gives back what it takes; `rows` is a number, or a name where it is free."""
    x, y = (helper.make_tensor_value_info(name, kind, [rows, 3]) for name in "XY")
    graph = helper.make_graph([helper.make_node("Identity", ["X"], ["Y"])], "identity", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def load_identity(directory, artifact, **changes):
    manifest = onnx_manifest("identity", "1", 3, outputs=(Output("Y", "FP32", (-1, 3)),), **changes)
    return load_version(VersionDirectory("identity", "1", publish(directory, artifact, manifest)), HandClock()).model


def test_an_onnx_model_of_one_row_an_execution_is_served_row_by_row(tmp_path):
    model = load_identity(tmp_path, identity_model(1), batch_rows_max=1)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert model.execute({"X": rows}, ["Y"])["Y"].tolist() == rows.tolist()


@pytest.mark.parametrize(("rows", "batch_rows_max"), [(1, 2), (8, 8)])
def test_an_onnx_model_of_a_fixed_number_of_rows_is_refused(tmp_path, rows, batch_rows_max):
    with pytest.raises(ModelMismatch, match=f"takes exactly {rows} rows an execution; export"):
        load_identity(tmp_path, identity_model(rows), batch_rows_max=batch_rows_max)


def test_an_onnx_model_takes_and_gives_words(tmp_path):
    changes = {"inputs": (Input("X", "BYTES", (-1, 3)),), "outputs": (Output("Y", "BYTES", (-1, 3)),)}
    manifest = onnx_manifest("words", "1", 3, **changes)
    path = publish(tmp_path, identity_model("rows", TensorProto.STRING), manifest)
    model = load_version(VersionDirectory("words", "1", path), HandClock()).model
    words = np.array([["a", "ü", ""]], dtype=object)
    assert model.execute({"X": words}, ["Y"])["Y"].tolist() == words.tolist()


def test_a_classifier_that_answers_with_maps_is_refused_with_how_to_export_it(tmp_path):
    rows, target = load_iris(return_X_y=True)
    converted = to_onnx(
        LogisticRegression(max_iter=1_000).fit(rows, target), rows[:1].astype(np.float32), target_opset=17
    )
    manifest = onnx_manifest("maps", "1", 4, outputs=(Output("p", "FP32", source="output_probability"),))
    path = publish(tmp_path, converted.SerializeToString(), manifest)
    with pytest.raises(ModelMismatch, match="zipmap=False"):
        load_version(VersionDirectory("maps", "1", path), HandClock())


def test_parameters_give_a_runtime_more_threads(repository, tmp_path, onnx_classifier, lightgbm_classifier):
    manifest = onnx_manifest("threads", "1", 30, parameters={"threads": 2})
    assert load_changed(repository, onnx_classifier, tmp_path, manifest).model.manifest.parameters == {"threads": 2}
    manifest = lightgbm_manifest("threads", "2", 30, parameters={"threads": 2})
    assert load_changed(repository, lightgbm_classifier, tmp_path, manifest)


def test_the_built_in_runtimes_are_found_without_entry_points(monkeypatch):
    monkeypatch.setattr(lookup, "entry_points", lambda **_: pytest.fail("not needed"))
    assert find_runtime("onnxruntime").__module__ == OnnxModel.__module__
    assert find_runtime("lightgbm").__module__ == LightGbmModel.__module__


def test_a_runtime_of_another_distribution_is_found_by_its_entry_point(monkeypatch):
    class EntryPoint:
        def load(self):
            return "its load"

    monkeypatch.setattr(lookup, "entry_points", lambda group, name: [EntryPoint()] if name == "treelite" else [])
    assert find_runtime("treelite") == "its load"


def test_a_runtime_whose_module_fails_is_refused_with_what_it_said(monkeypatch):
    class EntryPoint:
        def load(self):
            raise AttributeError("module 'treelite' has no attribute 'laod'")

    class EntryPoints(list):
        names = ("treelite",)

    monkeypatch.setattr(lookup, "entry_points", lambda **_: EntryPoints([EntryPoint()]))
    with pytest.raises(RuntimeMissing, match="'treelite' is not available: AttributeError: module 'treelite' has no"):
        find_runtime("treelite")


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    with pytest.raises(RuntimeMissing, match="'abacus' is not available: it is unknown; known: lightgbm, onnxruntime"):
        find_runtime("abacus")


def test_a_runtime_whose_library_is_absent_is_refused_by_the_name_of_the_library(monkeypatch):
    monkeypatch.setitem(lookup.BUILT_IN, "onnxruntime", "model_workers.runtimes.no_such_module")
    with pytest.raises(RuntimeMissing, match=r"No module named .*no_such_module"):
        find_runtime("onnxruntime")
