"""Tiny ONNX models that answer every row with the number of their version."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from contracts.manifest import Input, Output
from tests.unit.model_workers.published_models import onnx_manifest, publish

COLUMNS = 2


def publish_constant(repository: Path, model: str, version: int) -> Path:
    """Publish a version as one rename, as publishers do. Returns its folder."""
    draft = repository / f".draft-{model}-{version}"
    manifest = onnx_manifest(
        *(model, str(version), COLUMNS),
        inputs=(Input("X", "FP32", (-1, COLUMNS)),),
        outputs=(Output("version", "FP32", source="Y", column=0),),
        batch_rows_max=16,
    )
    folder = publish(draft, constant_artifact(version), manifest)
    (repository / model).mkdir(exist_ok=True)
    return folder.rename(repository / model / str(version))


def constant_artifact(value: float) -> bytes:
    """Make the model: X times zero, plus the value."""
    nodes = [helper.make_node("MatMul", ["X", "zeros"], ["Z"]), helper.make_node("Add", ["Z", "value"], ["Y"])]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(np.zeros((COLUMNS, 1), dtype=np.float32), "zeros"),
            numpy_helper.from_array(np.array([value], dtype=np.float32), "value"),
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return model.SerializeToString()
