"""Models that answer with what they are given, of every datatype: what goes in must come out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE, FLOATS
from contracts.manifest import Artifact, Input, Output
from tests.unit.model_workers.published_models import onnx_manifest, publish

COLUMNS: Final = 2
TYPED: Final = "typed"
"""The model that has an input and an output of each datatype."""

ELEMENT_BY_DATATYPE: Final = {
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
DATATYPES: Final = tuple(ELEMENT_BY_DATATYPE)


def model_of(datatype: str) -> str:
    """The name of the model that has one input `x` and one output `y` of a datatype."""
    return f"identity-{datatype.lower()}"


def publish_identity_models(repository: Path) -> None:
    """Publish one model a datatype, and `typed` (`in_fp32` … to `out_fp32` …), each as version 1."""
    for datatype in DATATYPES:
        _publish(repository, model_of(datatype), {("x", "y"): datatype})
    _publish(repository, TYPED, {(f"in_{d.lower()}", f"out_{d.lower()}"): d for d in DATATYPES})


def values_of(datatype: str) -> np.ndarray[Any, Any]:
    """Two rows of a datatype's smallest and largest values, of shape (2, COLUMNS)."""
    if datatype == BYTES:
        return np.array([["", "a"], ["関所", 'quote " and \\']], dtype=object)
    dtype = DTYPE_BY_DATATYPE[datatype]
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    if datatype in FLOATS:
        largest = np.finfo(dtype).max
        return np.array([[-largest, largest], [0.5, -0.0]], dtype=dtype)
    bounds = np.iinfo(dtype)
    return np.array([[bounds.min, bounds.max], [0, 1]], dtype=dtype)


def as_text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Decode the elements of a BYTES tensor, which clients give as bytes; others stay as they are."""
    if array.dtype != object:
        return array
    return np.array([e.decode() if isinstance(e, bytes) else e for e in array.ravel()], dtype=object).reshape(
        array.shape
    )


def _publish(repository: Path, model: str, datatype_by_names: Mapping[tuple[str, str], str]) -> None:
    info = helper.make_tensor_value_info
    typed = [(*names, ELEMENT_BY_DATATYPE[datatype]) for names, datatype in datatype_by_names.items()]
    graph = helper.make_graph(
        [helper.make_node("Identity", [given], [answer]) for given, answer, _ in typed],
        "identity",
        [info(given, element, [None, COLUMNS]) for given, _, element in typed],
        [info(answer, element, [None, COLUMNS]) for _, answer, element in typed],
    )
    artifact = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(artifact)
    manifest = onnx_manifest(
        model,
        "1",
        COLUMNS,
        artifact=Artifact("model.onnx", "0" * 64),
        inputs=tuple(Input(given, d, (-1, COLUMNS)) for (given, _), d in datatype_by_names.items()),
        outputs=tuple(Output(answer, d, (-1, COLUMNS)) for (_, answer), d in datatype_by_names.items()),
    )
    publish(repository, artifact.SerializeToString(), manifest)
