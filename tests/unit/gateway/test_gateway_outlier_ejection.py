from random import Random

import pytest

from gateway.dispatch.outlier_ejection import (
    CHECKS_FAILED_IN_ROW_MAX,
    CONSECUTIVE_FAILURES,
    EJECTION_JITTER,
    EJECTION_S,
    EJECTION_S_MAX,
    SLOW_START_S,
    OutlierEjection,
    ReplicaHealth,
)

START_S = 1_000.0


class Pool:
    """Some replicas, and the time."""

    def __init__(self, replicas: int) -> None:
        self.ejection = OutlierEjection(Random(7))
        self.healths = [ReplicaHealth() for _ in range(replicas)]
        self.now_s = START_S

    def fail(self, index: int, times: int = CONSECUTIVE_FAILURES) -> bool:
        return [self.ejection.failed(self.healths[index], self.healths, self.now_s) for _ in range(times)][-1]

    def answer(self, latencies_s: dict[int, float], times: int = 30) -> None:
        for _ in range(times):
            self.now_s += 0.01
            for index, latency_s in latencies_s.items():
                self.ejection.succeeded(self.healths[index], latency_s, self.now_s)

    def check(self, index: int, latency_s: float | None = 0.001, times: int = 1) -> None:
        for _ in range(times):
            if latency_s is None:
                self.ejection.probe_failed(self.healths[index], self.healths, self.now_s)
            else:
                self.ejection.probe_passed(self.healths[index], latency_s, self.now_s)

    def look(self, after_s: float = 0.0) -> bool:
        self.now_s += after_s
        return self.ejection.look(self.healths, self.now_s)

    @property
    def usable(self) -> list[int]:
        return [self.healths.index(health) for health in self.ejection.usable(self.healths)]

    def weight(self, index: int) -> float:
        return self.ejection.weight(self.healths[index], self.now_s)


def test_five_failures_in_a_row_eject():
    pool = Pool(3)
    assert not pool.fail(1, 4)
    assert pool.fail(1, 1)
    assert pool.usable == [0, 2]
    assert pool.healths[1].ejections == 1


def test_an_answer_between_failures_begins_the_count_anew():
    pool = Pool(2)
    pool.fail(0, 4)
    pool.answer({0: 0.001}, 1)
    assert not pool.fail(0, 4)
    assert pool.usable == [0, 1]


def test_what_fails_while_it_is_ejected_is_not_ejected_again():
    pool = Pool(2)
    pool.fail(0)
    assert not pool.fail(0, 20)
    assert pool.healths[0].ejections == 1


def test_a_single_replica_is_never_ejected():
    pool = Pool(1)
    assert not pool.fail(0, 50)
    assert pool.usable == [0]


@pytest.mark.parametrize(("replicas", "ejected"), [(2, 1), (3, 1), (4, 2), (7, 3), (100, 50)])
def test_of_a_pool_of_failing_replicas_at_least_half_stay(replicas, ejected):
    pool = Pool(replicas)
    for index in range(replicas):
        pool.fail(index)
    assert sum(health.is_ejected for health in pool.healths) == ejected
    assert len(pool.usable) == replicas - ejected


def test_an_ejection_lasts_thirty_seconds_less_at_most_a_tenth():
    pool = Pool(2)
    pool.fail(0)
    pool.look(EJECTION_S * (1 - EJECTION_JITTER) - 0.1)
    assert pool.usable == [1]
    pool.look(EJECTION_S * EJECTION_JITTER + 0.1)
    assert pool.usable == [0, 1]


def test_the_second_ejection_in_a_minute_lasts_twice_as_long():
    pool = Pool(2)
    pool.fail(0)
    pool.look(EJECTION_S)
    pool.fail(0)
    lasts_s = pool.healths[0].ejected_until_s - pool.now_s
    assert 2 * EJECTION_S * (1 - EJECTION_JITTER) <= lasts_s <= 2 * EJECTION_S


def test_no_ejection_lasts_longer_than_five_minutes():
    pool = Pool(2)
    for _ in range(20):
        pool.fail(0)
        assert pool.healths[0].ejected_until_s - pool.now_s <= EJECTION_S_MAX
        pool.look(EJECTION_S_MAX)


def test_a_minute_without_an_ejection_takes_one_off_the_count():
    pool = Pool(2)
    for _ in range(2):
        pool.fail(0)
        pool.look(2 * EJECTION_S)
    assert pool.healths[0].count == 2
    pool.look(59.0)
    assert pool.healths[0].count == 2
    pool.look(1.0)
    assert pool.healths[0].count == 1
    pool.look(60.0)
    assert pool.healths[0].count == 0


def test_three_checks_passed_in_a_row_end_an_ejection_after_three_seconds():
    pool = Pool(2)
    pool.fail(0)
    pool.check(0, times=3)
    pool.look(2.9)
    assert pool.usable == [1]
    assert pool.look(0.2)
    assert pool.usable == [0, 1]


def test_a_failed_check_among_them_begins_their_count_anew():
    pool = Pool(2)
    pool.fail(0)
    pool.check(0, times=2)
    pool.check(0, latency_s=None)
    pool.check(0, times=2)
    pool.look(4.0)
    assert pool.usable == [1]


def test_checks_passed_before_the_ejection_do_not_end_it():
    pool = Pool(2)
    pool.check(0, times=9)
    pool.fail(0)
    pool.look(4.0)
    assert pool.usable == [1]


