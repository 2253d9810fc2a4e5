from collections import Counter
from random import Random

import pytest

from gateway.dispatch.balancing import FULL_SCAN_MAX, choose
from tests.unit.gateway.balanced_workers import NOW_S, Worker, worker


def shares(workers: list[Worker], draws: int = 4_000) -> list[float]:
    random = Random(1)
    drawn = Counter(id(choose(workers, random, NOW_S)) for _ in range(draws))
    return [drawn[id(each)] / draws for each in workers]


@pytest.mark.parametrize("replicas", [1, 2, FULL_SCAN_MAX, FULL_SCAN_MAX + 1, 100])
def test_where_all_are_busy_none_is_chosen(replicas):
    assert choose([worker(has_idle_connection=False) for _ in range(replicas)], Random(1), NOW_S) is None


@pytest.mark.parametrize("replicas", [1, 2, FULL_SCAN_MAX, FULL_SCAN_MAX + 1, 100])
def test_the_only_idle_one_is_found_however_many_are_busy_and_however_little_it_may_take(replicas):
    workers = [worker(has_idle_connection=False) for _ in range(replicas)]
    workers[replicas // 2] = worker(outstanding_rows=50, weight=0.1)
    random = Random(1)
    assert all(choose(workers, random, NOW_S) is workers[replicas // 2] for _ in range(50))


def test_up_to_eight_the_one_that_holds_the_fewest_rows_is_chosen():
    workers = [worker(rows) for rows in (5, 4, 9, 1, 3, 8, 7, 6)]
    assert choose(workers, Random(1), NOW_S) is workers[3]


def test_a_tie_goes_to_the_one_that_was_quicker_of_late():
    workers = [worker(2, 0.020), worker(2, 0.004), worker(2, 0.005)]
    assert choose(workers, Random(1), NOW_S) is workers[1]


def test_one_that_was_slow_long_ago_is_tried_again_even_where_others_are_quick():
    workers = [worker(0, 0.001), worker(0, 0.050, sampled_s_ago=60.0)]
    assert choose(workers, Random(1), NOW_S) is workers[1]


def test_above_eight_a_slow_one_gets_what_chance_alone_leaves_it():
    workers = [worker(1, 0.001) for _ in range(19)] + [worker(1, 0.050)]
    assert shares(workers)[-1] == 0.0


def test_above_eight_the_quick_ones_share_evenly():
    assert all(0.035 < share < 0.065 for share in shares([worker() for _ in range(20)]))


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_one_in_slow_start_gets_no_more_than_its_weight_though_it_holds_nothing(weight):
    few = shares([worker(3), worker(0, weight=weight)])
    assert few[1] == pytest.approx(weight, abs=0.03)
    many = shares([worker(1, 0.010) for _ in range(9)] + [worker(0, 0.001, weight=weight)])
    assert many[-1] == pytest.approx(weight * 0.2, abs=0.03)
