"""The gateway's metrics.

Everything on the request path is an append or a dictionary entry; the rest is read when scraped.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.admission import Admission
from gateway.feature_rows import FeatureAssembler
from gateway.prediction_log.log_writer import LogWriter
from gateway.served_models import ServedModel
from telemetry.metrics import Counts, Histogram

DURATION_BUCKETS_S: Final = (
    0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03,
    0.04, 0.05, 0.065, 0.08, 0.1, 0.2, 0.5, 1.0, 2.0,
)  # fmt: skip

STAGES: Final = ("features", "queue", "infer")
Observe = Callable[[float], None]


class GatewayMetrics:
    """What is counted while requests are answered. Labels come from routes and configuration, never from input."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Time from receipt to answer",
            ("http_request_method", "http_route", "http_response_status_code"),
            DURATION_BUCKETS_S,
            registry,
        )
        self.stages = Histogram(
            "sekisho_stage_duration_seconds",
            "Time of a predict request by stage: features (parsing and assignment included), queue, infer",
            ("model", "stage"),
            DURATION_BUCKETS_S,
            registry,
        )
        self._predictions = Counts(
            "sekisho_predictions",
            "Scored instances by the version and variant that served",
            ("model", "version", "variant"),
            registry,
        )
        self._degraded = Counts("sekisho_degraded", "Answers that took a fallback", ("model", "fallback"), registry)
        self.errors = Counts("sekisho_errors", "Refused and failed requests by error code", ("code",), registry)
        self._observe_stages: dict[str, tuple[Observe, Observe, Observe]] = {}

    def answered(
        self,
        model: str,
        served: tuple[str, str],
        rows: int,
        degraded: Sequence[str],
        stages_us: tuple[int, int, int],
    ) -> None:
        """Count one answer. served: version and variant (empty: none). stages_us: as STAGES."""
        observe = self._observe_stages.get(model)
        if observe is None:
            features, queue, infer = (self.stages.child(model, stage).observe for stage in STAGES)
            observe = self._observe_stages[model] = (features, queue, infer)
        observe[0](stages_us[0] * 1e-6)
        observe[1](stages_us[1] * 1e-6)
        observe[2](stages_us[2] * 1e-6)
        self._predictions.add(model, *served, amount=rows)
        if degraded:
            for fallback in degraded:
                self._degraded.add(model, fallback)

    def fold_overdue(self) -> None:
        """Fold observations that have piled up since the last scrape."""
        self.requests.fold_overdue()
        self.stages.fold_overdue()


class StateCollector:
    """What is read from the gateway's parts at the moment of a scrape."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        admission: Admission,
        features: FeatureAssembler,
        log: LogWriter,
    ) -> None:
        self._models, self._admission, self._features, self._log = models, admission, features, log

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield _gauge("sekisho_requests_in_flight", "Predict requests in flight", self._admission.in_flight)
        shed = CounterMetricFamily("sekisho_shed", "Requests shed for want of room", labels=["priority"])
        for priority, count in self._admission.shed.items():
            shed.add_metric([priority.value], count)
        yield shed
        counts = self._log.counts()
        yield CounterMetricFamily("sekisho_log_rows_offered", "Rows offered to the log", value=counts.offered)
        yield CounterMetricFamily("sekisho_log_rows_written", "Rows written to the log", value=counts.written)
        dropped = CounterMetricFamily("sekisho_log_rows_dropped", "Rows that the log lost", labels=["reason"])
        for reason in ("rows_full", "bytes_full", "disk", "unwritable"):
            dropped.add_metric([reason], counts.dropped.get(reason, 0))
        yield dropped
        yield _gauge("sekisho_log_rows_pending", "Rows that wait for the log's writer", counts.pending)
        yield CounterMetricFamily(
            "sekisho_feature_reads_failed",
            "Requests whose features could not be read",
            value=self._features.reads_failed,
        )
        faults = CounterMetricFamily(
            "sekisho_feature_faults", "Stored rows that could not be used", labels=["view", "fault"]
        )
        for labels, count in list(self._features.faults.items()):
            faults.add_metric(labels, count)
        yield faults
        yield from self._workers()
        yield from self._splits()

    def _workers(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily(
            "sekisho_worker_connections", "Open connections", labels=["model", "version", "worker"]
        )
        outstanding = GaugeMetricFamily(
            "sekisho_worker_outstanding_rows", "Rows sent, unanswered", labels=["model", "version", "worker"]
        )
        waiting = GaugeMetricFamily(
            "sekisho_dispatch_rows_waiting", "Rows that wait for a worker", labels=["model", "version"]
        )
        batches = CounterMetricFamily(
            "sekisho_dispatch_batches", "Batches sent to workers", labels=["model", "version"]
        )
        rows = CounterMetricFamily("sekisho_dispatch_rows", "Rows sent to workers", labels=["model", "version"])
        ready = GaugeMetricFamily(
            "sekisho_version_ready", "Whether the version can answer", labels=["model", "version"]
        )
        for model in self._models.values():
            for served in model.versions.values():
                labels = [model.name, served.version]
                ready.add_metric(labels, served.ready)
                for replica in served.pool.replicas:
                    connections.add_metric([*labels, replica.url], len(replica.connections))
                    outstanding.add_metric([*labels, replica.url], replica.outstanding_rows)
                if served.planned is not None:
                    waiting.add_metric(labels, served.planned.dispatcher.rows_waiting)
                    batches.add_metric(labels, served.planned.dispatcher.batches_sent)
                    rows.add_metric(labels, served.planned.dispatcher.rows_sent)
        return (connections, outstanding, waiting, batches, rows, ready)

    def _splits(self) -> Iterable[Metric]:
        weight = GaugeMetricFamily(
            "sekisho_variant_weight",
            "Configured share of the enrolled, 0 to 1",
            labels=["model", "experiment", "variant"],
        )
        for model in self._models.values():
            for experiment in model.experiments:
                for variant in experiment.variants:
                    weight.add_metric([model.name, experiment.name, variant.name], variant.bp / 10_000)
        yield weight


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)
