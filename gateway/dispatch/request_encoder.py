"""A batch's rows → the bytes of one inference request.

For raw inputs of fixed width the JSON part depends on the shapes and the time that is left alone. It is made once for
each of them, by the codec, and only the time is written into it after that.
"""

from typing import Final

from contracts.datatypes import BYTES
from contracts.inference import InferenceRequest, RequestedOutput, Tensor, encode_request
from gateway.model_signature import ModelSignature

HEADS_MAX: Final = 2_048
"""Shapes of a batch for which a head is kept."""

RowShapes = tuple[tuple[int, ...], ...]
"""By input: the shape of one row."""

_SENTINEL_US: Final = 987_654_321_987
"""Stands for the time in a head that is made to be kept: no other number in one has so many digits."""


class RequestEncoder:
    """Encodes requests to one model version, whole: request line, headers, JSON part, tensors."""

    __slots__ = ("_binary", "_fixed_width", "_heads", "_inputs", "_line", "_outputs")

    def __init__(self, signature: ModelSignature) -> None:
        self._inputs, self._binary = signature.inputs, signature.binary
        names = dict.fromkeys(output.source or output.name for output in signature.outputs)
        # A server without the extension is not told of it either: some refuse parameters that they do not know.
        self._outputs = tuple(RequestedOutput(name, True if signature.binary else None) for name in names)
        self._fixed_width = all(model_input.dtype != BYTES for model_input in signature.inputs)
        self._line = f"POST {signature.path}/infer HTTP/1.1".encode()
        self._heads: dict[tuple[int, RowShapes | None], tuple[bytes, bytes]] = {}

    def encode(
        self, host: bytes, tensors: list[bytes], rows: int, timeout_us: int, row_shapes: RowShapes | None = None
    ) -> list[bytes]:
        """Return the request in parts.

        host: value of the host header. tensors: by input, the raw elements of all rows. row_shapes: where they are not
        the declared ones.
        """
        if not self._binary:
            return self._json(host, tensors, rows, timeout_us, row_shapes)
        before, after = self._head(tensors, rows, row_shapes)
        timeout = b"%d" % timeout_us
        head_bytes = len(before) + len(timeout) + len(after)
        body_bytes = head_bytes + sum(map(len, tensors))
        return [
            b"%b\r\nhost: %b\r\ncontent-type: application/octet-stream\r\n"
            b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b%b"
            % (self._line, host, head_bytes, body_bytes, before, timeout, after),
            *tensors,
        ]

    def _json(
        self, host: bytes, tensors: list[bytes], rows: int, timeout_us: int, row_shapes: RowShapes | None
    ) -> list[bytes]:
        document, _ = encode_request(self._request(tensors, rows, timeout_us, row_shapes), binary=False)
        head = b"%b\r\nhost: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        return [head % (self._line, host, len(document)), document]

    def _head(self, tensors: list[bytes], rows: int, row_shapes: RowShapes | None) -> tuple[bytes, bytes]:
        kept = self._heads.get((rows, row_shapes)) if self._fixed_width else None
        if kept is not None:
            return kept
        head, _ = encode_request(self._request(tensors, rows, _SENTINEL_US, row_shapes))
        before, _, after = head.rpartition(b"%d" % _SENTINEL_US)
        if self._fixed_width and len(self._heads) < HEADS_MAX:
            self._heads[rows, row_shapes] = (before, after)
        return before, after

    def _request(
        self, tensors: list[bytes], rows: int, timeout_us: int, row_shapes: RowShapes | None
    ) -> InferenceRequest:
        shapes = row_shapes or tuple(model_input.shape[1:] for model_input in self._inputs)
        inputs = tuple(
            Tensor(model_input.name, model_input.dtype, (rows, *shape), data)
            for model_input, shape, data in zip(self._inputs, shapes, tensors, strict=True)
        )
        return InferenceRequest(inputs=inputs, outputs=self._outputs, parameters={"timeout": timeout_us})
