"""The gateway's metrics.

Everything on the request path is an append or a dictionary entry; the rest is read when scraped.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.admission import Admission
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
        self.key_requests = Counts(
            "sekisho_key_requests", "Requests of each API key by what became of them", ("key", "outcome"), registry
        )
        self.shadows = Counts(
            "sekisho_shadows", "Shadow requests by what became of them", ("model", "outcome"), registry
        )
        self.files = Counts(
            "sekisho_file_in_force",
            "1 where what lies in a followed file now is in force, 0 where it was refused",
            ("file",),
            registry,
            gauge=True,
        )
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
        log: LogWriter,
    ) -> None:
        self._models, self._admission, self._log = models, admission, log

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield _gauge("sekisho_requests_in_flight", "Predict requests in flight", self._admission.in_flight)
        yield _gauge("sekisho_event_loop_tasks", "Tasks of the event loop", _event_loop_tasks())
        limit = GaugeMetricFamily(
            "sekisho_admission_limit", "Requests that may be in flight just now", labels=["model"]
        )
        in_flight = GaugeMetricFamily("sekisho_admission_in_flight", "Requests in flight", labels=["model"])
        for name, model in self._admission.models.items():
            limit.add_metric([name], model.limit)
            in_flight.add_metric([name], model.in_flight)
        yield from (limit, in_flight)
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
        yield from self._splits()

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


def _event_loop_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0  # scraped from outside of any loop


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)
