from gateway.dispatch.outlier_ejection import CONSECUTIVE_FAILURES
from gateway.dispatch.retry_budget import RETRIES_MIN, WINDOW_S, RetryBudget
from gateway.dispatch.worker_pool import BATCHES_IN_FLIGHT_PER_REPLICA


def test_with_no_requests_at_all_a_few_retries_may_go_out_and_no_more():
    budget = RetryBudget()
    assert [budget.spend(1, 100.0) for _ in range(RETRIES_MIN + 1)] == [True] * RETRIES_MIN + [False]
    assert budget.refused == 1


def test_what_may_go_out_in_any_case_suffices_to_find_out_that_a_replica_is_bad():
    assert RETRIES_MIN >= CONSECUTIVE_FAILURES * BATCHES_IN_FLIGHT_PER_REPLICA


def test_a_fifth_of_a_hundred_requests_may_go_out_again():
    budget = RetryBudget()
    budget.record(100, 100.0)
    assert budget.left(100.0) == 20
    assert budget.spend(20, 100.5)
    assert not budget.spend(1, 100.9)


def test_more_than_is_left_is_refused_whole_and_leaves_the_budget_as_it_was():
    budget = RetryBudget()
    budget.record(50, 0.0)
    assert not budget.spend(11, 0.0)
    assert budget.left(0.0) == 10
    assert budget.refused == 11


def test_requests_older_than_the_window_allow_no_more_retries():
    budget = RetryBudget()
    budget.record(1_000, 100.0)
    assert budget.left(100.0 + WINDOW_S - 0.1) == 200
    assert budget.left(100.0 + WINDOW_S) == RETRIES_MIN


def test_retries_older_than_the_window_are_forgotten():
    budget = RetryBudget()
    assert budget.spend(RETRIES_MIN, 100.0)
    assert budget.left(109.9) == 0
    assert budget.left(110.0) == RETRIES_MIN


def test_a_pause_longer_than_the_window_leaves_nothing_of_what_was_before_it():
    budget = RetryBudget()
    for second in range(10):
        budget.record(100, 5.0 + second)
    assert budget.left(1_000_000.0) == RETRIES_MIN


def test_a_time_that_lags_behind_the_last_one_is_counted_with_the_newest_second():
    budget = RetryBudget()
    budget.record(100, 100.2)
    budget.record(200, 99.9)
    assert budget.left(100.2) == 60