def test_the_slow_one_of_three_is_ejected():
    pool = Pool(3)
    pool.answer({0: 0.002, 1: 0.060, 2: 0.003})
    assert pool.look()
    assert pool.usable == [0, 2]


def test_one_that_is_slow_together_with_its_peers_is_not_ejected():
    pool = Pool(3)
    pool.answer({0: 0.200, 1: 0.400, 2: 0.300})
    assert not pool.look()
    assert pool.usable == [0, 1, 2]


def test_ten_times_very_little_is_no_outlier():
    pool = Pool(2)
    pool.answer({0: 0.000_5, 1: 0.005})
    assert not pool.look()


def test_a_single_pause_is_no_outlier():
    pool = Pool(2)
    pool.answer({0: 0.002, 1: 0.002}, 100)
    pool.answer({1: 0.500}, 1)
    assert not pool.look()


def test_a_slow_first_batch_is_no_outlier():
    pool = Pool(2)
    pool.answer({0: 0.002, 1: 0.100}, 1)
    pool.answer({0: 0.002, 1: 0.002}, 30)
    assert not pool.look()


def test_too_few_samples_of_late_eject_nobody():
    pool = Pool(2)
    pool.answer({0: 0.002, 1: 0.060}, 19)
    assert not pool.look()
    pool.answer({0: 0.002, 1: 0.060}, 30)
    assert not pool.look(30.0)


def test_of_several_slow_ones_each_is_measured_by_those_that_are_left():
    pool = Pool(6)
    pool.answer({0: 0.002, 1: 0.002, 2: 0.002, 3: 0.002, 4: 0.050, 5: 0.500})
    pool.look()
    assert pool.usable == [0, 1, 2, 3]


def test_a_slow_one_whose_checks_are_slow_too_does_not_come_back_early():
    pool = Pool(3)
    pool.answer({0: 0.002, 1: 0.060, 2: 0.002})
    pool.look()
    pool.check(1, latency_s=0.030, times=5)
    pool.look(5.0)
    assert pool.usable == [0, 2]
    pool.check(1, latency_s=0.001, times=3)
    pool.look(0.1)
    assert pool.usable == [0, 1, 2]


def test_one_that_came_back_is_judged_by_what_it_does_from_then_on():
    pool = Pool(3)
    pool.answer({0: 0.002, 1: 0.060, 2: 0.002})
    pool.look()
    pool.check(1, times=3)
    pool.look(4.0)
    pool.answer({0: 0.002, 1: 0.002, 2: 0.002})
    assert not pool.look()
    assert pool.usable == [0, 1, 2]


def test_three_failed_checks_take_a_replica_out_and_one_passed_brings_it_back():
    pool = Pool(3)
    pool.check(1, latency_s=None, times=CHECKS_FAILED_IN_ROW_MAX - 1)
    assert pool.usable == [0, 1, 2]
    assert pool.ejection.probe_failed(pool.healths[1], pool.healths, pool.now_s)
    assert pool.usable == [0, 2]
    pool.check(1)
    assert pool.usable == [0, 1, 2]


def test_checks_may_take_out_more_than_half_of_the_pool():
    pool = Pool(4)
    for index in (0, 1, 2):
        pool.check(index, latency_s=None, times=3)
    assert pool.usable == [3]


def test_where_checks_leave_nobody_all_are_used():
    pool = Pool(3)
    for index in range(3):
        pool.check(index, latency_s=None, times=3)
    assert pool.usable == [0, 1, 2]


def test_where_checks_and_ejections_leave_fewer_than_half_the_ejected_are_used_again():
    pool = Pool(4)
    pool.fail(0)
    pool.fail(1)
    assert pool.usable == [2, 3]
    pool.check(2, latency_s=None, times=3)
    assert pool.usable == [0, 1, 3]


def test_a_look_tells_of_what_checks_and_failures_have_changed_since_the_last_one():
    pool = Pool(3)
    pool.check(1, latency_s=None, times=3)
    assert pool.look()
    assert not pool.look()
    pool.check(1)
    assert pool.look()


@pytest.mark.parametrize("how", ["ejected", "checked out"])
def test_one_that_came_back_gets_a_tenth_at_first_and_all_after_ten_seconds(how):
    pool = Pool(2)
    if how == "ejected":
        pool.fail(0)
        pool.look(EJECTION_S)
    else:
        pool.check(0, latency_s=None, times=3)
        pool.check(0)
    assert pool.weight(0) == pytest.approx(0.1)
    pool.now_s += SLOW_START_S / 2
    assert pool.weight(0) == pytest.approx(0.55)
    pool.now_s += SLOW_START_S / 2
    assert pool.weight(0) == 1.0
    assert pool.weight(1) == 1.0


def test_a_peak_jumps_up_to_a_slow_sample_and_decays_over_ten_seconds():
    pool = Pool(1)
    pool.answer({0: 0.001}, 10)
    pool.answer({0: 0.100}, 1)
    assert pool.healths[0].peak_ewma_s == 0.100
    pool.answer({0: 0.001}, 1_000)
    assert pool.healths[0].peak_ewma_s == pytest.approx(0.001 + 0.099 * 0.3679, rel=0.02)


def test_a_peak_is_forgotten_where_there_are_no_samples():
    pool = Pool(1)
    pool.answer({0: 0.100}, 1)
    health = pool.healths[0]
    assert health.cost(3, pool.now_s) == pytest.approx(0.400)
    assert health.cost(0, pool.now_s + 10.0) == pytest.approx(0.0368, rel=0.01)
