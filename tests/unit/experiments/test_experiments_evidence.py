import math
from collections.abc import Callable

import pytest

from experiments.evidence import (
    distance_beyond_chance,
    log_evidence_above,
    log_evidence_below,
    log_evidence_quantile,
    log_evidence_rate,
)

Allowed = Callable[[float], float]
MANY = 10**9


def plus_a_hundredth(rate: float) -> float:
    return rate + 0.01


def a_quarter_more(rate: float) -> float:
    return 1.25 * rate


def by_brute_force(treatment: tuple[int, int], control: tuple[int, int], allowed: Allowed) -> float:
    """Return the evidence by its definition: the best of the null hypothesis is looked for on ever finer grids."""

    def log_likelihood(rate: float, hits: int, trials: int) -> float:
        return (hits * math.log(rate) if hits else 0.0) + (
            (trials - hits) * math.log1p(-rate) if hits < trials else 0.0
        )

    def log_mixture(hits: int, trials: int) -> float:
        # Krichevsky and Trofimov's, one request at a time.
        found = 0.0
        for seen in range(trials):
            found += math.log(((seen if seen < hits else seen - hits) + 0.5) / (seen + 1))
        return found

    def of_control_rate(control_rate: float) -> float:
        treatment_rate = min(allowed(control_rate), max(treatment[0] / treatment[1], 1e-12), 1 - 1e-12)
        return log_likelihood(treatment_rate, *treatment) + log_likelihood(control_rate, *control)

    low, high = 1e-12, 1 - 1e-12
    for _ in range(8):
        grid = [low + (high - low) * step / 400 for step in range(401)]
        best = max(range(401), key=lambda step: of_control_rate(grid[step]))
        low, high = grid[max(0, best - 1)], grid[min(400, best + 1)]
    return log_mixture(*treatment) + log_mixture(*control) - of_control_rate((low + high) / 2)


@pytest.mark.parametrize("allowed", [plus_a_hundredth, a_quarter_more])
@pytest.mark.parametrize(
    ("treatment", "control"),
    [
        ((30, 1_000), (2, 1_000)),
        ((5, 20), (1, 20)),
        ((10, 10), (1, 10)),
        ((200, 400), (90, 300)),
        ((3, 100), (30, 900)),
        ((900, 9_000), (300, 9_000)),
    ],
)
def test_evidence_is_the_mixtures_likelihood_over_the_best_of_the_null_hypothesis(
    treatment: tuple[int, int], control: tuple[int, int], allowed: Allowed
):
    found = log_evidence_rate(treatment, control, allowed)
    assert found == pytest.approx(by_brute_force(treatment, control, allowed), abs=1e-6)


@pytest.mark.parametrize(
    ("hits", "trials", "rate", "evidence"),
    [(0, 0, 0.1, 1), (1, 1, 0.1, 0.5 / 0.1), (2, 2, 0.1, 0.375 / 0.01), (1, 2, 0.1, 0.125 / 0.09), (0, 1, 0.1, 0.5)],
)
def test_evidence_above_a_rate_is_that_of_the_mixture_worked_out_by_hand(
    hits: int, trials: int, rate: float, evidence: float
):
    assert math.exp(log_evidence_above(hits, trials, rate)) == pytest.approx(evidence)


@pytest.mark.parametrize("counts", [((0, 0), (0, 0)), ((5, 10), (0, 0)), ((0, 0), (5, 10))])
def test_an_arm_without_requests_is_no_evidence(counts: tuple[tuple[int, int], tuple[int, int]]):
    assert log_evidence_rate(*counts, plus_a_hundredth) == 0


@pytest.mark.parametrize("allowed", [plus_a_hundredth, a_quarter_more])
def test_a_treatment_within_what_is_allowed_is_no_evidence(allowed: Allowed):
    assert log_evidence_rate((10, 1_000), (10, 1_000), allowed) <= 0
    assert log_evidence_rate((0, 1_000), (10, 1_000), allowed) <= 0


