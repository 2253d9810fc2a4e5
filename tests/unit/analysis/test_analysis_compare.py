from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from analysis import Thresholds, compare, make_profile, profile_log
from analysis.errors import NoRows, ProfileMismatch

ROWS = 2_000


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def training(rng, rows=5_000, **more):
    return make_profile(
        pa.table(
            {
                "patient.age": rng.normal(50, 12, rows),
                "patient.country": rng.choice(["JP", "DE", "FR"], rows),
                "y.score": rng.beta(2, 5, rows),
            }
            | more
        ),
        model="diagnosis",
        version="1",
    )


def served(rng, rows=ROWS, age=50.0):
    return {
        "patient.age": rng.normal(age, 12, rows).astype("f4"),
        "patient.country": rng.choice(["JP", "DE", "FR"], rows),
    }


def find(columns, name):
    (column,) = (column for column in columns if column.name == name)
    return column


def findings(report):
    return {(finding.kind, finding.name) for finding in report.quality}


def test_traffic_like_the_training_data_is_no_drift(log, rng):
    log.write(served(rng), scores={"score": rng.beta(2, 5, ROWS)})
    report = compare(training(rng), log.root, "diagnosis")
    assert report.outcome == "ok"
    assert [column.verdict for column in report.columns] == ["ok", "ok", "ok"]


def test_a_feature_that_moved_is_found_and_stands_first(log, rng):
    log.write(served(rng, age=60), scores={"score": rng.beta(2, 5, ROWS)})
    report = compare(training(rng), log.root, "diagnosis")
    assert report.outcome == "drift"
    assert [column.name for column in report.columns if column.verdict == "drift"] == ["patient.age"]
    assert report.columns[0].name == "patient.age"


def test_scores_are_judged_by_version_and_variant_against_their_own_training_scores(log, rng):
    log.write(served(rng), scores={"score": rng.beta(2, 5, ROWS)}, version="1", variant_served="control")
    log.write(served(rng), scores={"score": rng.beta(5, 2, ROWS)}, version="2", variant_served="treatment")
    log.write(
        served(rng), scores={"score": rng.beta(5, 2, ROWS)}, version="1", variant_served=pa.nulls(ROWS, pa.string())
    )
    second = make_profile(
        pa.table({"v.x": rng.normal(size=5_000), "y.score": rng.beta(5, 2, 5_000)}), model="diagnosis", version="2"
    )
    report = compare(training(rng), log.root, "diagnosis", score_profiles=[second])
    verdicts = {(column.version, column.variant): column.verdict for column in report.predictions}
    assert verdicts == {("1", "control"): "ok", ("2", "treatment"): "ok", ("1", ""): "drift"}


def test_a_version_without_training_scores_is_named_and_not_judged(log, rng):
    log.write(served(rng), scores={"score": rng.beta(5, 2, ROWS)}, version="2")
    report = compare(training(rng), log.root, "diagnosis")
    (prediction,) = report.predictions
    assert (prediction.verdict, prediction.reason) == ("no_baseline", "the baseline holds no scores of version 2")
    assert report.outcome == "ok"


def test_a_feature_that_another_version_does_not_have_is_not_counted_as_null_there(log, rng):
    log.write(served(rng), version="1")
    log.write({"patient.age": rng.normal(50, 12, ROWS).astype("f4")}, version="2")
    report = compare(training(rng), log.root, "diagnosis")
    country = find(report.features, "patient.country")
    assert (country.rows, country.shares.null) == (ROWS, 0.0)
    assert find(report.features, "patient.age").rows == 2 * ROWS
    assert report.outcome == "ok"


def test_one_variant_alone_can_drift(log, rng):
    log.write(served(rng), variant_served="control")
    log.write(served(rng, age=65), variant_served="treatment")
    report = compare(training(rng), log.root, "diagnosis", by_variant=True)
    verdicts = {column.variant: column.verdict for column in report.features if column.name == "patient.age"}
    assert verdicts == {"control": "ok", "treatment": "drift"}


