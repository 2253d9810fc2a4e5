"""What the feature ladder counts, read when metrics are scraped."""

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from feature_store import NearCache, OnlineReader
from gateway.feature_ladder import FeatureLadder
from gateway.feature_rows import FeatureAssembler


class FeatureCollector:
    """The families of reading, remembering and doing without features."""

    def __init__(
        self, features: FeatureAssembler, ladder: FeatureLadder, reader: OnlineReader, near_cache: NearCache
    ) -> None:
        self._features, self._ladder, self._reader, self._near_cache = features, ladder, reader, near_cache

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        reader, cache = self._reader, self._near_cache
        yield _count("sekisho_feature_reads_failed", "Requests with rows that were not read", self._ladder.reads_failed)
        faults = CounterMetricFamily(
            "sekisho_feature_faults", "Stored rows that could not be used", labels=["view", "fault"]
        )
        for labels, count in list(self._features.faults.items()):
            faults.add_metric(labels, count)
        yield faults
        yield _count(
            "sekisho_redis_reads_timed_out", "Reads that Redis took too long to answer", reader.reads_timed_out
        )
        yield _gauge(
            "sekisho_redis_breaker_open",
            "Shards that reads are kept from, but for a probe now and then",
            reader.breakers_open,
        )
        yield _count("sekisho_redis_breaker_opened", "Times that this began", reader.breakers_opened)
        yield _count("sekisho_near_cache_hits", "Rows served from memory instead of being read", cache.hits)
        yield _count("sekisho_near_cache_misses", "Rows not remembered, or for too long", cache.misses)
        yield _count("sekisho_near_cache_stale_served", "Rows served from memory for want of Redis", cache.stale_served)
        yield _gauge("sekisho_near_cache_entries", "Rows remembered", len(cache))
        yield _gauge("sekisho_near_cache_bytes", "Memory that they take", cache.bytes_held)


def _count(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
