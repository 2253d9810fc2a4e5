from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from analysis import AnalysisError, make_profile
from analysis.errors import NoRows, TooManyRows, UnusableColumn
from analysis.profile import CategoryBins, NumericBins, encode_profile

GOLDEN = Path(__file__).parents[2] / "golden" / "profile.json"


def small_table():
    return pa.table(
        {
            "f.patient.age": pa.array([31.5, 40.0, None, 58.25, float("nan"), 40.0, 23.0, 77.0], pa.float32()),
            "f.patient.country": pa.array(["JP", "DE", "JP", None, "FR", "JP", "DE", "JP"]).dictionary_encode(),
            "f.patient.smoker": pa.array([True, False, False, None, True, False, False, False]),
            "f.patient.visits": pa.array([0, 3, 1, 1, None, 0, 0, 2], pa.int64()),
            "y.score": pa.array([0.125, 0.5, 0.25, 0.75, 0.5, 0.5, 0.0625, 0.9375], pa.float32()),
            "sample_weight": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            "label": [0, 1, 0, 1, 1, 0, 0, 1],
        }
    )


def profile_of(values, **options):
    return make_profile(pa.table({"view.feature": values}), model="m", **options).features[0]


def test_a_profile_is_written_as_the_golden_file_has_it():
    profile = make_profile(small_table(), model="diagnosis", version="1", bins=4, categories_max=2)
    assert encode_profile(profile).decode() == GOLDEN.read_text()


def test_features_lose_their_prefix_and_columns_that_are_no_features_are_left_alone():
    profile = make_profile(small_table(), model="diagnosis")
    names = [column.name for column in profile.features]
    assert names == ["patient.age", "patient.country", "patient.smoker", "patient.visits"]


def test_a_bare_name_and_a_prefixed_one_make_the_same_profile():
    table = small_table()
    bare = table.rename_columns([name.removeprefix("f.") for name in table.column_names])
    assert make_profile(bare, model="m") == make_profile(table, model="m")


def test_scores_carry_the_version_that_gave_them():
    (score,) = make_profile(small_table(), model="diagnosis", version="7").scores
    assert (score.version, score.column.name) == ("7", "score")


def test_nulls_and_nans_are_counted_apart_from_values():
    age = make_profile(small_table(), model="m").features[0]
    assert (age.rows, age.nulls, sum(age.counts)) == (8, 2.0, 6.0)


def test_infinities_are_counted_out_of_range():
    column = profile_of(np.array([-np.inf, 1.0, 2.0, np.inf, np.inf]))
    assert (column.counts[0], column.counts[-1]) == (1.0, 2.0)


def test_an_integer_with_few_values_is_taken_as_categories_and_one_with_many_as_a_number():
    assert isinstance(profile_of(np.arange(200) % 20).bins, CategoryBins)
    assert isinstance(profile_of(np.arange(200) % 21).bins, NumericBins)


def test_categories_past_the_limit_are_counted_together():
    column = profile_of(["a"] * 5 + ["b"] * 3 + ["c", "d"], categories_max=2)
    assert isinstance(column.bins, CategoryBins)
    assert (column.bins.categories, column.counts) == (("a", "b"), (5.0, 3.0, 2.0))


def test_moments_are_of_the_finite_values():
    values = np.array([1.0, 2.0, 6.0])
    moments = profile_of(np.append(values, [np.nan, np.inf])).moments
    assert moments is not None
    assert (moments.mean, moments.std) == pytest.approx((values.mean(), values.std()))
    assert (moments.minimum, moments.maximum) == (1.0, 6.0)


def test_a_column_without_a_value_is_profiled_as_all_null():
    column = profile_of(pa.nulls(4, pa.float64()))
    assert (column.nulls, column.counts, column.moments) == (4.0, (0.0,), None)


def test_weighted_rows_are_scaled_to_the_effective_sample_size():
    weights = np.array([1.0, 1.0, 2.0, 4.0])
    table = pa.table({"v.x": ["a", "a", "b", "b"], "sample_weight": weights})
    column = make_profile(table, model="m").features[0]
    effective = weights.sum() ** 2 / np.square(weights).sum()
    assert sum(column.counts) == pytest.approx(effective)
    assert column.counts[0] / column.counts[1] == pytest.approx(6 / 2)


def test_the_order_of_rows_and_chunks_changes_nothing():
    table = small_table()
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    shuffled = pa.concat_tables([table.take(order[:3]), table.take(order[3:])])
    assert make_profile(shuffled, model="m") == make_profile(table, model="m")


def test_one_changed_value_changes_the_fingerprint():
    table = small_table()
    changed = table.set_column(3, "f.patient.visits", pa.array([0, 3, 1, 1, None, 0, 0, 3], pa.int64()))
    assert make_profile(changed, model="m").fingerprint != make_profile(table, model="m").fingerprint


def test_an_empty_table_is_refused():
    with pytest.raises(NoRows, match="no rows"):
        make_profile(small_table().slice(0, 0), model="m")


def test_a_table_without_features_is_refused_and_names_its_columns():
    with pytest.raises(UnusableColumn, match=r"no column has a feature's name\. Found: 'age', 'label'"):
        make_profile(pa.table({"age": [1], "label": [0]}), model="m")


def test_a_feature_with_two_columns_is_refused():
    with pytest.raises(UnusableColumn, match=r"'v\.x' is in column 'v\.x' already"):
        make_profile(pa.table({"v.x": [1], "f.v.x": [1]}), model="m")


def test_a_feature_of_unusable_type_is_refused_by_name():
    with pytest.raises(UnusableColumn, match=r"'v\.x': its type is list"):
        make_profile(pa.table({"v.x": [[1], [2]]}), model="m")


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, None], [1.0, float("inf")], ["1", "x"]])
def test_weights_that_weigh_nothing_are_refused(weights):
    with pytest.raises(UnusableColumn, match="sample_weight"):
        make_profile(pa.table({"v.x": [1, 2], "sample_weight": weights}), model="m")


@pytest.mark.parametrize("options", [{"bins": 1}, {"bins": 1_001}, {"categories_max": 0}])
def test_sizes_out_of_their_limits_are_refused(options):
    with pytest.raises(ValueError, match="give"):
        make_profile(small_table(), model="m", **options)


def test_a_table_past_the_limit_is_refused_before_a_column_is_read():
    class Endless:
        column_names = ("v.x",)
        num_rows = 10**12

        def column(self, name):
            raise AssertionError("read")

    with pytest.raises(TooManyRows):
        make_profile(Endless(), model="m")


def test_every_error_here_is_an_analysis_error():
    for kind in (NoRows, TooManyRows, UnusableColumn):
        assert issubclass(kind, AnalysisError)
