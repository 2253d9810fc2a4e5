import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower

from analysis.experiment_results.contrast import contrast
from analysis.experiment_results.intervals import anytime_factor, fixed_factor, tuning
from analysis.experiment_results.power import days_until, detectable, sample_size
from tests.unit.analysis.experiment_results.unit_arrays import columns, stratum


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.3, 0.2)])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.95)])
def test_the_sample_size_is_that_of_statsmodels(shares, alpha, power):
    found = sample_size(0.2, 0.4, mde_rel=0.05, alpha=alpha, power=power, shares=shares)
    # statsmodels counts the first sample, and takes the ratio of the second to it.
    control = NormalIndPower().solve_power(0.01 / 0.4, alpha=alpha, power=power, ratio=shares[1] / shares[0])
    assert found.units * shares[0] == pytest.approx(control, rel=1e-4)


def test_several_treatments_divide_alpha_and_the_smallest_arm_decides():
    three = sample_size(1.0, 2.0, mde_rel=0.1, alpha=0.05, power=0.8, shares=(0.5, 0.3, 0.2))
    least = sample_size(1.0, 2.0, mde_rel=0.1, alpha=0.025, power=0.8, shares=(0.5, 0.2))
    assert three == least


def test_at_the_size_of_the_anytime_plan_the_interval_finds_the_effect_with_the_planned_power():
    size = sample_size(1.0, 1.0, mde_rel=0.1, alpha=0.05, power=0.8, shares=(0.5, 0.5))
    error = np.sqrt(4 / size.units_anytime)
    assert detectable(error, reach=anytime_factor(tuning(0.05), 0.05), power=0.8) == pytest.approx(0.1, rel=1e-3)
    assert 1.8 < size.units_anytime / size.units < 2.0


def test_a_mean_of_zero_has_no_relative_effect_that_could_be_planned_for():
    assert sample_size(0.0, 1.0, mde_rel=0.1, alpha=0.05, power=0.8, shares=(0.5, 0.5)) is None


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.0), ()])
def test_shares_that_are_no_split_are_refused(shares):
    with pytest.raises(ValueError, match="at least two arms"):
        sample_size(1.0, 1.0, mde_rel=0.1, alpha=0.05, power=0.8, shares=shares)


def test_an_effect_that_is_called_detectable_is_found_with_that_power():
    rng = np.random.default_rng(1)
    found = contrast([stratum(columns(rng.normal(size=500)), columns(rng.normal(size=500)))], None)
    reach = fixed_factor(found.degrees, 0.05)
    effect = detectable(found.standard_error, reach=reach, power=0.8)
    estimates = rng.normal(effect, found.standard_error, 20_000)
    assert np.mean(np.abs(estimates) > reach * found.standard_error) == pytest.approx(0.8, abs=0.01)


def test_days_are_those_of_the_past_played_again():
    assert days_until(150, [100, 50, 25, 25]) == 2
    assert days_until(125, [100, 50, 25, 25]) == 1.5
    assert days_until(250, [100, 50, 25, 25]) == 6  # then at the second half's rate
    assert days_until(1, [0, 0, 5, 0]) == pytest.approx(2.2)


def test_where_no_unit_comes_any_more_there_is_no_day():
    assert days_until(10, [5, 0]) is None
    assert days_until(10, []) is None
