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
from model_workers.version_files import read_artifact

THREADS_MAX = 64
PROBLEM_LENGTH_MAX: Final = 900
"""Of what ONNX Runtime says of an artifact: it quotes names out of it."""

LOG_SEVERITY_FATAL: Final = 4
"""What it logs as an error it also raises, so that poison rows would only fill the log. Below that, each execution of
a converted tree model warns that its label output is not of the declared shape."""

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


Provider = str | tuple[str, dict[str, str | int | float]]


class OnnxParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`threads`: within one execution, worth it for far larger models than trees.

    `providers`: most preferred first, each a name or a name with its options.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=THREADS_MAX)] = 1
    providers: Annotated[tuple[Provider, ...], msgspec.Meta(min_length=1)] = ("CPUExecutionProvider",)


class OnnxModel:
    """An ONNX Runtime session, safe from several threads.

    Its releases for inference have no partial execution: an execution computes every output of the graph, asked or not.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        # It makes new ones for each execution that comes without: 0.8 µs of the 7.5 of a lone row of a tree model.
        self._options = onnxruntime.RunOptions()

    def infer(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run the session."""
        return dict(zip(outputs, self._session.run(outputs, inputs, self._options), strict=True))

    def close(self) -> None:
        """Drop the session."""
        del self._session


def load(directory: Path, manifest: Manifest) -> OnnxModel:
    """Open `manifest`'s artifact and check that inputs and outputs are the declared ones.

    Raises ModelMismatch, also where the artifact is no model.
    """
    # Its Linux builds report usage to their maker unless told not to. A model server speaks to its callers only.
    onnxruntime.disable_telemetry_events()
    parameters = read_parameters(manifest, OnnxParameters)
    asked = {provider if isinstance(provider, str) else provider[0] for provider in parameters.providers}
    available = onnxruntime.get_available_providers()
    missing = asked - set(available)
    if missing:
        raise _mismatch(manifest, f"execution provider {min(missing)!r} is not installed here; known: {available}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = parameters.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_SEVERITY_FATAL
    session = _session(read_artifact(directory, manifest), options, parameters, manifest)
    _check_inputs(manifest, session.get_inputs())
    _check_outputs(manifest, {node.name: node.type for node in session.get_outputs()})
    return OnnxModel(session)


def _session(artifact: bytes, options: Any, parameters: OnnxParameters, manifest: Manifest) -> Any:
    try:
        # The fallback would print, and serve on the CPU what was asked for elsewhere.
        return onnxruntime.InferenceSession(artifact, options, providers=list(parameters.providers), enable_fallback=0)
    except Exception as error:  # its own errors have no class in common, and damaged text raises UnicodeDecodeError
        problem = " ".join(str(error).split())[:PROBLEM_LENGTH_MAX]
        raise _mismatch(
            manifest, f"ONNX Runtime cannot open {manifest.artifact.file}: {type(error).__name__}: {problem}"
        ) from error


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
