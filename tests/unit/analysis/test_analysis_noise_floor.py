import numpy as np
import pytest
from scipy import stats

from analysis.divergence import population_stability_index
from analysis.noise_floor import (
    benjamini_hochberg,
    out_of_range_noise,
    out_of_range_p_value,
    psi_noise_floor,
    share_increase_noise,
)


def test_the_noise_floor_is_the_chi_square_point_scaled_by_both_sample_sizes():
    # The 95 % point of chi-square with 19 degrees of freedom is 30.1435.
    assert psi_noise_floor(1_000, 500, 20) == pytest.approx(30.1435 * (1 / 1_000 + 1 / 500), rel=1e-5)


def test_one_bin_has_no_noise():
    assert psi_noise_floor(1_000, 1_000, 1) == 0.0


@pytest.mark.parametrize("sizes", [(2_000, 2_000), (5_000, 500), (600, 20_000)])
def test_without_drift_psi_passes_the_floor_in_about_one_comparison_of_twenty(sizes):
    rng = np.random.default_rng(7)
    n, m = sizes
    share = np.full(20, 1 / 20)
    floor = psi_noise_floor(n, m, 20)
    pairs = zip(rng.multinomial(n, share, size=2_000), rng.multinomial(m, share, size=2_000), strict=True)
    alarms = np.mean([population_stability_index(p.astype(float), q.astype(float)) > floor for p, q in pairs])
    assert 0.03 < alarms < 0.08


def test_benjamini_hochberg_agrees_with_scipy_and_keeps_the_order():
    p_values = [0.04, 0.001, 0.5, 0.03, 0.9, 0.001]
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_adjusting_no_p_value_gives_none():
    assert benjamini_hochberg([]) == []


def test_chance_puts_more_rows_out_of_range_than_its_allowance_in_at_most_one_window_of_a_thousand():
    rng = np.random.default_rng(11)
    n, m = 200, 1_000
    baseline = rng.normal(size=(2_000, n))
    window = rng.normal(size=(2_000, m))
    low, high = baseline.min(axis=1, keepdims=True), baseline.max(axis=1, keepdims=True)
    shares = np.mean((window < low) | (window > high), axis=1)
    assert np.mean(shares > out_of_range_noise(n, m)) <= 0.002


@pytest.mark.parametrize(("n", "m"), [(2, 5), (100, 300), (569, 40_000), (5_000, 60)])
def test_the_chance_of_values_out_of_range_agrees_with_scipys_beta_binomial(n, m):
    for outside in {1, 2, m // 10, m - 1, m}:
        oracle = stats.betabinom.sf(outside - 1, m, 2, n - 1) if outside else 1.0
        assert out_of_range_p_value(n, m, outside) == pytest.approx(oracle, abs=1e-9)


def test_a_baseline_of_one_value_makes_no_claim_about_range():
    assert out_of_range_noise(1, 1_000) == 1.0


def test_chance_raises_a_share_past_its_noise_in_about_one_window_of_a_thousand():
    rng = np.random.default_rng(13)
    n, m, share = 3_000, 1_000, 0.1
    before, now = rng.binomial(n, share, 20_000) / n, rng.binomial(m, share, 20_000) / m
    past = [q - p > share_increase_noise(p, n, q, m) for p, q in zip(before, now, strict=True)]
    assert np.mean(past) < 0.003


@pytest.mark.parametrize(
    "noise",
    [
        lambda: psi_noise_floor(0, 5, 4),
        lambda: share_increase_noise(0, 0, 0, 1),
        lambda: out_of_range_noise(5, 0),
        lambda: out_of_range_p_value(0, 5, 1),
    ],
)
def test_the_noise_of_an_empty_sample_is_refused(noise):
    with pytest.raises(ValueError, match="empty"):
        noise()
