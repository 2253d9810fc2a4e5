"""What the parts between the gateway and its workers tell of themselves, read when scraped."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.served_models import ServedModel

BY_VERSION = ("model", "version")
BY_WORKER = (*BY_VERSION, "worker")


class DispatchCollector:
    """Reads pools and dispatchers. clock: seconds, the one that deadlines are told by."""

    def __init__(self, models: Mapping[str, ServedModel], clock: Callable[[], float]) -> None:
        self._models, self._clock = models, clock

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        ready = GaugeMetricFamily("sekisho_version_ready", "Whether the version can answer", labels=BY_VERSION)
        for model in self._models.values():
            for served in model.versions.values():
                ready.add_metric([model.name, served.version], served.ready)
        yield ready
        yield from self._workers()
        yield from self._dispatch()

    def _workers(self) -> Iterable[Metric]:
        connections = GaugeMetricFamily("sekisho_worker_connections", "Open connections", labels=BY_WORKER)
        outstanding = GaugeMetricFamily("sekisho_worker_outstanding_rows", "Rows sent, unanswered", labels=BY_WORKER)
        ejected = GaugeMetricFamily(
            "sekisho_worker_ejected", "1 where a worker is given nothing: it fails or is too slow", labels=BY_WORKER
        )
        ejections = CounterMetricFamily("sekisho_worker_ejections", "Times that a worker was ejected", labels=BY_WORKER)
        not_ready = GaugeMetricFamily(
            "sekisho_worker_not_ready", "1 where a worker fails its readiness checks", labels=BY_WORKER
        )
        for model in self._models.values():
            for served in model.versions.values():
                for replica in served.pool.replicas:
                    labels, health = [model.name, served.version, replica.url], replica.health
                    connections.add_metric(labels, len(replica.connections))
                    outstanding.add_metric(labels, replica.outstanding_rows)
                    ejected.add_metric(labels, health.is_ejected)
                    ejections.add_metric(labels, health.ejections)
                    not_ready.add_metric(labels, health.checked_out)
        return (connections, outstanding, ejected, ejections, not_ready)

    def _dispatch(self) -> Iterable[Metric]:
        now_s = self._clock()
        waiting = GaugeMetricFamily("sekisho_dispatch_rows_waiting", "Rows that wait for a worker", labels=BY_VERSION)
        batches = CounterMetricFamily("sekisho_dispatch_batches", "Batches sent to workers", labels=BY_VERSION)
        rows = CounterMetricFamily("sekisho_dispatch_rows", "Rows sent to workers", labels=BY_VERSION)
        retries = CounterMetricFamily(
            "sekisho_dispatch_retries", "Requests whose rows were sent once more after a failure", labels=BY_VERSION
        )
        hedges = CounterMetricFamily(
            "sekisho_dispatch_hedges",
            "Requests whose rows were sent to a second worker for being late",
            labels=BY_VERSION,
        )
        won = CounterMetricFamily("sekisho_dispatch_hedges_won", "Hedges that were answered first", labels=BY_VERSION)
        left = GaugeMetricFamily(
            "sekisho_retry_budget_left", "Retries and hedges that may go out just now", labels=BY_VERSION
        )
        refused = CounterMetricFamily(
            "sekisho_retry_budget_refused", "Retries and hedges that the budget did not allow", labels=BY_VERSION
        )
        for model in self._models.values():
            for served in model.versions.values():
                if served.planned is None:
                    continue
                labels, dispatcher = [model.name, served.version], served.planned.dispatcher
                waiting.add_metric(labels, dispatcher.rows_waiting)
                batches.add_metric(labels, dispatcher.batches_sent)
                rows.add_metric(labels, dispatcher.rows_sent)
                retries.add_metric(labels, dispatcher.retried)
                hedges.add_metric(labels, dispatcher.hedged)
                won.add_metric(labels, dispatcher.hedges_won)
                left.add_metric(labels, dispatcher.budget.left(now_s))
                refused.add_metric(labels, dispatcher.budget.refused)
        return (waiting, batches, rows, retries, hedges, won, left, refused)
