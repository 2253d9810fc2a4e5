"""A part of `python -m tests.simulation.canaries`: canaries watched every second through the real register."""

from dataclasses import replace
from functools import cache

import pytest

from experiments.guardrails import ALPHA
from tests.simulation.canaries import SCENARIOS, Ending, simulate, simulate_many

EQUAL = [name for name in SCENARIOS if name.startswith("equal arms")]
RUNS = 20


@cache
def endings(name: str) -> tuple[Ending, ...]:
    """Run some: those of equal arms, which last longest, are looked at less often than by the program."""
    if name in EQUAL:
        return tuple(simulate_many(replace(SCENARIOS[name], look_every_s=10), RUNS, seed=1))
    return tuple(simulate_many(SCENARIOS[name], RUNS // 4, seed=1))


@pytest.mark.parametrize("name", EQUAL)
def test_canaries_of_equal_arms_are_rolled_back_at_most_once_in_20(name: str):
    assert sum(ending.what == "rolled back" for ending in endings(name)) <= ALPHA * RUNS


def test_healthy_canaries_are_promoted_once_the_last_step_has_held():
    for ending in endings("healthy, 0.2 % errors, to be promoted"):
        assert (ending.what, ending.after_s, ending.enrol_bp) == ("promoted", 3 * 120, 5_000)


@pytest.mark.parametrize(
    ("name", "metric", "seconds_max", "requests_max"),
    [
        ("errors 3 % beside 0.2 %", "error_rate", 240, 8_000),
        ("errors 100 % beside 0.2 %", "error_rate", 10, 50),
        ("latency doubled", "p99_ms", 240, 8_000),
        ("fallbacks 5 % beside 1 %", "fallback_rate", 240, 8_000),
        ("scores a quarter higher", "score_drift", 360, 40_000),
    ],
)
def test_a_canary_with_something_wrong_is_rolled_back_by_the_guardrail_of_it(
    name: str, metric: str, seconds_max: int, requests_max: int
):
    for ending in endings(name):
        assert (ending.what, ending.metric) == ("rolled back", metric)
        assert ending.after_s <= seconds_max
        assert ending.requests <= requests_max


def test_a_canary_that_fails_throughout_never_leaves_its_first_step():
    assert {ending.enrol_bp for ending in endings("errors 100 % beside 0.2 %")} == {100}


def test_a_canary_with_too_few_requests_stays_on_its_step():
    quiet = replace(SCENARIOS["healthy, 0.2 % errors, to be promoted"], requests_per_s=20.0, seconds=300)
    ending = simulate(quiet, seed=1)
    assert (ending.what, ending.enrol_bp) == ("neither", 100)
    assert ending.requests < 100


def test_the_same_seed_gives_the_same_ending():
    assert simulate(SCENARIOS["latency doubled"], seed=7) == simulate(SCENARIOS["latency doubled"], seed=7)
