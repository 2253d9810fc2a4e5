"""Which replicas may be given work: one that fails, or is far slower than its peers, is left out for a while.

Passive: from the batches that were sent anyway. Active: from readiness checks. The rules follow Envoy's outlier
detection; the cost of a replica follows Finagle's peak EWMA.
"""

from collections.abc import Sequence
from math import exp, inf
from random import Random
from statistics import median
from typing import Final

CONSECUTIVE_FAILURES: Final = 5
CHECKS_FAILED_IN_ROW_MAX: Final = 3
CHECKS_PASSED_IN_ROW_MIN: Final = 3
"""Before an ejection may end early."""

EJECTION_S: Final = 30.0
"""Times the count of ejections: one that comes back only to fail stays away longer each time."""

EJECTION_S_MAX: Final = 300.0
EJECTION_JITTER: Final = 0.1
"""Share by which an ejection may be shorter, at random, so that those ejected together do not return together."""

EARLY_END_S: Final = 3.0
"""Times the count: where readiness checks pass, the least time out."""

EARLY_END_S_MAX: Final = 30.0
COUNT_FALLS_S: Final = 60.0
SLOW_START_S: Final = 10.0
SLOW_START_WEIGHT: Final = 0.1

LATENCY_RATIO_MAX: Final = 5.0
"""To the median of the peers: above it a replica is an outlier."""

LATENCY_OUTLIER_S_MIN: Final = 0.010
"""Below it nobody is one: five times of very little is very little."""

SAMPLES_MIN: Final = 20.0
"""Of the last DECAY_S: fewer say nothing about latency."""

DECAY_S: Final = 10.0
"""Time constant of peak EWMA, and of the number of samples."""

EWMA_WEIGHT: Final = 0.05
SPIKE_RATIO_MAX: Final = 4.0
"""One sample counts in the average as at most this many times the average: a single pause is no outlier."""

IDLE_S: Final = 1.0
"""Without a sample for this long, a replica's peak begins to be forgotten: else one that was slow once and is never
chosen again would never be known to have recovered."""


class ReplicaHealth:
    """What is known of one replica. Read its attributes anywhere; only OutlierEjection writes them."""

    __slots__ = (
        "checked_out",
        "checks_failed_in_row",
        "checks_passed_in_row",
        "count",
        "count_since_s",
        "ejected_at_s",
        "ejected_until_s",
        "ejections",
        "ewma_s",
        "failures_in_row",
        "is_ejected",
        "latency_limit_s",
        "peak_ewma_s",
        "readmitted_at_s",
        "sampled_at_s",
        "samples",
        "was_usable",
    )

    def __init__(self) -> None:
        self.ewma_s = 0.0
        """Average latency of a batch."""

        self.peak_ewma_s = 0.0
        """Jumps up to a slow sample, and decays towards the others."""

        self.samples = 0.0
        """Number of samples, each of them worth less as it ages."""

        self.sampled_at_s = -inf
        self.failures_in_row = 0
        self.checks_failed_in_row = self.checks_passed_in_row = 0
        self.checked_out = False
        """Whether readiness checks keep failing."""

        self.is_ejected = False
        self.ejected_at_s = self.ejected_until_s = -inf
        self.latency_limit_s = inf
        """Of one ejected for its latency: what it was measured by. A slower readiness check does not speak for it."""

        self.ejections = 0
        """In all."""

        self.count = 0
        """Ejections of late, by which the next one is longer."""

        self.count_since_s = -inf
        self.readmitted_at_s = -inf
        self.was_usable = True
        """At the last look."""

    @property
    def is_usable(self) -> bool:
        """Whether neither batches nor checks speak against it."""
        return not (self.is_ejected or self.checked_out)

    def peak_s(self, now_s: float) -> float:
        """Return the peak EWMA as of now: forgotten bit by bit while there are no samples."""
        idle_s = now_s - self.sampled_at_s
        return self.peak_ewma_s if idle_s < IDLE_S else self.peak_ewma_s * exp(-idle_s / DECAY_S)

    def cost(self, outstanding: int, now_s: float) -> float:
        """Return what it would cost to wait for this replica, seconds times places in its queue."""
        return self.peak_s(now_s) * (outstanding + 1)