def test_rows_count_by_their_sample_weight(log, rng):
    # One row in ten of the young was kept, and weighs ten: the weighted sample is as the training data was.
    age = rng.normal(50, 12, 40_000).astype("f4")
    kept = (age > 50) | (rng.random(age.size) < 0.1)
    log.write({"patient.age": age[kept]}, sample_weight=np.where(age[kept] > 50, 1.0, 10.0))
    profile = make_profile(pa.table({"patient.age": rng.normal(50, 12, 20_000)}), model="diagnosis")
    assert find(compare(profile, log.root, "diagnosis").features, "patient.age").verdict == "ok"
    unweighted = compare(profile, log.root, "diagnosis").window
    assert unweighted.weight == pytest.approx(age.size, rel=0.05)


def test_the_same_rows_without_weights_would_have_drifted(log, rng):
    age = rng.normal(50, 12, 40_000).astype("f4")
    log.write({"patient.age": age[(age > 50) | (rng.random(age.size) < 0.1)]})
    profile = make_profile(pa.table({"patient.age": rng.normal(50, 12, 20_000)}), model="diagnosis")
    assert find(compare(profile, log.root, "diagnosis").features, "patient.age").verdict == "drift"


def test_fewer_rows_than_the_least_are_not_judged_and_leave_the_report_undecided(log, rng):
    log.write(served(rng, rows=49, age=90))
    report = compare(training(rng), log.root, "diagnosis")
    assert report.outcome == "undecided"
    age = find(report.features, "patient.age")
    assert (age.verdict, age.statistics) == ("too_few_rows", None)
    assert age.reason == "49 rows with a value in the window; at least 50 are compared"


def test_under_a_thousand_rows_p_values_are_given_and_above_they_are_not(log, rng):
    log.write(served(rng, rows=600), at="2026-01-01T00:00:00")
    log.write(served(rng, rows=2_000), at="2026-01-09T00:00:00")
    noon = datetime(2026, 1, 5, tzinfo=UTC)
    few = compare(training(rng), log.root, "diagnosis", end=noon).features[0].statistics
    many = compare(training(rng), log.root, "diagnosis", start=noon).features[0].statistics
    assert few is not None
    assert few.p_value_adjusted is not None
    assert few.p_value_adjusted >= few.p_value
    assert many is not None
    assert many.p_value is None


def test_a_small_window_that_really_moved_is_found(log, rng):
    log.write(served(rng, rows=200, age=65))
    assert compare(training(rng), log.root, "diagnosis").outcome == "drift"


def test_a_column_that_was_not_logged_is_named_and_not_judged(log, rng):
    log.write({"patient.age": rng.normal(50, 12, ROWS)})
    country = find(compare(training(rng), log.root, "diagnosis").features, "patient.country")
    assert (country.verdict, country.reason) == ("not_logged", "the log has no such column")


def test_a_feature_served_but_not_in_the_baseline_is_named(log, rng):
    log.write(served(rng) | {"patient.bmi": rng.normal(size=ROWS)})
    assert compare(training(rng), log.root, "diagnosis").features_not_in_baseline == ("patient.bmi",)


def test_a_feature_whose_type_changed_is_not_comparable_and_says_why(log, rng):
    log.write({"patient.age": rng.choice(["young", "old"], ROWS)})
    age = find(compare(training(rng), log.root, "diagnosis").features, "patient.age")
    assert (age.verdict, age.reason) == ("not_comparable", "logged as string, but double in the baseline")


def test_new_nulls_are_a_finding_about_data_and_not_drift(log, rng):
    age = pa.array(rng.normal(50, 12, ROWS), mask=rng.random(ROWS) < 0.1)
    log.write(served(rng) | {"patient.age": age})
    report = compare(training(rng), log.root, "diagnosis")
    assert findings(report) == {("nulls", "patient.age")}
    assert find(report.features, "patient.age").verdict == "ok"
    assert report.outcome == "drift"


def test_values_out_of_range_are_a_finding(log, rng):
    values = served(rng)
    values["patient.age"][:100] = 999
    log.write(values)
    assert ("out_of_range", "patient.age") in findings(compare(training(rng), log.root, "diagnosis"))


def test_a_new_category_is_a_finding(log, rng):
    countries = rng.choice(["JP", "DE", "FR", "US"], ROWS, p=[0.32, 0.32, 0.32, 0.04])
    log.write(served(rng) | {"patient.country": countries})
    assert ("new_categories", "patient.country") in findings(compare(training(rng), log.root, "diagnosis"))


