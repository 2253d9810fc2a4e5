"""`ModelInferRequest` to an inference request, and a response to `ModelInferResponse`.

The checks are those of JSON bodies: the message is told as the document that a body would hold, and read by the same
code, so that names, shapes, sizes, parameters and error messages are alike at both edges.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from contracts.inference import (
    DIMENSIONS_MAX,
    PARAMETERS_MAX,
    TENSORS_MAX,
    InferenceFormatError,
    InferenceRequest,
    InferenceResponse,
    request_of,
)
from model_workers.grpc_edge.contents import FIELD_BY_DATATYPE, fill_contents, raw_elements


def read_request(message: Any, remaining_us: int | None) -> InferenceRequest:
    """Check and read a `ModelInferRequest`.

    remaining_us: what is left of the call's own deadline, which counts where it is less than `parameters.timeout`.
    Raises InferenceFormatError, which names the tensor at fault.
    """
    # One more than is ever taken, so that what is too much is refused by the one check of it, and not copied before.
    inputs = message.inputs[: TENSORS_MAX + 1]
    document = {
        "inputs": [_listed_input(entry) for entry in inputs],
        "outputs": [
            {"name": entry.name, "parameters": _parameters(entry.parameters)}
            for entry in message.outputs[: TENSORS_MAX + 1]
        ],
        "id": message.id,
        "parameters": _parameters(message.parameters),
    }
    request = request_of(document, _contents(message, inputs))
    if remaining_us is None or (request.timeout_us is not None and request.timeout_us <= remaining_us):
        return request
    shortened = max(1, remaining_us)  # 0 would mean that there is no limit
    return replace(request, parameters={**(request.parameters or {}), "timeout": shortened})


def write_response(message: Any, response: InferenceResponse, *, raw: bool) -> None:
    """Write a response to an empty `ModelInferResponse`: its outputs raw, or in typed contents where all have such."""
    message.model_name, message.model_version, message.id = response.model_name, response.model_version, response.id
    # The specification allows no mixture, and FP16 has no typed field.
    raw = raw or any(output.datatype not in FIELD_BY_DATATYPE for output in response.outputs)
    for output in response.outputs:
        described = message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if raw:
            message.raw_output_contents.append(bytes(output.data))
        else:
            fill_contents(described.contents, output)


def _listed_input(entry: Any) -> dict[str, Any]:
    return {
        "name": entry.name,
        "datatype": entry.datatype,
        "shape": entry.shape[: DIMENSIONS_MAX + 1],
        "parameters": _parameters(entry.parameters),
    }


def _parameters(parameters: Any) -> dict[str, Any] | None:
    if not parameters:
        return None
    return {key: _value(parameters[key]) for key in islice(parameters, PARAMETERS_MAX + 1)}


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _contents(message: Any, inputs: Sequence[Any]) -> Sequence[bytes]:
    if not message.raw_input_contents:
        return [raw_elements(entry.name, entry.datatype, entry.contents) for entry in inputs]
    for entry in inputs:
        if entry.HasField("contents") and entry.contents.ListFields():
            raise InferenceFormatError(f"input {entry.name[:64]!r} has `contents` beside `raw_input_contents`")
    return message.raw_input_contents  # type: ignore[no-any-return] # a repeated field of bytes
