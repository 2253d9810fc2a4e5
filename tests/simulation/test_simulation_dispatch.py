"""What each mechanism of the dispatch is worth, on ten simulated replicas behind the real pool and dispatcher."""

from dataclasses import replace
from functools import cache

from gateway.dispatch.dispatch_rules import DispatchRules
from gateway.dispatch.retry_budget import RETRY_SHARE
from tests.simulation.fleet import Outcome, simulate
from tests.simulation.scenarios import bad_fleet, brown_out

ALL = DispatchRules()


@cache
def on_bad_fleet(rules: DispatchRules) -> Outcome:
    return simulate(bad_fleet(10, load=0.3, duration_s=24), rules)


@cache
def in_brown_out(rules: DispatchRules) -> Outcome:
    return simulate(brown_out(10, load=0.3, failing=0.9, fails_at_once=True, duration_s=24), rules)


def test_balancing_gives_a_lower_95th_percentile_than_chance():
    without = DispatchRules(eject=False, retry=False, hedge=False)
    assert on_bad_fleet(without).quantile_s(0.95) < on_bad_fleet(replace(without, balance=False)).quantile_s(0.95)


def test_ejection_makes_errors_at_least_ten_times_fewer():
    without = DispatchRules(eject=False, retry=False, hedge=False)
    assert on_bad_fleet(replace(without, eject=True)).errors * 10 < on_bad_fleet(without).errors


def test_retries_make_errors_at_least_five_times_fewer_than_ejection_alone():
    without = DispatchRules(retry=False, hedge=False)
    assert on_bad_fleet(replace(without, retry=True)).errors * 5 < on_bad_fleet(without).errors


def test_hedging_halves_the_99th_percentile():
    assert on_bad_fleet(ALL).quantile_s(0.99) < 0.5 * on_bad_fleet(replace(ALL, hedge=False)).quantile_s(0.99)


def test_with_all_of_it_at_most_two_requests_in_a_thousand_fail_where_four_replicas_in_ten_are_bad():
    assert on_bad_fleet(ALL).failed_share <= 0.002


def test_the_budget_keeps_what_is_sent_again_within_a_fifth_where_all_replicas_fail():
    assert in_brown_out(ALL).extra_share <= RETRY_SHARE
    assert in_brown_out(ALL).refused > 0


def test_without_the_budget_more_is_sent_again_where_all_replicas_fail():
    assert in_brown_out(replace(ALL, budget=False)).extra_share > 1.5 * in_brown_out(ALL).extra_share


def test_second_attempts_do_not_turn_a_brown_out_into_an_outage():
    for slowness in (2.0, 3.0):
        scenario = brown_out(10, load=0.3, slowness=slowness, duration_s=40)
        assert simulate(scenario, ALL).failed_share <= 0.01


def test_after_a_brown_out_that_made_everything_late_it_serves_as_before():
    brown = brown_out(20, load=0.4, slowness=5.0, duration_s=24)
    calm = replace(brown, behaviours=brown.behaviours, duration_s=12)
    assert simulate(brown, ALL).late < 2 * simulate(calm, ALL).late


def test_a_pool_whose_batches_all_fail_late_does_not_stand_still():
    scenario = brown_out(20, load=0.4, failing=0.6, duration_s=24)
    outcome = simulate(scenario, ALL)
    assert outcome.rows_computed >= outcome.requests


def test_without_the_budget_what_fails_late_makes_the_rest_late():
    scenario = brown_out(10, load=0.3, failing=0.9, duration_s=24)
    assert simulate(scenario, replace(ALL, budget=False)).late > 3 * simulate(scenario, ALL).late


def test_the_same_seed_gives_the_same_outcome():
    scenario = bad_fleet(10, load=0.3, duration_s=3)
    assert simulate(scenario, ALL) == simulate(scenario, ALL)
