"""JSON parts of binary requests and answers, remembered by what they are made of.

A caller that sends tensors as raw bytes repeats its JSON part: it says names, types and shapes, and how much time is
left. Read once with all checks, the same bytes mean the same ever after. So it is with an answer's, which its shapes
decide. Reading and writing JSON, with the objects around it, costs ten times the look-up.
"""

from typing import Final, NamedTuple

from contracts.datatypes import BYTES
from contracts.inference import (
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    encode_response,
)

PARTS_MAX: Final = 1_024
"""JSON parts that are remembered each way. When there are as many, all are forgotten; those that repeat come back."""

PART_BYTES_MAX: Final = 4_096
"""A longer one is read each time."""

_CHECKED_EACH: Final = frozenset({"BOOL", BYTES})
"""Datatypes of which not every byte is an element: the raw part is checked, too."""


class _Place(NamedTuple):
    """Where an input's raw elements lie in the body."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Known(NamedTuple):
    body_bytes: int
    places: tuple[_Place, ...]
    outputs: tuple[RequestedOutput, ...]
    rest: InferenceRequest


class WireMemory:
    """Decodes requests and encodes answers just as `contracts.inference` does, and remembers."""

    def __init__(self) -> None:
        self._requests: dict[bytes, _Known] = {}
        self._answers: dict[tuple[object, ...], bytes] = {}

    def decode(self, body: bytes, header_length: int | None) -> InferenceRequest:
        """Decode a request body. Raises InferenceFormatError."""
        if header_length is None or header_length > PART_BYTES_MAX:
            return decode_request(body, header_length)
        part = body[:header_length]
        known = self._requests.get(part)
        if known is None or known.body_bytes != len(body) or len(part) != header_length:
            request = decode_request(body, header_length)
            self._remember(part, len(body), request)
            return request
        raw, rest = memoryview(body), known.rest
        return InferenceRequest(
            inputs=tuple([Tensor(name, kind, shape, raw[start:end]) for name, kind, shape, start, end in known.places]),
            outputs=known.outputs,
            id=rest.id,
            parameters=rest.parameters,
            binary_output=rest.binary_output,
        )

    def encode(self, response: InferenceResponse, binary: list[str]) -> tuple[bytes, list[bytes | memoryview]]:
        """Encode a response with the outputs named in `binary` as raw bytes."""
        outputs = response.outputs
        if len(binary) != len(outputs) or response.id or response.parameters:
            return encode_response(response, binary)
        described = [(tensor.name, tensor.datatype, tensor.shape, len(tensor.data)) for tensor in outputs]
        key = (response.model_name, response.model_version, *described)
        part = self._answers.get(key)
        if part is None:
            part, _ = encode_response(response, binary)
            if len(self._answers) >= PARTS_MAX:
                self._answers.clear()
            self._answers[key] = part
        return part, [tensor.data for tensor in outputs]

    def _remember(self, part: bytes, body_bytes: int, request: InferenceRequest) -> None:
        places = []
        start = len(part)
        for tensor in request.inputs:
            if tensor.datatype in _CHECKED_EACH or not isinstance(tensor.data, memoryview):
                return
            places.append(_Place(tensor.name, tensor.datatype, tensor.shape, start, start + len(tensor.data)))
            start += len(tensor.data)
        if start != body_bytes:
            return
        if len(self._requests) >= PARTS_MAX:
            self._requests.clear()
        without_data = InferenceRequest(
            inputs=(),
            outputs=request.outputs,
            id=request.id,
            parameters=request.parameters,
            binary_output=request.binary_output,
        )
        self._requests[part] = _Known(body_bytes, tuple(places), request.outputs, without_data)
