import ibis
import numpy as np
import pyarrow as pa
import pytest
from ibis.backends.sql.compilers import PySparkCompiler
from ibis.config import Config

from analysis import make_profile
from analysis.bin_counts import Slice, comparable, count_bins, counts_by_slice
from analysis.binning import numeric_places
from analysis.prediction_log import LogWindow, open_log
from analysis.profile import CategoryBins


class SparkOptions(Config):
    """The one setting that the compiler for Spark takes from its backend, which would want Spark itself."""

    treat_nan_as_null: bool = False


def counted(log, column, profile):
    """Count a one-part log over a profile's bins."""
    with open_log(log.root, LogWindow(model="diagnosis"), threads=1) as opened:
        (part,) = opened.parts
        kind = part.schema.field(column).type
        lines = opened.fetch(count_bins(opened.rows(part), column, kind, profile.bins))
    return counts_by_slice(lines, profile.bins.places)


def profile_of(values, **options):
    return make_profile(pa.table({"v.x": values}), model="diagnosis", **options).features[0]


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_the_query_counts_every_value_into_the_bin_that_numpy_finds(log, dtype):
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=3_000).astype(dtype)
    served = np.concatenate([rng.normal(0.3, 1.5, 2_000).astype(dtype), baseline[:500]])
    profile = profile_of(baseline)
    log.write({"v.x": served})
    (found,) = counted(log, "f.v.x", profile).values()
    expected = np.bincount(numeric_places(served.astype("f8"), profile.bins), minlength=profile.bins.places)
    assert found.counts.tolist() == expected.tolist()


def test_the_same_discrete_values_stay_in_their_bins_when_they_are_logged_in_less_precision(log):
    values = np.tile(np.array([0.1, 0.2, 0.3, 0.7, 0.9]), 40)
    profile = profile_of(values)
    log.write({"v.x": values.astype("f4")})
    (found,) = counted(log, "f.v.x", profile).values()
    assert tuple(found.counts) == profile.counts


def test_nulls_and_nans_are_counted_as_nulls(log):
    log.write({"v.x": pa.array([1.0, None, float("nan"), 2.0])})
    (found,) = counted(log, "f.v.x", profile_of(np.arange(10.0))).values()
    assert (found.nulls, found.counts.sum(), found.rows) == (2.0, 2.0, 4)


def test_infinities_are_counted_out_of_range(log):
    log.write({"v.x": np.array([-np.inf, 1.0, np.inf])})
    (found,) = counted(log, "f.v.x", profile_of(np.arange(100.0))).values()
    assert (found.counts[0], found.counts[-1]) == (1.0, 1.0)


def test_an_unknown_category_is_counted_as_other(log):
    log.write({"v.x": np.array(["a", "b", "it's", "new"])})
    (found,) = counted(log, "f.v.x", profile_of(["a", "a", "b", "it's"])).values()
    assert found.counts.tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("served", [np.array([0.0, 1.0, 1.0, 2.0], "f4"), np.array([0, 1, 1, 2])])
def test_integer_categories_match_numbers_of_any_type(log, served):
    log.write({"v.x": served})
    (found,) = counted(log, "f.v.x", profile_of([0, 0, 1])).values()
    assert found.counts.tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("served", [np.array([True, True, False]), np.array([1.0, 1.0, 0.0], "f4")])
def test_bool_categories_match_bools_and_the_numbers_that_stand_for_them(log, served):
    log.write({"v.x": served})
    (found,) = counted(log, "f.v.x", profile_of([False, False, True])).values()
    assert found.counts.tolist() == [1.0, 2.0, 0.0]


def test_bools_are_counted_over_the_bins_of_a_number(log):
    log.write({"v.x": np.array([True, False, True])})
    (found,) = counted(log, "f.v.x", profile_of([0.0, 1.0])).values()
    assert found.counts.tolist() == [0.0, 1.0, 2.0, 0.0]


def test_versions_and_variants_are_counted_apart(log):
    log.write({"v.x": np.array([1.0, 2.0])}, version="1", variant_served="control")
    log.write({"v.x": np.array([3.0])}, version="2", variant_served="treatment")
    log.write({"v.x": np.array([4.0])}, version="1", variant_served=pa.nulls(1, pa.string()))
    found = counted(log, "f.v.x", profile_of(np.arange(10.0)))
    rows = {key: counts.rows for key, counts in found.items()}
    assert rows == {Slice("1", "control"): 2, Slice("2", "treatment"): 1, Slice("1", ""): 1}


def test_sample_weights_are_summed_and_give_the_effective_scale(log):
    weights = np.array([1.0, 2.0, 5.0])
    log.write({"v.x": np.array([0.0, 0.0, 1.0])}, sample_weight=weights)
    (found,) = counted(log, "f.v.x", profile_of([0.0, 1.0])).values()
    assert found.counts.tolist() == [0.0, 3.0, 5.0, 0.0]
    assert found.effective_scale * found.weight == pytest.approx(weights.sum() ** 2 / np.square(weights).sum())


def test_scores_that_no_model_gave_are_not_counted(log):
    log.write(
        {"v.x": np.array([0.0, 1.0])},
        scores={"score": np.array([0.25, 0.5])},
        degraded=[["static_score"], ["feature_default:v"]],
    )
    (found,) = counted(log, "y.score", profile_of([0.25, 0.5])).values()
    assert found.counts.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_types_that_cannot_be_compared_are_told_apart():
    numbers, words, nothing = profile_of(np.arange(50.0)).bins, profile_of(["a"]).bins, CategoryBins(())
    assert comparable(numbers, pa.float32())
    assert comparable(numbers, pa.bool_())
    assert not comparable(numbers, pa.string())
    assert comparable(words, pa.dictionary(pa.int32(), pa.string()))
    assert not comparable(words, pa.int64())
    assert not comparable(numbers, pa.timestamp("us"))
    assert comparable(nothing, pa.string())


@pytest.mark.parametrize("values", [np.arange(50.0), ["a", "b"], [True, False]])
def test_the_same_expression_compiles_for_spark(values, monkeypatch):
    monkeypatch.setattr(ibis.options, "pyspark", SparkOptions())
    profile = profile_of(values)
    kind = pa.array(values).type
    rows = ibis.table(
        {
            "f.v.x": ibis.Schema.from_pyarrow(pa.schema([("x", kind)]))["x"],
            "version": "string",
            "variant_served": "string",
            "sample_weight": "float64",
        },
        name="log",
    )
    sql = PySparkCompiler().to_sqlglot(count_bins(rows, "f.v.x", kind, profile.bins)).sql("spark")
    assert "GROUP BY" in sql
    assert "COUNT(*)" in sql
