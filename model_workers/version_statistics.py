"""What one version did since it was first loaded, as Triton's statistics extension counts it.

Counted on the event loop beside the Prometheus series, which hold the other half of the answer.
"""

from typing import Final

BATCH_SIZES_MAX: Final = 32
"""Batch sizes that are told apart: powers of two, of which 32 are more rows than any execution has."""


class VersionStatistics:
    """Counters of one version, kept when it is loaded anew. Times are in µs.

    batches: by batch size (the least power of two that holds the rows), executions and what they took together.
    """

    __slots__ = ("answered", "answered_us", "batches", "last_inference_ms")

    def __init__(self) -> None:
        self.answered = self.answered_us = self.last_inference_ms = 0
        self.batches: dict[int, tuple[int, int]] = {}

    def note_answer(self, took_us: int) -> None:
        """Count a request that got its outputs, so long after its rows were read."""
        self.answered += 1
        self.answered_us += took_us

    def note_execution(self, rows: int, compute_us: int, now_ms: int) -> None:
        """Count an execution that ended now, in ms since the epoch."""
        self.last_inference_ms = now_ms
        size = 1 << min((rows - 1).bit_length(), BATCH_SIZES_MAX - 1)
        executions, took_us = self.batches.get(size, (0, 0))
        self.batches[size] = executions + 1, took_us + compute_us
