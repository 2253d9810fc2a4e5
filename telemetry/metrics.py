"""Metrics whose hot side costs next to nothing: plain attributes and lists, folded into Prometheus families when
scraped.

prometheus_client's own observe takes a lock and about 1.2 µs on a kept child. With half a dozen observations a request
that is a tenth of the whole budget. Appending to a list costs 30 ns; the fold runs once a scrape, or once `PENDING_MAX`
values.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

PENDING_MAX: Final = 4_096
"""Values kept unfolded by one histogram child: bounds memory between two scrapes."""


class Series:
    """One child of a histogram: observe values in seconds with `observe`, from any thread.

    Raises ValueError unless the bounds rise.
    """

    __slots__ = ("_bounds", "_counts", "_folding", "_pending", "_sum", "observe")

    def __init__(self, bounds: Sequence[float]) -> None:
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise ValueError(f"bounds must rise: {bounds}")
        self._bounds = tuple(bounds)
        # Only folds wait for each other: of two at once, one would delete what the other has not counted.
        self._folding = Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._pending: list[float] = []
        # The bound method itself: a call of `series.observe(x)` is then one C call.
        self.observe = self._pending.append

    def fold(self) -> None:
        """Move what was observed since the last fold into the buckets."""
        with self._folding:
            # Slice and delete by length: a value appended in between stays for the next fold.
            taken = self._pending[:]
            del self._pending[: len(taken)]
            for value in taken:
                self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += sum(taken)

    @property
    def overdue(self) -> bool:
        """Whether enough values wait that a fold should not wait for the scrape."""
        return len(self._pending) >= PENDING_MAX

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Return buckets as Prometheus wants them, (upper bound as text, cumulative count), and the sum."""
        self.fold()
        total = 0
        buckets = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append((floatToGoString(bound), float(total)))  # type: ignore[no-untyped-call]
        return buckets, self._sum


class Histogram:
    """A histogram family in seconds. Children are made once, at set-up or on first use, and kept."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._help, self._labels, self._bounds = name, help_text, tuple(labels), tuple(bounds)
        self._children: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def child(self, *values: str) -> Series:
        """Return the child of these label values, in the order of the labels.

        Raises ValueError where they are more or fewer.
        """
        series = self._children.get(values)
        if series is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}, not one for each of {values}")
            series = self._children[values] = Series(self._bounds)
        return series

    def forget(self, *first: str) -> None:
        """Drop each child whose first labels have these values. Who still holds one observes unseen."""
        for values in [values for values in self._children if values[: len(first)] == first]:
            del self._children[values]

    def fold_overdue(self) -> None:
        """Fold the children that hold many values; call it from time to time off the hot path."""
        for series in list(self._children.values()):
            if series.overdue:
                series.fold()

    def describe(self) -> Iterable[Metric]:
        """Yield the family, so that the registry refuses a second one of its name."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield the family, for prometheus_client."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, series in list(self._children.items()):
            buckets, total = series.cumulative()
            family.add_metric(values, buckets, total)
        yield family


class Counts:
    """A counter or gauge family over a plain dictionary. One thread writes it; any may scrape it."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry, *, gauge: bool = False
    ) -> None:
        self._name, self._help, self._labels, self._gauge = name, help_text, tuple(labels), gauge
        self.values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, *labels: str, amount: float = 1) -> None:
        """Add to the child of these label values."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def set(self, *labels: str, value: float) -> None:
        """Set the child of these label values."""
        self.values[labels] = value

    def forget(self, *first: str) -> None:
        """Drop each child whose first labels have these values."""
        for labels in [labels for labels in self.values if labels[: len(first)] == first]:
            del self.values[labels]

    def describe(self) -> Iterable[Metric]:
        """Yield the family, so that the registry refuses a second one of its name."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield the family, for prometheus_client."""
        kind = GaugeMetricFamily if self._gauge else CounterMetricFamily
        family = kind(self._name, self._help, labels=self._labels)
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        yield family
