import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.binning import cut_numeric_bins, numeric_places
from analysis.divergence import (
    chi_square,
    jensen_shannon_distance,
    kolmogorov_smirnov,
    population_stability_index,
    wasserstein,
)
from analysis.noise_floor import benjamini_hochberg
from analysis.profile import decode_profile, encode_profile
from analysis.profiling import make_profile

FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 10**9)


@st.composite
def histograms(draw):
    """Two samples over the same bins, neither empty."""
    size = draw(st.integers(1, 30))
    pair = [draw(st.lists(COUNT, min_size=size, max_size=size).filter(any)) for _ in range(2)]
    return tuple(np.asarray(counts, dtype=np.float64) for counts in pair)


@given(histograms())
def test_psi_is_symmetric_and_never_negative(pair):
    reference, current = pair
    forth, back = population_stability_index(reference, current), population_stability_index(current, reference)
    assert forth == pytest.approx(back)
    assert forth >= 0


@given(histograms(), st.integers(1, 1_000))
def test_every_distance_of_a_filled_sample_from_a_multiple_of_itself_is_zero(pair, times):
    counts = pair[0] + 1
    more = counts * times
    assert population_stability_index(counts, more) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon_distance(counts, more) == pytest.approx(0, abs=1e-7)
    assert kolmogorov_smirnov(counts, more) == pytest.approx(0, abs=1e-12)
    assert chi_square(counts, more).p_value == pytest.approx(1)


@given(histograms())
def test_bounded_distances_keep_their_bounds(pair):
    assert 0 <= jensen_shannon_distance(*pair) <= 1
    assert 0 <= kolmogorov_smirnov(*pair) <= 1 + 1e-12


@given(histograms(), st.floats(0.1, 100))
def test_wasserstein_is_at_most_the_range_and_grows_with_the_unit(pair, unit):
    centres = np.arange(pair[0].size, dtype=np.float64)
    distance = wasserstein(*pair, centres)
    assert 0 <= distance <= max(centres) + 1e-9
    assert wasserstein(*pair, centres * unit) == pytest.approx(distance * unit)


@given(histograms(), st.randoms(use_true_random=False))
def test_the_order_of_bins_changes_neither_psi_nor_jensen_shannon(pair, random):
    order = list(range(pair[0].size))
    random.shuffle(order)
    for statistic in (population_stability_index, jensen_shannon_distance):
        assert statistic(pair[0][order], pair[1][order]) == pytest.approx(statistic(*pair))


@given(st.lists(FINITE, min_size=1, max_size=300), st.integers(2, 40))
def test_bins_hold_every_baseline_value_within_range_and_rise_strictly(values, bins_max):
    ordered = np.sort(np.asarray(values))
    bins = cut_numeric_bins(ordered, bins_max)
    edges = np.asarray(bins.lower_edges)
    assert 1 <= len(edges) <= bins_max
    assert (edges[1:] > edges[:-1]).all()
    places = numeric_places(ordered, bins)
    assert places.min() >= 1
    assert places.max() <= len(edges)
    assert len(set(places.tolist())) == len(edges)


@given(st.lists(FINITE, min_size=1, max_size=100), st.integers(2, 10))
def test_centres_lie_in_their_bins(values, bins_max):
    bins = cut_numeric_bins(np.sort(np.asarray(values)), bins_max)
    uppers = (*bins.lower_edges[1:], bins.upper)
    assert all(low <= c <= high for low, c, high in zip(bins.lower_edges, bins.centres, uppers, strict=True))


COLUMNS = st.one_of(
    st.lists(st.none() | st.floats(), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.none() | st.text(), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.bool_())),
)


@given(COLUMNS, st.integers(2, 20), st.integers(1, 20))
def test_a_profile_of_any_column_accounts_for_every_row_and_survives_its_file(column, bins, categories_max):
    profile = make_profile(pa.table({"v.x": column}), model="m", bins=bins, categories_max=categories_max)
    (found,) = profile.features
    assert found.nulls + sum(found.counts) == len(column)
    assert decode_profile(encode_profile(profile)) == profile


@given(COLUMNS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_in_a_profile(column, random):
    order = list(range(len(column)))
    random.shuffle(order)
    shuffled = make_profile(pa.table({"v.x": column.take(order)}), model="m")
    assert encode_profile(shuffled) == encode_profile(make_profile(pa.table({"v.x": column}), model="m"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_p_values_are_never_less_than_the_raw_and_keep_their_order(p_values):
    adjusted = benjamini_hochberg(p_values)
    assert all(raw * (1 - 1e-12) <= value <= 1 for raw, value in zip(p_values, adjusted, strict=True))
    ranked = [value for _, value in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