class OutlierEjection:
    """Ejects and readmits. `pool`: the health of every replica of one version. Times are monotonic seconds."""

    __slots__ = ("_random",)

    def __init__(self, random: Random) -> None:
        self._random = random

    def succeeded(self, health: ReplicaHealth, latency_s: float, now_s: float) -> None:
        """Take in a batch that was answered."""
        health.failures_in_row = 0
        kept = exp((health.sampled_at_s - now_s) / DECAY_S)
        health.sampled_at_s = now_s
        health.samples = samples = health.samples * kept + 1.0
        if latency_s > health.peak_ewma_s:
            health.peak_ewma_s = latency_s
        else:
            health.peak_ewma_s = health.peak_ewma_s * kept + latency_s * (1.0 - kept)
        ewma_s = health.ewma_s
        # A plain average of the first twenty, so that a cold first batch does not weigh more than the others.
        weight = EWMA_WEIGHT if samples > SAMPLES_MIN else 1.0 / samples
        if samples > SAMPLES_MIN and latency_s > ewma_s * SPIKE_RATIO_MAX:
            latency_s = ewma_s * SPIKE_RATIO_MAX
        health.ewma_s = ewma_s + weight * (latency_s - ewma_s)

    def failed(self, health: ReplicaHealth, pool: Sequence[ReplicaHealth], now_s: float) -> bool:
        """Take in a batch that was lost, refused by a broken server or cut off. True: this ejects the replica."""
        health.failures_in_row += 1
        return health.failures_in_row >= CONSECUTIVE_FAILURES and self._eject(health, pool, now_s)

    def look(self, pool: Sequence[ReplicaHealth], now_s: float) -> bool:
        """Eject latency outliers and end ejections; call it a few times a second. True: the usable ones changed."""
        for health in pool:
            if health.is_ejected:
                if now_s >= _ends_at_s(health):
                    health.is_ejected = False
                    _readmit(health, now_s)
            elif health.count and now_s - health.count_since_s >= COUNT_FALLS_S:
                health.count -= 1
                health.count_since_s = now_s
        self._eject_slow(pool, now_s)
        changed = False
        for health in pool:
            if health.was_usable != health.is_usable:
                health.was_usable = health.is_usable
                changed = True
        return changed

    def probe_passed(self, health: ReplicaHealth, latency_s: float, now_s: float) -> None:
        """Take in a readiness check that was passed: it brings back a replica that was checked out."""
        health.checks_failed_in_row = 0
        health.checks_passed_in_row = health.checks_passed_in_row + 1 if latency_s <= health.latency_limit_s else 0
        if health.checked_out:
            health.checked_out = False
            _readmit(health, now_s)

    def probe_failed(
        self,
        health: ReplicaHealth,
        pool: Sequence[ReplicaHealth],  # noqa: ARG002 - told what failed() is told; the rest of the pool has no say
        now_s: float,  # noqa: ARG002 - as above
    ) -> bool:
        """Take in a readiness check that failed. True: by this the replica is checked out."""
        health.checks_passed_in_row = 0
        health.checks_failed_in_row += 1
        if health.checked_out or health.checks_failed_in_row < CHECKS_FAILED_IN_ROW_MAX:
            return False
        health.checked_out = True
        return True

    def usable(self, pool: Sequence[ReplicaHealth]) -> list[ReplicaHealth]:
        """Return the replicas that may be given work, in the order of the pool; never none.

        Panic: where fewer than half of the pool are left, ejections do not count, and where readiness checks leave
        none at all, those do not either. Whatever is wrong then is not one replica's fault, and the few that are left
        would fall under the load of all.
        """
        left = [health for health in pool if health.is_usable]
        if 2 * len(left) >= len(pool):
            return left
        return [health for health in pool if not health.checked_out] or list(pool)

    def weight(self, health: ReplicaHealth, now_s: float) -> float:
        """Return the share of its usual traffic that a replica may have, in (0, 1]: less just after it came back."""
        since_s = now_s - health.readmitted_at_s
        if since_s >= SLOW_START_S:
            return 1.0
        return SLOW_START_WEIGHT + (1.0 - SLOW_START_WEIGHT) * max(0.0, since_s) / SLOW_START_S

    def _eject(self, health: ReplicaHealth, pool: Sequence[ReplicaHealth], now_s: float) -> bool:
        ejected = sum([peer.is_ejected for peer in pool])
        if health.is_ejected or ejected >= len(pool) // 2:
            return False
        health.is_ejected = True
        health.ejections += 1
        health.count += 1
        health.ejected_at_s = now_s
        health.latency_limit_s = inf
        lasts_s = min(EJECTION_S * health.count, EJECTION_S_MAX)
        health.ejected_until_s = now_s + lasts_s * (1.0 - EJECTION_JITTER * self._random.random())
        health.checks_passed_in_row = 0
        return True

    def _eject_slow(self, pool: Sequence[ReplicaHealth], now_s: float) -> None:
        known = [health for health in pool if health.is_usable and _samples(health, now_s) >= SAMPLES_MIN]
        known.sort(key=_ewma_s)
        # From the slowest on, each against those that are left.
        while len(known) > 1:
            slowest = known.pop()
            limit_s = max(LATENCY_OUTLIER_S_MIN, LATENCY_RATIO_MAX * median([peer.ewma_s for peer in known]))
            if slowest.ewma_s <= limit_s or not self._eject(slowest, pool, now_s):
                return
            slowest.latency_limit_s = limit_s


def _ewma_s(health: ReplicaHealth) -> float:
    return health.ewma_s


def _samples(health: ReplicaHealth, now_s: float) -> float:
    return health.samples * exp((health.sampled_at_s - now_s) / DECAY_S) if health.samples else 0.0


def _ends_at_s(health: ReplicaHealth) -> float:
    if health.checks_passed_in_row < CHECKS_PASSED_IN_ROW_MIN:
        return health.ejected_until_s
    early_s = min(EARLY_END_S * health.count, EARLY_END_S_MAX)
    return min(health.ejected_until_s, health.ejected_at_s + early_s)


def _readmit(health: ReplicaHealth, now_s: float) -> None:
    # What was known of it is of another time: it is judged by what it does from here on.
    health.readmitted_at_s = health.count_since_s = now_s
    health.failures_in_row = 0
    health.samples = 0.0
    health.latency_limit_s = inf
