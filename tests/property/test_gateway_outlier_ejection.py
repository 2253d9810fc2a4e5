from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.dispatch.outlier_ejection import (
    CHECKS_PASSED_IN_ROW_MIN,
    CONSECUTIVE_FAILURES,
    EARLY_END_S,
    EARLY_END_S_MAX,
    EJECTION_JITTER,
    EJECTION_S,
    EJECTION_S_MAX,
    SLOW_START_WEIGHT,
    OutlierEjection,
    ReplicaHealth,
)

INDEX = st.integers(0, 30)


class EjectionMachine(RuleBasedStateMachine):
    """Anything may happen to any replica, in any order; the stated rules hold throughout."""

    @initialize(replicas=st.integers(1, 12), seed=st.integers())
    def begin(self, replicas: int, seed: int) -> None:
        self.ejection = OutlierEjection(Random(seed))
        self.pool = [ReplicaHealth() for _ in range(replicas)]
        self.now_s = 5_000.0
        self.failures_in_row = [0] * replicas
        self.passed_in_row = [0] * replicas

    def at(self, index: int) -> tuple[int, ReplicaHealth]:
        index %= len(self.pool)
        return index, self.pool[index]

    @rule(step_s=st.one_of(st.floats(0, 1), st.floats(0, 100)))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(index=INDEX, latency_s=st.floats(0.000_1, 2), times=st.integers(1, 40))
    def answer(self, index: int, latency_s: float, times: int) -> None:
        index, health = self.at(index)
        for _ in range(times):
            self.ejection.succeeded(health, latency_s, self.now_s)
        self.failures_in_row[index] = 0

    @rule(index=INDEX, times=st.integers(1, 8))
    def fail(self, index: int, times: int) -> None:
        index, health = self.at(index)
        for _ in range(times):
            was_ejected = health.is_ejected
            others = sum(peer.is_ejected for peer in self.pool)
            self.failures_in_row[index] += 1
            due = self.failures_in_row[index] >= CONSECUTIVE_FAILURES
            expected = due and not was_ejected and others < len(self.pool) // 2
            assert self.ejection.failed(health, self.pool, self.now_s) == expected
            if expected:
                self.ejected(index)

    @rule(index=INDEX, latency_s=st.floats(0, 0.2), times=st.integers(1, 4))
    def pass_checks(self, index: int, latency_s: float, times: int) -> None:
        index, health = self.at(index)
        for _ in range(times):
            if health.checked_out:
                self.failures_in_row[index] = 0
            self.ejection.probe_passed(health, latency_s, self.now_s)
            self.passed_in_row[index] += 1
        assert not health.checked_out

    @rule(index=INDEX, times=st.integers(1, 4))
    def fail_checks(self, index: int, times: int) -> None:
        index, health = self.at(index)
        for _ in range(times):
            self.ejection.probe_failed(health, self.pool, self.now_s)
        self.passed_in_row[index] = 0

    @rule()
    def look(self) -> None:
        before = [
            (health.is_ejected, health.ejected_at_s, health.ejected_until_s, health.count) for health in self.pool
        ]
        was_usable = [health.was_usable for health in self.pool]
        changed = self.ejection.look(self.pool, self.now_s)
        assert changed == (was_usable != [health.is_usable for health in self.pool])
        for index, health in enumerate(self.pool):
            was_ejected, at_s, until_s, count = before[index]
            if was_ejected and (not health.is_ejected or health.ejected_at_s != at_s):
                self.failures_in_row[index] = 0
                early = self.passed_in_row[index] >= CHECKS_PASSED_IN_ROW_MIN
                assert self.now_s >= until_s or (
                    early and self.now_s - at_s >= min(EARLY_END_S * count, EARLY_END_S_MAX)
                )
            if health.is_ejected and health.ejected_at_s != at_s:
                self.ejected(index)

    def ejected(self, index: int) -> None:
        self.passed_in_row[index] = 0
        health = self.pool[index]
        longest_s = min(EJECTION_S * health.count, EJECTION_S_MAX)
        lasts_s = health.ejected_until_s - self.now_s
        assert longest_s * (1 - EJECTION_JITTER) - 1e-6 <= lasts_s <= longest_s + 1e-6

    @invariant()
    def no_more_than_half_are_ejected(self) -> None:
        assert sum(health.is_ejected for health in self.pool) <= len(self.pool) // 2

    @invariant()
    def some_are_always_usable_and_none_that_need_not_be(self) -> None:
        usable = self.ejection.usable(self.pool)
        healthy = [health for health in self.pool if health.is_usable]
        ready = [health for health in self.pool if not health.checked_out]
        assert usable
        if 2 * len(healthy) >= len(self.pool):
            assert usable == healthy
        else:
            assert usable == (ready or self.pool)

    @invariant()
    def weights_and_averages_stay_within_their_bounds(self) -> None:
        for health in self.pool:
            assert SLOW_START_WEIGHT <= self.ejection.weight(health, self.now_s) <= 1.0
            assert 0.0 <= health.ewma_s <= 2.0
            assert 0.0 <= health.peak_s(self.now_s) <= health.peak_ewma_s <= 2.0


TestOutlierEjection = EjectionMachine.TestCase
TestOutlierEjection.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
