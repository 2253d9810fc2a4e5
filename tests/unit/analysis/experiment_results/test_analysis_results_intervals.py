import numpy as np
import pytest
from scipy import stats

from analysis.experiment_results.intervals import (
    anytime_factor,
    anytime_p_value,
    clock,
    effective_units,
    fixed_factor,
    fixed_p_value,
    planned_effective_units,
    tuning,
)


@pytest.mark.parametrize(("t", "rho", "alpha"), [(100, 0.1, 0.05), (50_000, 0.01, 0.01), (7, 1.0, 0.1)])
def test_the_anytime_radius_is_that_of_the_paper(t, rho, alpha):
    # Waudby-Smith et al. 2021, theorem 2.2, with a standard deviation of 1.
    paper = np.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * np.log(np.sqrt(t * rho**2 + 1) / alpha))
    assert anytime_factor(t * rho**2, alpha) / np.sqrt(t) == pytest.approx(paper)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_the_clock_is_tuned_so_that_the_interval_is_narrowest_at_the_planned_size(alpha):
    grid = np.geomspace(0.01, 100, 2_001)
    factors = [anytime_factor(clock(share, 1.0, alpha), alpha) for share in grid]
    assert grid[int(np.argmin(factors))] == pytest.approx(1.0, abs=0.01)


def test_before_anything_is_seen_the_anytime_interval_is_infinite():
    assert anytime_factor(0.0, 0.05) == np.inf


@pytest.mark.parametrize("z", [2.5, 3.1, 5.0])
def test_the_anytime_p_value_is_the_alpha_at_which_the_interval_just_holds_zero(z):
    for place in (0.5, tuning(0.05), 300.0):
        p_value = anytime_p_value(z, place)
        if p_value < 1:
            assert anytime_factor(place, p_value) == pytest.approx(z)


def test_an_anytime_p_value_never_exceeds_one():
    assert anytime_p_value(0.0, 50.0) == 1.0


def test_the_fixed_horizon_is_students():
    assert fixed_factor(12.5, 0.05) == pytest.approx(stats.t.ppf(0.975, 12.5))
    assert fixed_p_value(-2.2, 12.5) == pytest.approx(2 * stats.t.sf(2.2, 12.5))


def test_a_plan_of_an_even_split_is_worth_a_quarter_of_its_units_as_pairs():
    assert planned_effective_units(1_000, 2) == 250
    assert planned_effective_units(1_000, 4) == 125
    assert effective_units(990, 10) == pytest.approx(9.9)
    assert effective_units(0, 0) == 0


def test_without_any_planned_unit_there_is_no_clock():
    with pytest.raises(ValueError, match="no units are planned"):
        clock(10, 0, 0.05)
