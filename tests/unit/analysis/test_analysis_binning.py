import numpy as np
import pytest

from analysis.binning import cut_numeric_bins, numeric_places


def counts(values, bins):
    return np.bincount(numeric_places(values, bins), minlength=bins.places).tolist()


def test_a_smooth_column_is_cut_into_bins_of_equally_many_rows():
    values = np.sort(np.random.default_rng(0).normal(size=10_000))
    bins = cut_numeric_bins(values, 20)
    assert counts(values, bins) == [0, *[500] * 20, 0]


def test_each_value_has_its_own_bin_where_there_are_no_more_values_than_bins():
    values = np.repeat([0.0, 1.0, 7.0], [970, 20, 10])
    bins = cut_numeric_bins(values, 20)
    assert bins.lower_edges == (0.0, 1.0, 7.0)
    assert counts(values, bins) == [0, 970, 20, 10, 0]


def test_a_value_that_most_rows_share_leaves_the_other_rows_bins_of_their_own():
    rng = np.random.default_rng(1)
    values = np.sort(np.concatenate([rng.uniform(-5, -1, 100), np.zeros(9_000), rng.uniform(1, 9, 900)]))
    bins = cut_numeric_bins(values, 20)
    found = counts(values, bins)
    assert 9_000 in found
    assert sum(1 for count in found if 0 < count < 200) >= 10


def test_a_constant_column_has_one_bin_and_everything_else_is_out_of_range():
    bins = cut_numeric_bins(np.full(10, 3.0), 20)
    assert counts(np.array([2.9, 3.0, 3.1, np.inf, -np.inf]), bins) == [2, 1, 2]


def test_an_edge_belongs_to_the_bin_above_it_and_the_greatest_value_to_the_last_bin():
    bins = cut_numeric_bins(np.arange(100.0), 4)
    assert bins.lower_edges == (0.0, 25.0, 50.0, 75.0)
    assert numeric_places(np.array([24.9, 25.0, 99.0, 99.1]), bins).tolist() == [1, 2, 4, 5]


def test_a_bins_centre_is_the_mean_of_its_baseline_values():
    assert cut_numeric_bins(np.arange(100.0), 4).centres == pytest.approx((12.0, 37.0, 62.0, 87.0))


def test_values_near_the_largest_float_do_not_overflow():
    values = np.sort(np.random.default_rng(2).uniform(-1, 1, 1_000) * 1.7e308)
    bins = cut_numeric_bins(values, 20)
    assert np.isfinite(bins.centres).all()
    assert sum(counts(values, bins)) == 1_000
