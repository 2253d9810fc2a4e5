"""A worker's answer → Python values by output, checked against the manifest: workers are untrusted too."""

from typing import Any

import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE, FLOATS
from contracts.inference import Tensor, decode_response, split_byte_elements
from contracts.manifest import Manifest

Outputs = list[list[Any]]
"""By output of the manifest: one entry a row, a number, a string, or a list of them."""


class OutputDecoder:
    """Decodes answers of one model version."""

    __slots__ = ("_outputs",)

    def __init__(self, manifest: Manifest) -> None:
        self._outputs = manifest.outputs

    def decode(self, body: bytes, header_length: int | None, rows: int) -> tuple[Outputs, bool]:
        """Return the values by output, and whether every number is finite.

        Raises ValueError where the answer is not the protocol's, or not of the manifest's outputs, types and shapes.
        """
        tensors = {tensor.name: tensor for tensor in decode_response(body, header_length).outputs}
        outputs: Outputs = []
        finite = True
        for expected in self._outputs:
            tensor = tensors.get(expected.name)
            if tensor is None:
                raise ValueError(f"the answer lacks output {expected.name!r}")
            self._check(tensor, expected.dtype, (rows, *expected.shape[1:]))
            if tensor.datatype == BYTES:
                texts = [e.decode("utf-8", "replace") for e in split_byte_elements(tensor.data, tensor.name)]
                width = len(texts) // rows
                outputs.append(
                    texts if len(tensor.shape) == 1 else [texts[i * width : (i + 1) * width] for i in range(rows)]
                )
                continue
            array = np.frombuffer(tensor.data, dtype=DTYPE_BY_DATATYPE[tensor.datatype])
            if tensor.datatype in FLOATS and not np.isfinite(array).all():
                finite = False
            outputs.append(array.reshape(tensor.shape).tolist())
        return outputs, finite

    @staticmethod
    def _check(tensor: Tensor, datatype: str, shape: tuple[int, ...]) -> None:
        fits = len(tensor.shape) == len(shape) and all(e in (-1, d) for e, d in zip(shape, tensor.shape, strict=True))
        if tensor.datatype != datatype or not fits:
            raise ValueError(
                f"output {tensor.name!r} is {tensor.datatype} {list(tensor.shape)}, "
                f"the manifest says {datatype} {list(shape)}"
            )
