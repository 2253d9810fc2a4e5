import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from contracts.datatypes import DTYPE_BY_DATATYPE
from contracts.inference import tensor_of
from contracts.manifest import Input, Output
from model_workers.errors import ExecutionFailed, ModelMismatch
from model_workers.loading import load_version
from model_workers.repository import VersionDirectory
from model_workers.request_rows import RowReader
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.published_models import onnx_manifest, publish

ROOT = Path(__file__).resolve().parents[3]

ONNX_TYPE_BY_DATATYPE = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def onnx_model(nodes, inputs, outputs, *, constants=(), opset=17):
    """Serialise a graph; inputs and outputs are name, datatype and shape."""
    values = [
        [helper.make_tensor_value_info(name, ONNX_TYPE_BY_DATATYPE[dtype], shape) for name, dtype, shape in tensors]
        for tensors in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "graph", *values, [numpy_helper.from_array(a, name) for name, a in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


def load_onnx(directory, artifact, inputs, outputs, **changes):
    manifest = onnx_manifest("m", "1", 1, inputs=inputs, outputs=outputs, **changes)
    return load_version(VersionDirectory("m", "1", publish(directory, artifact, manifest)), HandClock()).model


def extremes(datatype):
    """Return three values of a datatype, the least and the greatest one among them."""
    if datatype == "BYTES":
        return np.array(["", "ü\n", "word"], dtype=object)
    dtype = DTYPE_BY_DATATYPE[datatype]
    if dtype.kind == "b":
        return np.array([True, False, True])
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([limits.min, limits.max, 0 if dtype.kind != "f" else np.nan], dtype=dtype)


@pytest.mark.parametrize("datatype", ONNX_TYPE_BY_DATATYPE)
@pytest.mark.parametrize("row_shape", [(), (3,), (3, 1)])
def test_every_datatype_goes_through_a_model_unchanged(tmp_path, datatype, row_shape):
    free = ["rows", *(f"d{i}" for i in range(len(row_shape)))]
    identity = helper.make_node("Identity", ["X"], ["Y"])
    artifact = onnx_model([identity], [("X", datatype, free)], [("Y", datatype, free)])
    shape = (-1,) * (1 + len(row_shape))
    model = load_onnx(tmp_path, artifact, (Input("X", datatype, shape),), (Output("Y", datatype, shape),))
    sent = tensor_of("X", extremes(datatype).reshape(3, *[1] * len(row_shape)).repeat(3, -1), datatype)
    rows = RowReader(model.manifest, rows_max=9).rows([sent])
    answer = model.execute(rows.arrays, ["Y"])["Y"]
    received = tensor_of("Y", answer, datatype)
    assert (received.shape, bytes(received.data)) == (sent.shape, bytes(sent.data))


def test_a_model_takes_several_inputs_of_several_kinds_and_answers_several_outputs(tmp_path):
    nodes = [
        helper.make_node("Cast", ["count"], ["count32"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["x", "last"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "count32"], ["score"]),
        helper.make_node("Identity", ["word"], ["said"]),
    ]
    inputs = [("x", "FP32", ["rows", "columns"]), ("count", "INT64", ["rows"]), ("word", "BYTES", ["rows"])]
    outputs = [("score", "FP32", ["rows"]), ("said", "BYTES", ["rows"])]
    artifact = onnx_model(nodes, inputs, outputs, constants=[("last", np.array([1]))])
    model = load_onnx(
        *(tmp_path, artifact),
        (Input("word", "BYTES", (-1,)), Input("x", "FP32", (-1, -1)), Input("count", "INT64", (-1,))),
        (Output("said", "BYTES"), Output("score", "FP32")),
    )
    for columns in (1, 5):
        rows = {
            "count": np.array([10, 20]),
            "word": np.array(["a", "b"], dtype=object),
            "x": np.ones((2, columns), dtype=np.float32),
        }
        answers = model.execute(rows, ["score", "said"])
        assert answers["score"].tolist() == [10 + columns, 20 + columns]
        assert answers["said"].tolist() == ["a", "b"]


def test_every_output_of_the_graph_is_computed_whether_it_is_asked_or_not(tmp_path):
    # `looked_up` fails where X is beyond its table; the rows of the warm-up are not. Where this test fails, ONNX
    # Runtime has learnt to leave out what is not asked: docs/runtimes.md says that it has not.
    nodes = [
        helper.make_node("Cast", ["X"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["looked_up"]),
        helper.make_node("Identity", ["X"], ["Y"]),
    ]
    outputs = [("Y", "FP32", ["rows"]), ("looked_up", "FP32", ["rows"])]
    constants = [("table", np.zeros(100, dtype=np.float32))]
    artifact = onnx_model(nodes, [("X", "FP32", ["rows"])], outputs, constants=constants)
    model = load_onnx(tmp_path, artifact, (Input("X", "FP32", (-1,)),), (Output("Y", "FP32"),))
    within, beyond = (np.array([x], dtype=np.float32) for x in (99, 1_000))
    assert list(model.execute({"X": within}, ["Y"])) == ["Y"]
    with pytest.raises(ExecutionFailed, match="out of data bounds"):
        model.execute({"X": beyond}, ["Y"])


def test_an_execution_that_fails_says_so_to_its_caller_and_not_to_the_log(tmp_path, capfd):
    nodes = [helper.make_node("Gather", ["table", "X"], ["Y"])]
    constants = [("table", np.zeros(1, dtype=np.float32))]
    artifact = onnx_model(nodes, [("X", "INT64", ["rows"])], [("Y", "FP32", ["rows"])], constants=constants)
    model = load_onnx(tmp_path, artifact, (Input("X", "INT64", (-1,)),), (Output("Y", "FP32"),))
    with pytest.raises(ExecutionFailed, match="out of data bounds"):
        model.execute({"X": np.array([7])}, ["Y"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("labels", "datatype"), [((7, 8, 9), "INT64"), (("setosa", "versicolor", "virginica"), "BYTES")]
)
def test_a_classifier_answers_with_its_label_where_asked(tmp_path, labels, datatype):
    rows, species = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    classifier = LogisticRegression(max_iter=1_000).fit(rows, np.array(labels)[species])
    converted = to_onnx(classifier, rows[:1], options={id(classifier): {"zipmap": False}}, target_opset=17)
    outputs = (Output("label", datatype), Output("p", "FP32", (-1, 3), source="probabilities"))
    model = load_onnx(tmp_path, converted.SerializeToString(), (Input("X", "FP32", (-1, 4)),), outputs)
    assert model.execute({"X": rows}, ["label"])["label"].tolist() == classifier.predict(rows).tolist()
    both = model.execute({"X": rows[:1]}, ["p", "label"])
    np.testing.assert_allclose(both["p"], classifier.predict_proba(rows[:1]), atol=1e-6)
    assert both["label"].tolist() == [labels[0]]


def identity_artifact(**changes):
    return onnx_model(
        [helper.make_node("Identity", ["X"], ["Y"])], [("X", "FP32", ["rows"])], [("Y", "FP32", ["rows"])], **changes
    )


def load_identity(directory, artifact, **changes):
    return load_onnx(directory, artifact, (Input("X", "FP32", (-1,)),), (Output("Y", "FP32"),), **changes)


@pytest.mark.parametrize(
    ("artifact", "said"),
    [
        (identity_artifact(opset=999), "ai.onnx is till opset"),
        (identity_artifact()[:-20], "model.onnx"),
        (b"", "model.onnx"),
        (b"\xff" * 1_000, "model.onnx"),
        (onnx_model([helper.make_node("Fly", ["X"], ["Y"])], [("X", "FP32", [1])], [("Y", "FP32", [1])]), "Fly"),
    ],
    ids=["unknown opset", "truncated", "empty", "noise", "unknown operator"],
)
def test_what_is_no_model_for_this_release_is_refused_in_one_line(tmp_path, capfd, artifact, said):
    with pytest.raises(ModelMismatch) as refused:
        load_identity(tmp_path, artifact)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().out == ""


def test_a_provider_may_be_given_with_its_options(tmp_path):
    providers = [["CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"}]]
    model = load_identity(tmp_path, identity_artifact(), parameters={"providers": providers})
    assert model.execute({"X": np.ones(2, dtype=np.float32)}, ["Y"])["Y"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("providers", "said"),
    [([], "length >= 1"), ([["CPUExecutionProvider"]], "length 2"), ([["Abacus", {}]], "'Abacus' is not installed")],
)
def test_providers_that_cannot_be_had_are_refused(tmp_path, providers, said):
    with pytest.raises(ModelMismatch, match=said):
        load_identity(tmp_path, identity_artifact(), parameters={"providers": providers})


def test_a_damaged_model_never_ends_the_process(tmp_path, repository, onnx_classifier):
    artifact = repository / onnx_classifier.model / onnx_classifier.version / "model.onnx"
    program = ROOT / "tests" / "unit" / "model_workers" / "damaged_models.py"
    ran = subprocess.run(
        [sys.executable, program, "onnxruntime", artifact, "30", tmp_path],
        check=False,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran
    refused, taken = map(int, ran.stdout.split())
    assert refused > 100
    assert taken > 10
