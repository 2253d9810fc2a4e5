"""Check a request's tensors against a manifest and turn them into rows, before they queue beside anyone else's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.datatypes import BYTES
from contracts.inference import RequestedOutput, Tensor
from contracts.manifest import Input, Manifest
from model_workers.errors import InputRefused, RequestTooLarge
from model_workers.runtimes.protocol import Arrays

Signature = tuple[tuple[int, ...], ...]
"""The shape of one row of each input, in the manifest's order. Rows of one signature can be concatenated."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One caller's rows, all inputs alike in number. `arrays` are views of the body that they came in."""

    arrays: Arrays
    count: int
    signature: Signature


class RowReader:
    """Reads the requests of one version. The checks are planned once, from its manifest."""

    def __init__(self, manifest: Manifest, rows_max: int) -> None:
        self._inputs = manifest.inputs
        self._known_inputs = frozenset(entry.name for entry in manifest.inputs)
        self._outputs = tuple(output.name for output in manifest.outputs)
        self._rows_max = rows_max

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        """Check and view the input tensors. Raises InputRefused, which names the tensor, and RequestTooLarge."""
        by_name = {tensor.name: tensor for tensor in tensors}
        if by_name.keys() != self._known_inputs:
            raise InputRefused(f"the inputs are {sorted(by_name)}; this model takes {sorted(self._known_inputs)}")
        arrays: Arrays = {}
        for entry in self._inputs:
            tensor = by_name[entry.name]
            _check(entry, tensor)
            arrays[entry.name] = _array(tensor)
        counts = {len(array) for array in arrays.values()}
        if len(counts) > 1:
            each = ", ".join(f"{name!r} has {len(array)}" for name, array in arrays.items())
            raise InputRefused(f"the inputs differ in rows: {each}")
        count = counts.pop()
        if count == 0:
            raise InputRefused("the inputs have no rows")
        if count > self._rows_max:
            raise RequestTooLarge("rows of one request", self._rows_max, count)
        return Rows(arrays, count, tuple(array.shape[1:] for array in arrays.values()))

    def outputs(self, requested: Sequence[RequestedOutput]) -> tuple[str, ...]:
        """Name the outputs to compute, in the order asked; none asked means all. Raises InputRefused."""
        if not requested:
            return self._outputs
        names = tuple(output.name for output in requested)
        for name in names:
            if name not in self._outputs:
                raise InputRefused(f"there is no output {name!r}; this model has {list(self._outputs)}")
        return names


def _check(entry: Input, tensor: Tensor) -> None:
    if tensor.datatype != entry.dtype:
        raise InputRefused(f"input {entry.name!r} is {tensor.datatype}; this model takes {entry.dtype}")
    if tensor.shape[1:] == entry.shape[1:] and tensor.shape:
        return
    if len(tensor.shape) != len(entry.shape) or any(
        found != declared for found, declared in zip(tensor.shape[1:], entry.shape[1:], strict=True) if declared != -1
    ):
        raise InputRefused(f"input {entry.name!r} has shape {list(tensor.shape)}; this model takes {list(entry.shape)}")


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array = tensor.array()
    if tensor.datatype != BYTES:
        return array
    try:
        text = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise InputRefused(f"input {tensor.name!r} holds an element that is not UTF-8") from error
    decoded = np.empty(len(text), dtype=object)
    decoded[:] = text
    return decoded.reshape(array.shape)
