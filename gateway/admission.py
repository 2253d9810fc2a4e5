"""Admission: how many requests may be in flight, by model and priority. What is over is shed early and cheaply.

Each model has a limit of its own, which follows from how long its answers take; so a model that is slow sheds its own
callers, and not those of another. Above all of them stands the process's own limit.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from gateway.adaptive_limit import CALM_S, WINDOW_S, AdaptiveLimit
from gateway.errors import Overloaded

SHARE_BY_PRIORITY: Final = {"critical": 1.0, "default": 0.9, "sheddable": 0.7}
"""How full the gateway may be before a request of that priority is shed: `sheddable` goes first and `critical` last."""

SHARE_OF_MODEL_BY_PRIORITY: Final = {"critical": 1.5, "default": 1.0, "sheddable": 0.7}
"""The same of a model's own limit. It is an estimate, which falls from one moment to the next: the critical are let in
above it, and there is time for them, since latencies are far from the deadline there."""

CRITICAL_SHED_SHARE_MAX: Final = 0.05
"""Of what is in flight: as long as no more of the critical are shed in a tick, they take the places that are given back
while more is in flight than a limit that fell at once allows even them. Of those in flight then, most are of lower
priority, and to shed the critical for them would turn the order round. Where more are shed, the overload is their own,
and they are held to their share until it has been over for CALM_S. In simulation, where one in ten is critical and load
steps to three times capacity, 2 % of them are shed in the first second instead of 43 %, at the same goodput."""

TICK_S: Final = WINDOW_S
"""How often limits follow what was seen."""

PATIENCE_BY_PRIORITY: Final = {"critical": 0.8, "default": 0.5, "sheddable": 0.3}
"""Of a request's budget: for how much of it its rows may have to wait for a worker. Where they would wait for longer it
is shed at once, before its queue is long enough for its limit to fall."""


class Priority(StrEnum):
    """What a caller says its request is worth (`x-priority`)."""

    CRITICAL = "critical"
    DEFAULT = "default"
    SHEDDABLE = "sheddable"


Shares = dict[Priority, int]


class ModelAdmission:
    """The limit of one model. Use it as `admit(priority)` … `release(latency_s)`."""

    __slots__ = (
        "_critical_shed",
        "_limit",
        "_most_in_flight",
        "_shares",
        "_too_many_critical_at_s",
        "_whole",
        "deadline_ms",
        "in_flight",
    )

    def __init__(self, whole: "Admission", deadline_ms: float) -> None:
        self._whole, self.deadline_ms = whole, deadline_ms
        self._limit = AdaptiveLimit(deadline_ms / 1000, whole.requests_in_flight_max)
        self._shares = _shares(self._limit.limit, SHARE_OF_MODEL_BY_PRIORITY)
        self.in_flight = self._most_in_flight = 0
        self._critical_shed = 0
        """Since the last tick."""

        self._too_many_critical_at_s = float("-inf")

    @property
    def limit(self) -> int:
        """Requests of default priority that may be in flight just now."""
        return self._limit.limit

    def check(self, priority: Priority) -> None:
        """Raise Overloaded where no place is free for this priority."""
        whole = self._whole
        if self.in_flight >= self._shares[priority] or whole.in_flight >= whole.shares[priority]:
            whole.shed[priority] += 1
            if priority is Priority.CRITICAL:
                self._critical_shed += 1
            raise Overloaded(
                f"{self.in_flight} requests are in flight, the most for priority {priority.value} just now"
            )

    def admit(self, priority: Priority) -> None:
        """Take a place. Raises Overloaded where none is free for this priority."""
        self.check(priority)
        self._whole.in_flight += 1
        self.in_flight += 1
        if self.in_flight > self._most_in_flight:  # a call costs more than the branch  # noqa: PLR1730
            self._most_in_flight = self.in_flight

    def release(self, latency_s: float | None) -> None:
        """Give the place back. latency_s: how long the answer took, or the wait for none; None: it tells nothing."""
        self._whole.in_flight -= 1
        self.in_flight -= 1
        if latency_s is not None:
            self._limit.completed(latency_s)

    def follow(self, now_s: float) -> None:
        """Set the limit by what was seen since the last time."""
        self._limit.update(now_s, self._most_in_flight)
        self._most_in_flight = self.in_flight
        shares = _shares(self._limit.limit, SHARE_OF_MODEL_BY_PRIORITY)
        if self._critical_shed > CRITICAL_SHED_SHARE_MAX * self.in_flight:
            self._too_many_critical_at_s = now_s
        elif now_s - self._too_many_critical_at_s >= CALM_S:
            shares[Priority.CRITICAL] = max(shares[Priority.CRITICAL], self.in_flight)
        self._critical_shed = 0
        self._shares = shares


class Admission:
    """The limits of one process."""

    def __init__(self, requests_in_flight_max: int) -> None:
        self.requests_in_flight_max = requests_in_flight_max
        self.shares = _shares(requests_in_flight_max, SHARE_BY_PRIORITY)
        self.in_flight = 0
        self.shed: Shares = dict.fromkeys(Priority, 0)
        self.models: dict[str, ModelAdmission] = {}

    def of(self, model: str, deadline_ms: float) -> ModelAdmission:
        """Return a model's limit; a new one where its deadline has changed, which all else follows from."""
        found = self.models.get(model)
        if found is None or found.deadline_ms != deadline_ms:
            found = self.models[model] = ModelAdmission(self, deadline_ms)
        return found

    def follow(self, now_s: float) -> None:
        """Set every limit by what was seen. Called each TICK_S."""
        for model in self.models.values():
            model.follow(now_s)


def _shares(limit: int, share_by_priority: Mapping[str, float]) -> Shares:
    return {Priority(priority): max(1, int(limit * share)) for priority, share in share_by_priority.items()}
