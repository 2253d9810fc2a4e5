"""Evidence under the null hypothesis: over all outcomes, over all paths, and by chance."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.canary import bin_edge_ms, latency_bin
from experiments.evidence import (
    distance_beyond_chance,
    log_evidence_above,
    log_evidence_below,
    log_evidence_quantile,
    log_evidence_rate,
)

ALPHA = 0.05
Allowed = Callable[[float], float]
ALLOWANCES: dict[str, Allowed] = {
    "as control": lambda rate: rate,
    "0.01 more": lambda rate: rate + 0.01,
    "0.2 more": lambda rate: rate + 0.2,
    "a quarter more": lambda rate: 1.25 * rate,
    "twice": lambda rate: 2 * rate,
}
GRID = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9, 0.99, 1.0)
COUNTS = st.integers(0, 40) | st.integers(0, 10**9)
ROUNDING = 1e-9


@cache
def _pmf(trials: int, rate: float) -> Any:
    return stats.binom.pmf(range(trials + 1), trials, rate)


@pytest.mark.parametrize("trials", [1, 2, 3, 5, 10, 30, 100])
@pytest.mark.parametrize("bound", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_evidence_above_a_rate_has_an_expectation_of_at_most_one_at_every_rate_up_to_it(bound: float, trials: int):
    evidence = np.exp([log_evidence_above(hits, trials, bound) for hits in range(trials + 1)])
    for rate in [rate for rate in GRID if rate <= bound]:
        possible = _pmf(trials, rate) > 0
        assert float(evidence[possible] @ _pmf(trials, rate)[possible]) <= 1 + ROUNDING


@pytest.mark.parametrize("trials", [(1, 1), (1, 5), (5, 1), (3, 4), (6, 6), (12, 3), (20, 20)])
@pytest.mark.parametrize("allowed", ALLOWANCES.values(), ids=ALLOWANCES)
def test_evidence_between_rates_has_an_expectation_of_at_most_one_at_all_rates_of_the_null(
    allowed: Allowed, trials: tuple[int, int]
):
    own, controls = trials
    evidence = np.exp(
        [[log_evidence_rate((h, own), (c, controls), allowed) for c in range(controls + 1)] for h in range(own + 1)]
    )
    for control_rate in GRID:
        border = min(1.0, allowed(control_rate))
        for rate in {*(rate for rate in GRID if rate <= border), border}:
            outcomes = np.outer(_pmf(own, rate), _pmf(controls, control_rate))
            possible = outcomes > 0
            assert float(evidence[possible] @ outcomes[possible]) <= 1 + ROUNDING


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5])
def test_watched_after_every_one_of_1000_requests_a_rate_at_its_bound_is_called_above_it_at_most_once_in_20(
    rate: float,
):
    alive, crossed = np.array([1.0]), 0.0
    for trials in range(1, 1_001):
        alive = np.convolve(alive, [1 - rate, rate])
        first = first_breach(trials, rate)
        crossed += alive[first:].sum()
        alive[first:] = 0
    assert 0.0005 < crossed <= ALPHA


@cache
def first_breach(trials: int, bound: float) -> int:
    """Return from how many hits on evidence against `rate <= bound` is a breach: by bisection, it grows with them."""
    low, high = math.floor(bound * trials), trials + 1
    while high - low > 1:
        middle = (low + high) // 2
        if log_evidence_above(middle, trials, bound) >= -math.log(ALPHA):
            high = middle
        else:
            low = middle
    return high


@pytest.mark.parametrize(("rate", "allowed"), [(0.2, "as control"), (0.1, "0.2 more"), (0.3, "twice")])
def test_watched_after_every_pair_of_requests_equal_arms_are_told_apart_at_most_once_in_20(rate: float, allowed: str):
    border = ALLOWANCES[allowed](rate)
    alive, crossed = np.array([[1.0]]), 0.0
    for pairs in range(1, 31):
        after = np.zeros((pairs + 1, pairs + 1))
        for hit, p in ((0, 1 - border), (1, border)):
            for control_hit, control_p in ((0, 1 - rate), (1, rate)):
                after[hit : pairs + hit, control_hit : pairs + control_hit] += alive * p * control_p
        for hits, control_hits in zip(*np.nonzero(after), strict=True):
            counts = (int(hits), pairs), (int(control_hits), pairs)
            if log_evidence_rate(*counts, ALLOWANCES[allowed]) >= -math.log(ALPHA):
                crossed += after[hits, control_hits]
                after[hits, control_hits] = 0
        alive = after
    assert 0 < crossed <= ALPHA


RUNS, REQUESTS = 300, 30_000
LOOKS = np.unique(np.geomspace(10, REQUESTS, 25).astype(int))
"""Evidence moves with the logarithm of the count: looks between these find little more."""


@pytest.mark.parametrize(
    ("control_rate", "rate", "allowed"),
    [(0.01, 0.01, "as control"), (0.01, 0.02, "0.01 more"), (0.04, 0.05, "a quarter more"), (0.02, 0.01, "as control")],
)
def test_of_300_simulated_pairs_of_arms_at_the_border_at_most_one_in_20_is_called_a_breach(
    control_rate: float, rate: float, allowed: str
):
    chance = np.random.default_rng(1)
    steps = np.diff(LOOKS, prepend=0)
    hits = chance.binomial(steps, rate, (RUNS, len(LOOKS))).cumsum(axis=1)
    control_hits = chance.binomial(steps, control_rate, (RUNS, len(LOOKS))).cumsum(axis=1)
    breached = sum(
        any(
            h / n > ALLOWANCES[allowed](c / n)
            and log_evidence_rate((h, n), (c, n), ALLOWANCES[allowed]) >= -math.log(ALPHA)
            for h, c, n in zip(own.tolist(), controls.tolist(), LOOKS.tolist(), strict=True)
        )
        for own, controls in zip(hits, control_hits, strict=True)
    )
    assert breached <= ALPHA * RUNS


def test_of_2000_streams_watched_after_every_one_of_5000_requests_at_most_one_in_20_is_called_a_breach():
    hits = (np.random.default_rng(1).random((2_000, 5_000), dtype=np.float32) < 0.01).cumsum(axis=1, dtype=np.int32)
    bounds = np.array([first_breach(trials, 0.01) for trials in range(1, 5_001)])
    breached = int((hits >= bounds).any(axis=1).sum())
    assert 0 < breached <= ALPHA * 2_000


def binned_latencies(chance: Any, runs: int, factor: float) -> Any:
    """Draw counts by bin, between looks, of lognormal latencies with a median of 20 ms times a factor."""
    edges = [bin_edge_ms(index) for index in range(260)]
    shares = np.diff(stats.lognorm.cdf(edges, 0.5, scale=20 * factor), prepend=0)
    return chance.multinomial(np.diff(LOOKS, prepend=0), shares / shares.sum(), (runs, len(LOOKS))).cumsum(axis=1)


def bins_of(row: Any) -> dict[int, int]:
    return {int(index): int(row[index]) for index in np.nonzero(row)[0]}


def allowing(factor: float) -> Callable[[int], int]:
    return lambda edge: latency_bin(math.ceil(bin_edge_ms(edge) * factor * 1000))


@pytest.mark.parametrize(("quantile", "factor"), [(0.5, 1.0), (0.99, 1.0), (0.9, 1.25)])
def test_of_100_simulated_pairs_of_equal_quantiles_at_most_one_in_20_is_called_a_breach(quantile: float, factor: float):
    chance = np.random.default_rng(1)
    own, controls = binned_latencies(chance, 100, factor), binned_latencies(chance, 100, 1.0)
    breached = sum(
        any(
            log_evidence_quantile(bins_of(o), bins_of(c), quantile, allowing(factor)) >= -math.log(ALPHA)
            for o, c in zip(*run, strict=True)
        )
        for run in zip(own[:, ::3], controls[:, ::3], strict=True)
    )
    assert breached <= ALPHA * 100


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_a_doubled_latency_is_found_in_each_of_20_simulations(quantile: float):
    chance = np.random.default_rng(1)
    own, controls = binned_latencies(chance, 20, 2.0), binned_latencies(chance, 20, 1.0)
    for o, c in zip(own[:, -1], controls[:, -1], strict=True):
        assert log_evidence_quantile(bins_of(o), bins_of(c), quantile, allowing(1.25)) > 50
        assert log_evidence_quantile(bins_of(c), bins_of(o), quantile, allowing(1.25)) == 0


def test_of_200_simulated_pairs_of_equal_distributions_at_most_one_in_20_is_called_different():
    chance = np.random.default_rng(1)
    own, controls = binned_latencies(chance, 200, 1.0), binned_latencies(chance, 200, 1.0)
    beyond = [
        max(distance_beyond_chance(bins_of(o), bins_of(c), ALPHA) for o, c in zip(*run, strict=True))
        for run in zip(own[:, ::4], controls[:, ::4], strict=True)
    ]
    assert sum(distance > 0 for distance in beyond) <= ALPHA * 200


@given(COUNTS, COUNTS, st.floats(0, 1))
def test_evidence_is_finite_or_says_that_a_rate_is_impossible(hits: int, misses: int, rate: float):
    for evidence in (log_evidence_above(hits, hits + misses, rate), log_evidence_below(hits, hits + misses, rate)):
        assert not math.isnan(evidence)
        assert math.isfinite(evidence) or rate in (0, 1) or rate < 1e-300


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(sorted(ALLOWANCES)))
@settings(deadline=None)
def test_evidence_between_rates_is_finite_for_all_counts(
    hits: int, misses: int, control_hits: int, control_misses: int, allowed: str
):
    counts = (hits, hits + misses), (control_hits, control_hits + control_misses)
    assert math.isfinite(log_evidence_rate(*counts, ALLOWANCES[allowed]))


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(sorted(ALLOWANCES)))
@settings(deadline=None)
def test_evidence_of_a_breach_grows_with_the_treatments_hits_and_shrinks_with_controls(
    hits: int, misses: int, control_hits: int, control_misses: int, allowed: str
):
    # Ten of each that count: the mixture's price is a little uneven where a rate is about 0 or 1.
    trials, control_hits = hits + misses + 10, control_hits + 10
    control_trials = control_hits + control_misses
    evidence = log_evidence_rate((hits, trials), (control_hits, control_trials), ALLOWANCES[allowed])
    more = log_evidence_rate((hits + 1, trials), (control_hits, control_trials), ALLOWANCES[allowed])
    fewer = log_evidence_rate((hits, trials), (control_hits - 1, control_trials), ALLOWANCES[allowed])
    tolerance = 1e-3 + 1e-9 * (trials + control_trials)
    if evidence >= -math.log(ALPHA):
        assert more >= evidence - tolerance
        assert fewer >= evidence - tolerance


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0.001, 0.999))
def test_more_hits_never_speak_less_against_a_rate_that_they_exceed(trials: int, hits: int, rate: float):
    hits = min(hits, trials - 1)
    if log_evidence_above(hits, trials, rate) > 0:
        assert log_evidence_above(hits + 1, trials, rate) > log_evidence_above(hits, trials, rate)


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_below_is_above_of_the_misses(hits: int, misses: int, rate: float):
    assert log_evidence_below(hits, hits + misses, rate) == log_evidence_above(misses, hits + misses, 1 - rate)


BINS = st.dictionaries(st.integers(-20, 40), st.integers(1, 10_000), max_size=8)


@given(BINS, BINS, st.sampled_from([0.5, 0.9, 0.99]), st.integers(0, 10))
def test_evidence_of_a_quantile_shrinks_with_what_is_allowed_and_with_controls_own_latency(
    treatment: dict[int, int], control: dict[int, int], quantile: float, slack: int
):
    evidence = log_evidence_quantile(treatment, control, quantile, lambda edge: edge)
    assert evidence >= 0
    assert log_evidence_quantile(treatment, control, quantile, lambda edge: edge + slack) <= evidence
    slower = {index + slack: count for index, count in control.items()}
    assert log_evidence_quantile(treatment, slower, quantile, lambda edge: edge) <= evidence


@given(BINS, BINS, st.floats(1e-6, 0.5))
def test_a_distance_is_the_same_from_either_side_and_never_more_than_is_seen(
    one: dict[int, int], other: dict[int, int], alpha: float
):
    beyond = distance_beyond_chance(one, other, alpha)
    assert beyond == pytest.approx(distance_beyond_chance(other, one, alpha), abs=ROUNDING)
    assert 0 <= beyond < 1
    if one and other:
        assert beyond <= max(abs(share_up_to(index, one) - share_up_to(index, other)) for index in {*one, *other})


def share_up_to(index: int, counts: dict[int, int]) -> float:
    return sum(count for other, count in counts.items() if other <= index) / sum(counts.values())
