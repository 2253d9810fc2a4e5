"""One loaded version: its runtime behind the inputs and outputs that its manifest declares."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from contracts.manifest import Manifest, Output
from model_workers.errors import ExecutionFailed
from model_workers.runtimes.protocol import Arrays, Runtime

WORDS: Final = "OSU"
"""The numpy kinds that a BYTES output may have."""


class ModelVersion:
    """Runs rows and answers with the manifest's outputs: narrowed, cast and checked. Safe from several threads."""

    def __init__(self, manifest: Manifest, runtime: Runtime) -> None:
        self.manifest = manifest
        self._runtime = runtime
        self._outputs = {output.name: output for output in manifest.outputs}

    def execute(self, inputs: Arrays, outputs: Sequence[str]) -> Arrays:
        """Run rows of any number, at most `batch_rows_max` at a time, and return `outputs` by the manifest's names.

        Raises ExecutionFailed where the model raises, or answers with other rows, columns or kinds than declared.
        """
        rows = len(next(iter(inputs.values())))
        at_most = self.manifest.batch_rows_max
        if rows <= at_most:
            return self._execute_once(inputs, outputs, rows)
        parts = [
            self._execute_once({n: a[at : at + at_most] for n, a in inputs.items()}, outputs, min(at_most, rows - at))
            for at in range(0, rows, at_most)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def close(self) -> None:
        """Give the runtime back."""
        self._runtime.close()

    def _execute_once(self, inputs: Arrays, outputs: Sequence[str], rows: int) -> Arrays:
        declared = [self._outputs[name] for name in outputs]
        sources = list(dict.fromkeys(output.source or output.name for output in declared))
        try:
            raw = self._runtime.infer(inputs, sources)
        except Exception as error:  # a runtime may raise anything
            raise self._failed(rows, f"{type(error).__name__}: {str(error)[:500]}") from error
        return {output.name: self._selected(output, raw, rows) for output in declared}

    def _selected(self, output: Output, raw: Arrays, rows: int) -> np.ndarray[Any, Any]:
        array = raw.get(output.source or output.name)
        if not isinstance(array, np.ndarray) or array.ndim == 0 or len(array) != rows:
            # The worst failure there is would be rows that belong to another caller.
            raise self._failed(rows, f"output {output.name!r} has {_described(array)} for {rows} rows")
        if output.column is not None:
            if array.ndim != 2 or output.column >= array.shape[1]:
                raise self._failed(rows, f"output {output.name!r} takes column {output.column} of {_described(array)}")
            array = array[:, output.column]
        if array.ndim != len(output.shape) or any(
            found != declared
            for found, declared in zip(array.shape[1:], output.shape[1:], strict=True)
            if declared != -1
        ):
            raise self._failed(
                rows, f"output {output.name!r} is declared {list(output.shape)}, it has {_described(array)}"
            )
        if output.dtype == BYTES:
            if array.dtype.kind not in WORDS:
                raise self._failed(rows, f"output {output.name!r} is {array.dtype} where words are declared")
            return array
        try:
            # Of the same kind: a probability that is declared a whole number must not become 0.
            return array.astype(DTYPE_BY_DATATYPE[output.dtype], casting="same_kind", copy=False)
        except (TypeError, ValueError) as error:
            raise self._failed(rows, f"output {output.name!r} does not cast to {output.dtype}: {error}") from error

    def _failed(self, rows: int, reason: str) -> ExecutionFailed:
        return ExecutionFailed(self.manifest.model, self.manifest.version, rows, reason)


def _described(array: object) -> str:
    return f"shape {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