def test_rows_that_found_a_stale_view_or_none_are_findings_about_that_view(log, rng):
    statuses = rng.choice(["PRESENT", "STALE", "MISSING", "NULL"], ROWS, p=[0.8, 0.1, 0.09, 0.01])
    log.write(served(rng), statuses={"patient": statuses})
    report = compare(training(rng), log.root, "diagnosis")
    assert findings(report) == {("view_stale", "patient"), ("view_missing", "patient")}


def test_a_share_of_stale_rows_that_the_reference_window_had_too_is_no_finding(log, rng):
    for at in ("2026-01-01T00:00:00", "2026-01-09T00:00:00"):
        statuses = rng.choice(["PRESENT", "STALE"], ROWS, p=[0.9, 0.1])
        log.write(served(rng), statuses={"patient": statuses}, at=at)
    middle = datetime(2026, 1, 5, tzinfo=UTC)
    reference = profile_log(log.root, "diagnosis", end=middle)
    assert compare(reference, log.root, "diagnosis", start=middle).quality == ()


def test_a_reference_window_holds_the_scores_of_every_version(log, rng):
    for version, (a, b) in {"1": (2, 5), "2": (5, 2)}.items():
        for at in ("2026-01-01T00:00:00", "2026-01-09T00:00:00"):
            log.write(served(rng), scores={"score": rng.beta(a, b, ROWS)}, version=version, at=at)
    middle = datetime(2026, 1, 5, tzinfo=UTC)
    reference = profile_log(log.root, "diagnosis", end=middle)
    report = compare(reference, log.root, "diagnosis", start=middle)
    assert {(column.version, column.verdict) for column in report.predictions} == {("1", "ok"), ("2", "ok")}


def test_a_log_compared_with_its_own_profile_has_no_distance_at_all(log, rng):
    log.write(served(rng), scores={"score": rng.beta(2, 5, ROWS)}, sample_weight=rng.uniform(1, 3, ROWS))
    report = compare(profile_log(log.root, "diagnosis"), log.root, "diagnosis")
    for column in report.columns:
        assert column.statistics.psi == pytest.approx(0.0, abs=1e-12)
        assert column.statistics.js_distance == pytest.approx(0.0, abs=1e-6)


def test_the_covered_share_is_known_where_the_served_rows_are(log, rng):
    log.write(served(rng), sample_weight=2.0)
    known = compare(training(rng), log.root, "diagnosis", rows_served=5_000).window
    assert known.coverage == pytest.approx(2 * ROWS / 5_000)
    assert compare(training(rng), log.root, "diagnosis").window.coverage is None


def test_rows_with_a_static_score_are_counted_and_their_scores_are_not(log, rng):
    log.write(served(rng), scores={"score": np.full(ROWS, 0.5)}, degraded=[["static_score"]] * ROWS)
    report = compare(training(rng), log.root, "diagnosis")
    assert report.window.static_rows == ROWS
    assert report.predictions == ()


def test_rows_that_no_version_answered_are_counted_and_no_scores_of_theirs_are_missed(log, rng):
    log.write(served(rng), scores={"score": rng.beta(2, 5, ROWS)})
    log.write({"patient.age": rng.normal(50, 12, 9)}, version="", degraded=[["static_score"]] * 9)
    report = compare(training(rng), log.root, "diagnosis")
    assert [(one.version, one.rows) for one in report.slices] == [("", 9), ("1", ROWS)]
    assert [column.version for column in report.predictions] == ["1"]


def test_thresholds_can_be_moved(log, rng):
    log.write(served(rng, age=60))
    lenient = compare(training(rng), log.root, "diagnosis", thresholds=Thresholds(psi=5.0))
    assert find(lenient.features, "patient.age").verdict == "ok"


def test_an_empty_window_is_an_error_that_names_it(log, rng):
    log.write(served(rng))
    with pytest.raises(NoRows, match=r"no rows of model 'diagnosis@3'"):
        compare(training(rng), log.root, "diagnosis", version="3")


def test_the_profile_of_another_model_is_refused(log, rng):
    with pytest.raises(ProfileMismatch, match="describes model 'diagnosis', not 'churn'"):
        compare(training(rng), log.root, "churn")
