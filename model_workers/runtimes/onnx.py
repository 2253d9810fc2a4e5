"""ONNX models on ONNX Runtime."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import onnxruntime

from contracts.manifest import Input, Manifest, Output
from model_workers.errors import ModelMismatch
from model_workers.runtimes.parameters import read_parameters
from model_workers.runtimes.protocol import Arrays

THREADS_MAX = 64
LOG_SEVERITY_ERROR: Final = 3
"""Below it, each execution of a converted tree model warns that its label output is not of the declared shape."""

DATATYPE_BY_ONNX_TYPE: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`threads`: within one execution, worth it for far larger models than trees. `providers`: most preferred first."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=THREADS_MAX)] = 1
    providers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("CPUExecutionProvider",)


class OnnxModel:
    """An ONNX Runtime session. `infer` computes the asked outputs only, and is safe from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the session."""
        return dict(zip(outputs, self._session.run(outputs, inputs), strict=True))

    def close(self) -> None:
        """Drop the session."""
        del self._session


def load(directory: Path, manifest: Manifest) -> OnnxModel:
    """Open `manifest`'s artifact and check that inputs and outputs are the declared ones.

    Raises ModelMismatch, or what ONNX Runtime raises where the artifact is no model.
    """
    # Its Linux builds report usage to their maker unless told not to. A model server speaks to its callers only.
    onnxruntime.disable_telemetry_events()
    parameters = read_parameters(manifest, OnnxParameters)
    missing = set(parameters.providers) - set(onnxruntime.get_available_providers())
    if missing:
        raise _mismatch(manifest, f"execution provider {min(missing)!r} is not installed here")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = parameters.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_SEVERITY_ERROR
    artifact = (directory / manifest.artifact.file).read_bytes()
    session = onnxruntime.InferenceSession(artifact, options, providers=list(parameters.providers))
    _check_inputs(manifest, session.get_inputs())
    _check_outputs(manifest, {node.name: node.type for node in session.get_outputs()})
    return OnnxModel(session)


def _check_inputs(manifest: Manifest, nodes: Iterable[Any]) -> None:
    declared = {entry.name: entry for entry in manifest.inputs}
    found = {node.name: node for node in nodes}
    if declared.keys() != found.keys():
        raise _mismatch(manifest, f"the manifest declares inputs {sorted(declared)}, the model has {sorted(found)}")
    for name, entry in declared.items():
        _check_input(manifest, entry, found[name])


def _check_input(manifest: Manifest, entry: Input, node: Any) -> None:
    datatype = DATATYPE_BY_ONNX_TYPE.get(node.type)
    if datatype != entry.dtype:
        raise _mismatch(
            manifest, f"input {entry.name!r} is {entry.dtype} in the manifest, {datatype or node.type} in the model"
        )
    # In a session a dimension is a number, or a name or None where it is free.
    dimensions = [d if isinstance(d, int) and d > 0 else -1 for d in node.shape]
    if len(dimensions) != len(entry.shape) or any(
        d not in (-1, declared) for d, declared in zip(dimensions[1:], entry.shape[1:], strict=True)
    ):
        raise _mismatch(
            manifest, f"input {entry.name!r} has shape {list(entry.shape)} in the manifest, {dimensions} in the model"
        )
    if dimensions[0] != -1 and (dimensions[0], manifest.batch_rows_max) != (1, 1):
        raise _mismatch(
            manifest,
            f"input {entry.name!r} takes exactly {dimensions[0]} rows an execution; export the model with a free first "
            "dimension (or with 1 row, and batch_rows_max 1 in the manifest)",
        )


def _check_outputs(manifest: Manifest, type_by_name: dict[str, str]) -> None:
    for output in manifest.outputs:
        _check_output(manifest, output, type_by_name)


def _check_output(manifest: Manifest, output: Output, type_by_name: dict[str, str]) -> None:
    source = output.source or output.name
    if source not in type_by_name:
        raise _mismatch(manifest, f"output {output.name!r} comes from {source!r}, the model has {sorted(type_by_name)}")
    datatype = DATATYPE_BY_ONNX_TYPE.get(type_by_name[source])
    if datatype is None:
        raise _mismatch(
            manifest,
            f"output {source!r} is no tensor but {type_by_name[source]}; export the classifier with zipmap=False",
        )
    if datatype != output.dtype:
        raise _mismatch(manifest, f"output {output.name!r} is {output.dtype} in the manifest, {datatype} in the model")


def _mismatch(manifest: Manifest, problem: str) -> ModelMismatch:
    return ModelMismatch(manifest.model, manifest.version, problem)
