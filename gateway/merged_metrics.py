"""One metrics page of several processes: sums, except where a sum would mean nothing."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

LEAST: Final = frozenset({"sekisho_version_ready", "sekisho_file_in_force"})
"""Gauges of which the least counts: a version is ready where every process can answer with it."""

MOST: Final = frozenset({"sekisho_variant_weight", "python_info"})
"""Gauges that every process says alike."""

BY_PROCESS: Final = ("process_", "python_gc_", "sekisho_configuration_", "sekisho_experiments_")
"""Prefixes of what belongs to one process and is told with a `process` label."""

_SUMMED_KINDS: Final = frozenset({"counter", "histogram", "summary"})

Key = tuple[str, str, tuple[tuple[str, str], ...]]


class MergedMetrics:
    """Merges the pages of processes that come and go.

    A counter must never fall, so what a process had counted when it was last read stays in the sums after its end.
    """

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str]] = {}
        self._living: dict[str, dict[Key, float]] = {}
        self._departed: dict[Key, float] = {}

    def read(self, process: str, page: str) -> None:
        """Take in one process's page."""
        values: dict[Key, float] = {}
        for family in text_string_to_metric_families(page):
            self._families[family.name] = (family.documentation, family.type)
            for sample in family.samples:
                values[family.name, sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        self._living[process] = values

    def ended(self, process: str) -> None:
        """Keep the sums of a process that has ended, and forget the rest of it."""
        for key, value in self._living.pop(process, {}).items():
            family = key[0]
            if self._families[family][1] in _SUMMED_KINDS and not family.startswith(BY_PROCESS):
                self._departed[key] = self._departed.get(key, 0.0) + value

    def page(self) -> bytes:
        """Write the merged page."""
        registry = CollectorRegistry()
        registry.register(_Families(list(self._merged())))
        return generate_latest(registry)

    def _merged(self) -> Iterable[Metric]:
        merged: dict[Key, float] = dict(self._departed)
        for process, values in self._living.items():
            for (family, name, labels), value in values.items():
                if family.startswith(BY_PROCESS):
                    merged[family, name, (*labels, ("process", process))] = value
                    continue
                key = (family, name, labels)
                merged[key] = value if key not in merged else _joined(family, merged[key], value)
        by_family: dict[str, list[Sample]] = {}
        for (family, name, labels), value in merged.items():
            by_family.setdefault(family, []).append(Sample(name, dict(labels), value))
        for family, samples in by_family.items():
            documentation, kind = self._families[family]
            metric = Metric(family, documentation, kind)
            metric.samples = samples
            yield metric


class _Families:
    """What a registry needs to write given families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        return self._families


def _joined(family: str, one: float, other: float) -> float:
    if family in LEAST:
        return min(one, other)
    if family in MOST:
        return max(one, other)
    return one + other
