import numpy as np
import pytest

from analysis.experiment_results.intervals import Interval
from analysis.experiment_results.quantiles import difference_interval, distribution, quantile_interval


def test_weighted_quantiles_are_numpys_of_repeated_values():
    rng = np.random.default_rng(1)
    values, weights = rng.integers(0, 50, 200).astype("f8"), rng.integers(1, 5, 200)
    found = distribution(values, weights.astype("f8"))
    for share in (0.05, 0.5, 0.95, 0.99, 1.0):
        repeated = np.repeat(values, weights)
        assert found.quantile(share) == np.quantile(repeated, share, method="inverted_cdf")


def test_without_any_weight_there_is_no_distribution():
    with pytest.raises(ValueError, match="weight"):
        distribution(np.array([1.0]), np.array([0.0]))


def test_the_interval_of_a_median_covers_it_as_often_as_it_says_where_units_have_many_rows():
    rng = np.random.default_rng(2)
    covered = rows_covered = 0
    for _ in range(400):
        level = rng.normal(size=200)
        values = level.repeat(20) + 0.5 * rng.normal(size=4_000)
        found = distribution(values, np.ones(4_000))
        below = (values <= found.quantile(0.5)).reshape(200, 20).sum(axis=1)
        error = np.std(below / 20, ddof=1) / np.sqrt(200)
        interval = quantile_interval(found, 0.5, error, 1.96)
        covered += interval.low <= 0 <= interval.high
        naive = quantile_interval(found, 0.5, np.sqrt(0.25 / 4_000), 1.96)
        rows_covered += naive.low <= 0 <= naive.high
    assert covered / 400 >= 0.92
    assert rows_covered / 400 < 0.6


def test_a_difference_takes_the_far_bound_of_each_side():
    found = difference_interval(10.0, Interval(9.0, 14.0), 20.0, Interval(17.0, 21.0))
    assert found == Interval(10 - np.hypot(3, 4), 10 + np.hypot(1, 1))


def test_bounds_beyond_all_values_are_the_extremes():
    found = distribution(np.arange(10.0), np.ones(10))
    assert quantile_interval(found, 0.99, 0.1, 2.0) == Interval(7.0, 9.0)
