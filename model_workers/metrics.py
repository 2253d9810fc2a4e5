"""What a worker counts, for Prometheus. Children are made once a version: no label is looked up on the hot path."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry

from model_workers.version_statistics import VersionStatistics
from telemetry.metrics import Counts, Histogram

DURATION_BUCKETS_S: Final = (
    *(0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)

_LABELS: Final = ("model", "version")


class WorkerMetrics:
    """The families of one worker, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._statistics: dict[tuple[str, str], VersionStatistics] = {}
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
        self.loads = Counts(
            "sekisho_worker_loads", "Loads of a version, by outcome: loaded or failed", ("model", "outcome"), registry
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

    def statistics(self, model: str, version: str) -> VersionStatistics:
        """Return the counters of a version; they outlast its being loaded anew."""
        return self._statistics.setdefault((model, version), VersionStatistics())

    def failures_of(self, model: str, version: str) -> int:
        """Tell how many requests to a version were answered with an error."""
        return int(sum(n for labels, n in self.failures.values.items() if labels[:2] == (model, version)))

    def note_load(self, model: str, *, loaded: bool) -> None:
        """Count a load."""
        self.loads.add(model, "loaded" if loaded else "failed")

    def forget_loads_except(self, models: Collection[str]) -> None:
        """Drop the loads of models that are neither published nor served, so that no series grow with what once was."""
        for model in {model for model, _ in self.loads.values} - {*models}:
            self.loads.forget(model)

    def forget(self, model: str, version: str) -> None:
        """Drop the series of a version that has left."""
        for family in (
            *(self.requests, self.rows, self.executions, self.failures, self.waiting_rows, self.ready),
            *(self.queue, self.compute),
        ):
            family.forget(model, version)
        self._statistics.pop((model, version), None)


class VersionMetrics:
    """The children of one version. Hears of executions from its batcher (`batcher.BatchObserver`).

    clock_us: a monotonic clock in µs. wall_clock_ms: time since the epoch in ms.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        model: str,
        version: str,
        *,
        clock_us: Callable[[], int],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._labels = (model, version)
        self._metrics, self.clock_us, self._wall_clock_ms = metrics, clock_us, wall_clock_ms
        self._statistics = metrics.statistics(model, version)
        self._requests, self._rows, self._executions = (
            metrics.requests.values,
            metrics.rows.values,
            metrics.executions.values,
        )
        self._waiting_rows = metrics.waiting_rows
        self._queue, self._compute = metrics.queue.child(*self._labels), metrics.compute.child(*self._labels)
        for values in (self._requests, self._rows, self._executions):
            values.setdefault(self._labels, 0.0)  # a version that is loaded anew counts on

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
        self._statistics.note_execution(rows, compute_us, self._wall_clock_ms())
        for series in (self._queue, self._compute):
            if series.overdue:
                series.fold()

    def answered(self, since_us: int) -> None:
        """Count a request whose outputs are there, and which came at this time of the clock."""
        self._statistics.note_answer(self.clock_us() - since_us)

    def statistics(self) -> dict[str, Any]:
        """Describe what the version did as `$model_stat` of Triton's statistics extension, times in ns.

        Source: Triton Inference Server, `extension_statistics.md`.
        """
        totals, failures = self._statistics, self._metrics.failures_of(*self._labels)
        executions = int(self._executions[self._labels])
        _, queue_s = self._queue.cumulative()
        _, compute_s = self._compute.cumulative()
        unmeasured = _duration(0, 0)
        return {
            "name": self._labels[0],
            "version": self._labels[1],
            "last_inference": totals.last_inference_ms,
            "inference_count": int(self._rows[self._labels]),
            "execution_count": executions,
            "inference_stats": {
                "success": _duration(totals.answered, totals.answered_us * 1_000),
                "fail": _duration(failures, 0),
                "queue": _duration(int(self._requests[self._labels]), round(queue_s * 1e9)),
                "compute_input": unmeasured,
                "compute_infer": _duration(executions, round(compute_s * 1e9)),
                "compute_output": unmeasured,
                "cache_hit": unmeasured,
                "cache_miss": unmeasured,
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": unmeasured,
                    "compute_infer": _duration(count, took_us * 1_000),
                    "compute_output": unmeasured,
                }
                for size, (count, took_us) in sorted(totals.batches.items())
            ],
        }

    def note_waiting_rows(self, rows: int) -> None:
        """Set the gauge, when it is scraped."""
        self._waiting_rows.set(*self._labels, value=rows)


def _duration(count: int, took_ns: int) -> dict[str, int]:
    return {"count": count, "ns": took_ns}
