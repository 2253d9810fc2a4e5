"""What a worker counts, for Prometheus. Children are made once a version: no label is looked up on the hot path."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry

from telemetry.metrics import Counts, Histogram

DURATION_BUCKETS_S: Final = (
    *(0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)

_LABELS: Final = ("model", "version")


class WorkerMetrics:
    """The families of one worker, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counts(
            "sekisho_worker_requests", "Inference requests whose rows reached the model", _LABELS, registry
        )
        self.rows = Counts("sekisho_worker_rows", "Rows that reached the model", _LABELS, registry)
        self.executions = Counts(
            "sekisho_worker_executions", "Executions of the model, each of one or more requests", _LABELS, registry
        )
        self.failures = Counts(
            "sekisho_worker_failures", "Requests answered with an error, by reason; no model where it is unknown",
            (*_LABELS, "reason"), registry,
        )  # fmt: skip
        self.waiting_rows = Counts(
            "sekisho_worker_waiting_rows", "Rows that wait for the model", _LABELS, registry, gauge=True
        )
        self.ready = Counts(
            "sekisho_worker_ready", "1 where the version answers, 0 where it does not", _LABELS, registry, gauge=True
        )
        self.queue = Histogram(
            "sekisho_worker_queue_seconds",
            "How long a request's rows waited for the model",
            _LABELS,
            DURATION_BUCKETS_S,
            registry,
        )
        self.compute = Histogram(
            "sekisho_worker_compute_seconds",
            "How long one execution of the model took",
            _LABELS,
            DURATION_BUCKETS_S,
            registry,
        )


class VersionMetrics:
    """The children of one version. Hears of executions from its batcher (`batcher.BatchObserver`)."""

    def __init__(self, metrics: WorkerMetrics, model: str, version: str) -> None:
        self._labels = (model, version)
        self._requests, self._rows, self._executions = (
            metrics.requests.values,
            metrics.rows.values,
            metrics.executions.values,
        )
        self._waiting_rows = metrics.waiting_rows
        self._queue, self._compute = metrics.queue.child(*self._labels), metrics.compute.child(*self._labels)
        for values in (self._requests, self._rows, self._executions):
            values[self._labels] = 0.0

    def dequeued(self, queue_us: Sequence[int]) -> None:
        """Count the calls that leave the queue together, each after so long."""
        self._requests[self._labels] += len(queue_us)
        for waited_us in queue_us:
            self._queue.observe(waited_us / 1e6)

    def executed(self, rows: int, compute_us: int) -> None:
        """Count one execution."""
        self._rows[self._labels] += rows
        self._executions[self._labels] += 1
        self._compute.observe(compute_us / 1e6)
        for series in (self._queue, self._compute):
            if series.overdue:
                series.fold()

    def note_waiting_rows(self, rows: int) -> None:
        """Set the gauge, when it is scraped."""
        self._waiting_rows.set(*self._labels, value=rows)
