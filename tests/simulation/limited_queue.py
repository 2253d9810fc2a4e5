"""A queue with an adaptive limit before it, on a virtual clock: what a model's admission and workers do, in miniature.

Poisson arrivals, of several priorities; a request over the limit is shed; the others wait in order for one of
`servers`, which take an exponential time each. A request whose time has run out is given up by its caller at that
moment; a server that comes upon it drops it, one that has begun computes on for nothing.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from gateway.admission import TICK_S, Admission, ModelAdmission, Priority
from gateway.errors import Overloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`load` is a share of the capacity, by the time; `service_s` is the mean, times `slowness` by the time;
    `service_shape` 1 is exponential, more is steadier (Erlang)."""

    servers: int
    service_s: float
    deadline_s: float
    load: Callable[[float], float]
    ceiling: int = 1024
    service_shape: int = 1
    slowness: Callable[[float], float] = lambda _: 1.0
    share_by_priority: Mapping[Priority, float] = field(default_factory=lambda: {Priority.DEFAULT: 1.0})
    """Of the arrivals."""

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return self.servers / self.service_s

    def admission(self) -> ModelAdmission:
        """Make the gateway's own, for this model."""
        return Admission(self.ceiling).of("model", self.deadline_s * 1000)


@dataclass(slots=True)
class Second:
    """What happened in one second, by when it happened."""

    offered: int = 0
    shed: int = 0
    in_time: int = 0
    late: int = 0
    limit: int = 0
    """At its end."""

    offered_by: Counter[Priority] = field(default_factory=Counter)
    shed_by: Counter[Priority] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class _Request:
    arrived_s: float
    done: bool = False


@dataclass(slots=True)
class LimitedQueue:
    """One run. admission: None for a queue without one."""

    workload: Workload
    random: Random
    admission: ModelAdmission | None
    seconds: list[Second] = field(default_factory=list)
    _waiting: deque[_Request] = field(default_factory=deque)
    _busy: int = 0

    def run(self, duration_s: float) -> list[Second]:
        """Return what happened, second by second."""
        arrive, serve, give_up, tick = range(4)
        events: list[tuple[float, int, int, _Request | None]] = [(0.0, 0, arrive, None), (TICK_S, 1, tick, None)]
        number = 2
        workload, random = self.workload, self.random
        self.seconds = [Second() for _ in range(int(duration_s))]
        while True:
            now_s, _, kind, request = heappop(events)
            if now_s >= duration_s:
                return self.seconds
            if kind == arrive:
                rate = workload.load(now_s) * workload.capacity
                heappush(events, (now_s + (random.expovariate(rate) if rate else 0.01), number, arrive, None))
                if rate and (admitted := self._arrive(now_s)) is not None:
                    heappush(events, (now_s + workload.deadline_s, number + 1, give_up, admitted))
            elif kind == serve:
                assert request is not None
                self._busy -= 1
                self._finish(request, now_s)
            elif kind == give_up:
                assert request is not None
                self._finish(request, now_s)
            else:
                self._tick(now_s)
                heappush(events, (now_s + TICK_S, number, tick, None))
            while self._busy < workload.servers and (taken := self._take()) is not None:
                self._busy += 1
                shape = workload.service_shape
                service_s = random.gammavariate(shape, workload.service_s / shape) * workload.slowness(now_s)
                heappush(events, (now_s + service_s, number + 2, serve, taken))
                number += 1
            number += 3

    def _arrive(self, now_s: float) -> _Request | None:
        second = self.seconds[int(now_s)]
        second.offered += 1
        priority = self._priority()
        second.offered_by[priority] += 1
        if self.admission is not None:
            try:
                self.admission.admit(priority)
            except Overloaded:
                second.shed += 1
                second.shed_by[priority] += 1
                return None
        request = _Request(now_s)
        self._waiting.append(request)
        return request

    def _priority(self) -> Priority:
        shares = self.workload.share_by_priority
        return next(iter(shares)) if len(shares) == 1 else self.random.choices(*zip(*shares.items(), strict=True))[0]

    def _take(self) -> _Request | None:
        while self._waiting:
            request = self._waiting.popleft()
            if not request.done:
                return request
        return None

    def _finish(self, request: _Request, now_s: float) -> None:
        if request.done:
            return
        request.done = True
        latency_s = now_s - request.arrived_s
        second = self.seconds[int(now_s)]
        if latency_s < self.workload.deadline_s:
            second.in_time += 1
        else:
            second.late += 1
        if self.admission is not None:
            self.admission.release(latency_s)

    def _tick(self, now_s: float) -> None:
        if self.admission is not None:
            self.admission.follow(now_s)
            self.seconds[int(now_s)].limit = self.admission.limit
