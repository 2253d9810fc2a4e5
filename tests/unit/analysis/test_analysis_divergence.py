import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from analysis.divergence import (
    chi_square,
    jensen_shannon_distance,
    kolmogorov_smirnov,
    population_stability_index,
    wasserstein,
)

REFERENCE = np.array([120.0, 80.0, 0.0, 300.0, 45.0])
CURRENT = np.array([60.0, 90.0, 12.0, 150.0, 0.0])
CENTRES = np.array([-1.0, 0.5, 2.0, 2.5, 9.0])


def expanded(counts):
    return np.repeat(CENTRES, counts.astype(int))


def test_psi_of_two_shares_that_moved_by_a_tenth_is_what_it_is_by_hand():
    # (0.1 - 0.2) ln(0.1 / 0.2) + 0 + (0.7 - 0.6) ln(0.7 / 0.6) = 0.069315 + 0.015415
    psi = population_stability_index(np.array([10.0, 20.0, 70.0]), np.array([40.0, 40.0, 120.0]))
    assert psi == pytest.approx(0.0847298, abs=1e-7)


def test_an_empty_bin_counts_as_half_a_row_in_psi():
    # Shares 50/50.5 and 0.5/50.5 against 1/2 and 1/2.
    psi = population_stability_index(np.array([50.0, 0.0]), np.array([25.0, 25.0]))
    p = np.array([50.0, 0.5]) / 50.5
    assert psi == pytest.approx((p[0] - 0.5) * np.log(p[0] / 0.5) + (p[1] - 0.5) * np.log(p[1] / 0.5))


def test_a_bin_that_is_empty_on_both_sides_changes_no_statistic():
    wider = np.insert(REFERENCE, 2, 0.0), np.insert(CURRENT, 2, 0.0)
    for statistic in (population_stability_index, jensen_shannon_distance, kolmogorov_smirnov):
        assert statistic(*wider) == pytest.approx(statistic(REFERENCE, CURRENT))
    assert chi_square(*wider) == chi_square(REFERENCE, CURRENT)


def test_jensen_shannon_agrees_with_scipy():
    assert jensen_shannon_distance(REFERENCE, CURRENT) == pytest.approx(jensenshannon(REFERENCE, CURRENT, base=2))


def test_samples_with_nothing_in_common_are_at_jensen_shannon_distance_one():
    assert jensen_shannon_distance(np.array([7.0, 0.0]), np.array([0.0, 3.0])) == pytest.approx(1.0)


def test_kolmogorov_smirnov_agrees_with_scipy_on_the_expanded_samples():
    oracle = stats.ks_2samp(expanded(REFERENCE), expanded(CURRENT)).statistic
    assert kolmogorov_smirnov(REFERENCE, CURRENT) == pytest.approx(oracle)


def test_wasserstein_agrees_with_scipy_on_the_expanded_samples():
    oracle = stats.wasserstein_distance(expanded(REFERENCE), expanded(CURRENT))
    assert wasserstein(REFERENCE, CURRENT, CENTRES) == pytest.approx(oracle)


def test_chi_square_agrees_with_scipy():
    oracle = stats.chi2_contingency(np.stack([REFERENCE, CURRENT]), correction=False)
    found = chi_square(REFERENCE, CURRENT)
    assert (found.statistic, found.degrees, found.p_value) == pytest.approx(
        (oracle.statistic, oracle.dof, oracle.pvalue)
    )


def test_chi_square_of_a_single_occupied_bin_says_nothing_changed():
    assert chi_square(np.array([5.0, 0.0]), np.array([9.0, 0.0])).p_value == 1.0


@pytest.mark.parametrize(
    "statistic", [population_stability_index, jensen_shannon_distance, kolmogorov_smirnov, chi_square]
)
@pytest.mark.parametrize(
    ("reference", "current", "problem"),
    [([1.0, 2.0], [1.0, 2.0, 3.0], "must agree"), ([0.0, 0.0], [1.0, 2.0], "empty"), ([1.0, 2.0], [0.0, 0.0], "empty")],
)
def test_samples_that_cannot_be_compared_are_refused(statistic, reference, current, problem):
    with pytest.raises(ValueError, match=problem):
        statistic(np.array(reference), np.array(current))


def test_wasserstein_refuses_centres_of_other_bins():
    with pytest.raises(ValueError, match="4 centres for 5 bins"):
        wasserstein(REFERENCE, CURRENT, CENTRES[:4])
