"""Run rows through a fresh model: the first caller does not pay, and what an execution costs is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE, FLOATS
from contracts.manifest import Input, Manifest
from model_workers.errors import ExecutionFailed
from model_workers.model_version import ModelVersion
from model_workers.runtimes.protocol import Arrays
from model_workers.warm_up_requests import WarmUpRequest, tiled

WARM_ROUNDS: Final = 8
"""Executions of each size: the first ones allocate arenas and pick kernels."""

WARM_ROWS_MAX: Final = 1_024
WARM_ELEMENTS_MAX: Final = 4_000_000
"""Of one generated input: a batch of wide rows is warmed with fewer of them."""


@dataclass(frozen=True, slots=True)
class ExecutionCost:
    """What an execution takes: `one_row_us` for a single row, `batch_us` for `batch_rows` of them, a line between."""

    one_row_us: int
    batch_us: int
    batch_rows: int

    def rows_within(self, budget_us: int) -> int:
        """Say how many rows an execution may have, to be expected within the budget; at most `batch_rows`."""
        if self.one_row_us > budget_us:
            return 0
        if self.batch_us <= budget_us:
            return self.batch_rows
        row_us = (self.batch_us - self.one_row_us) / (self.batch_rows - 1)
        return 1 + int((budget_us - self.one_row_us) / row_us)


def warm_up(model: ModelVersion, clock_us: Callable[[], int], recorded: Sequence[WarmUpRequest] = ()) -> ExecutionCost:
    """Run each recorded request, then one row and a batch of them some rounds each; with none, of generated rows.

    The least time of each counts: more is what the machine was busy with beside. Raises ExecutionFailed.
    """
    for number, request in enumerate(recorded, 1):
        _run_recorded(model, request, f"warm-up request {number} of {len(recorded)}")
    batch_rows = _batch_rows(model.manifest, recorded)
    one_row_us = _least_us(model, _inputs(model.manifest, recorded, 1), clock_us)
    batch = _inputs(model.manifest, recorded, batch_rows)
    batch_us = _least_us(model, batch, clock_us) if batch_rows > 1 else one_row_us
    return ExecutionCost(one_row_us, batch_us, batch_rows)


def _run_recorded(model: ModelVersion, request: WarmUpRequest, name: str) -> None:
    try:
        model.execute({key: np.ascontiguousarray(array) for key, array in request.rows.arrays.items()}, request.outputs)
    except ExecutionFailed as failure:
        reason = f"{name}: {failure.reason}"
        raise ExecutionFailed(failure.model, failure.version, request.rows.count, reason) from failure


def _least_us(model: ModelVersion, inputs: Arrays, clock_us: Callable[[], int]) -> int:
    outputs = [output.name for output in model.manifest.outputs]
    times_us = []
    for _ in range(WARM_ROUNDS):
        began_us = clock_us()
        model.execute(inputs, outputs)
        times_us.append(clock_us() - began_us)
    return min(times_us)


def _inputs(manifest: Manifest, recorded: Sequence[WarmUpRequest], rows: int) -> Arrays:
    if recorded:
        return tiled(recorded, rows)
    return {entry.name: _generated(entry, rows) for entry in manifest.inputs}


def _batch_rows(manifest: Manifest, recorded: Sequence[WarmUpRequest]) -> int:
    shapes = recorded[0].rows.signature if recorded else [_row_shape(entry) for entry in manifest.inputs]
    widest = max(1, *(prod(shape) for shape in shapes))
    return max(1, min(manifest.batch_rows_max, WARM_ROWS_MAX, WARM_ELEMENTS_MAX // widest))


def _row_shape(entry: Input) -> tuple[int, ...]:
    return tuple(1 if d == -1 else d for d in entry.shape[1:])


def _generated(entry: Input, rows: int) -> np.ndarray[Any, Any]:
    shape = (rows, *_row_shape(entry))
    if entry.dtype == BYTES:
        return np.full(shape, "0", dtype=object)  # a word that also reads as a number
    if entry.dtype in FLOATS:
        # Spread out, so that rows take different ways through a tree, as real ones do.
        return np.random.default_rng(0).standard_normal(shape).astype(DTYPE_BY_DATATYPE[entry.dtype])
    return np.zeros(shape, dtype=DTYPE_BY_DATATYPE[entry.dtype])
