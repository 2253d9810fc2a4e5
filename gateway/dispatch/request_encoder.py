"""A batch's rows → the bytes of one inference request.

For inputs of fixed width the JSON part depends on the number of rows and the time that is left alone. It is made once
for each number of rows, by the codec, and only the time is written into it after that.
"""

from typing import Final

from contracts.datatypes import BYTES
from contracts.inference import InferenceRequest, RequestedOutput, Tensor, encode_request
from contracts.manifest import Manifest

HEADS_MAX: Final = 2_048
"""Numbers of rows for which a head is kept."""

_SENTINEL_US: Final = 987_654_321_987
"""Stands for the time in a head that is made to be kept: no other number in one has so many digits."""


class RequestEncoder:
    """Encodes requests to one model version, whole: request line, headers, JSON part, tensors."""

    __slots__ = ("_fixed_width", "_heads", "_inputs", "_line", "_outputs")

    def __init__(self, manifest: Manifest) -> None:
        self._inputs = manifest.inputs
        self._outputs = tuple(RequestedOutput(output.name, True) for output in manifest.outputs)
        self._fixed_width = all(model_input.dtype != BYTES for model_input in manifest.inputs)
        self._line = f"POST /v2/models/{manifest.model}/versions/{manifest.version}/infer HTTP/1.1".encode()
        self._heads: dict[int, tuple[bytes, bytes]] = {}

    def encode(self, host: bytes, tensors: list[bytes], rows: int, timeout_us: int) -> list[bytes]:
        """Return the request in parts.

        host: value of the host header. tensors: by input, the raw elements of all rows.
        """
        before, after = self._head(tensors, rows)
        timeout = b"%d" % timeout_us
        head_bytes = len(before) + len(timeout) + len(after)
        body_bytes = head_bytes + sum(map(len, tensors))
        return [
            b"%b\r\nhost: %b\r\ncontent-type: application/octet-stream\r\n"
            b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b%b"
            % (self._line, host, head_bytes, body_bytes, before, timeout, after),
            *tensors,
        ]

    def _head(self, tensors: list[bytes], rows: int) -> tuple[bytes, bytes]:
        kept = self._heads.get(rows) if self._fixed_width else None
        if kept is not None:
            return kept
        inputs = tuple(
            Tensor(model_input.name, model_input.dtype, (rows, *model_input.shape[1:]), data)
            for model_input, data in zip(self._inputs, tensors, strict=True)
        )
        request = InferenceRequest(inputs=inputs, outputs=self._outputs, parameters={"timeout": _SENTINEL_US})
        head, _ = encode_request(request)
        before, _, after = head.rpartition(b"%d" % _SENTINEL_US)
        if self._fixed_width and len(self._heads) < HEADS_MAX:
            self._heads[rows] = (before, after)
        return before, after