@pytest.mark.parametrize("allowed", [plus_a_hundredth, a_quarter_more, lambda rate: rate])
@pytest.mark.parametrize("hits", [0, 1, MANY // 2, MANY - 1, MANY])
@pytest.mark.parametrize("control_hits", [0, 1, MANY // 2, MANY - 1, MANY])
def test_a_thousand_million_requests_give_finite_evidence_of_the_right_sign(
    hits: int, control_hits: int, allowed: Allowed
):
    evidence = log_evidence_rate((hits, MANY), (control_hits, MANY), allowed)
    assert math.isfinite(evidence)
    if hits / MANY <= allowed(control_hits / MANY):
        assert evidence <= 0
    elif hits - control_hits > MANY // 3:
        assert evidence > 1_000_000


def test_evidence_against_an_impossible_rate_is_infinite():
    assert log_evidence_above(1, 10, 0.0) == math.inf
    assert log_evidence_below(9, 10, 1.0) == math.inf


def test_3_percent_beside_0_2_percent_and_a_hundredth_allowed_are_seen_within_2000_requests_and_not_within_500():
    assert log_evidence_rate((60, 2_000), (4, 2_000), plus_a_hundredth) > math.log(20)
    assert log_evidence_rate((15, 500), (1, 500), plus_a_hundredth) < math.log(20)


SLOW, FAST = {50: 1_000}, {20: 1_000}


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_a_treatment_that_is_slower_throughout_is_found_and_a_faster_one_is_not(quantile: float):
    assert log_evidence_quantile(SLOW, FAST, quantile, lambda edge: edge + 5) > math.log(20)
    assert log_evidence_quantile(FAST, SLOW, quantile, lambda edge: edge + 5) == 0
    assert log_evidence_quantile(FAST, FAST, quantile, lambda edge: edge) == 0


def test_latencies_in_the_bin_that_is_allowed_are_allowed():
    assert log_evidence_quantile(SLOW, FAST, 0.9, lambda edge: 50) == 0
    assert log_evidence_quantile(SLOW, FAST, 0.9, lambda edge: 49) > math.log(20)


@pytest.mark.parametrize(("treatment", "control"), [({}, {}), (SLOW, {}), ({}, FAST), ({50: 5}, {20: 5})])
def test_too_few_latencies_are_no_evidence_of_a_99th_percentile(treatment: dict[int, int], control: dict[int, int]):
    assert log_evidence_quantile(treatment, control, 0.99, lambda edge: edge) == 0


def test_a_slow_half_is_found_in_the_median_and_a_slow_fiftieth_only_in_the_99th_percentile():
    control = {20: 10_000}
    halved, tailed = {20: 4_000, 50: 6_000}, {20: 9_600, 50: 400}
    found = [log_evidence_quantile(t, control, q, lambda edge: edge) > 3 for t in (halved, tailed) for q in (0.5, 0.99)]
    assert found == [True, True, False, True]


def test_a_thousand_million_latencies_give_finite_evidence():
    evidence = log_evidence_quantile({50: MANY}, {20: MANY}, 0.99, lambda edge: edge)
    assert math.isfinite(evidence)
    assert evidence > 1_000_000


def test_a_distance_beyond_chance_comes_near_the_distance_as_counts_grow():
    seen = [distance_beyond_chance({0: n, 5: n}, {0: n, 9: n}, 0.05) for n in (10, 1_000, 100_000, 10_000_000)]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(("one", "other"), [({}, {}), ({1: 5}, {}), ({}, {1: 5}), ({1: 10**6}, {1: 10**6})])
def test_distributions_that_are_equal_or_unknown_are_no_distance_apart(one: dict[int, int], other: dict[int, int]):
    assert distance_beyond_chance(one, other, 0.05) == 0


def test_a_distance_needs_more_counts_the_less_chance_may_explain():
    distances = [distance_beyond_chance({0: 5_000}, {1: 5_000}, alpha) for alpha in (0.5, 0.05, 0.0005)]
    assert distances == sorted(distances, reverse=True)
    assert len(set(distances)) == 3
