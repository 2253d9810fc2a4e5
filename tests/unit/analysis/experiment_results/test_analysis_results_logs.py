import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from analysis.errors import NoRows, UnreadableFile
from analysis.experiment_results import DisagreementRule, ResultsRequest, experiment_results
from analysis.experiment_results.results import EPOCHS_MAX, TooManyEpochs
from experiments.errors import ExperimentError
from tests.unit.analysis.experiment_results.experiment_logs import (
    DAY_US,
    START_US,
    ExperimentLogs,
    document,
    simple_experiment,
)

GOLDEN = Path(__file__).parents[4] / "tests" / "golden" / "prediction_record_v1.parquet"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """An experiment with a lift of 0.06 on 0.5 over 3,000 units."""
    logs = ExperimentLogs(tmp_path_factory.mktemp("lifted"))
    simple_experiment(logs, np.random.default_rng(1), lift=0.06)
    # What does not count: forced, overridden, shadow, without a unit, not enrolled, and another experiment's.
    logs.rows(["f1"] * 3, "treatment", START_US, forced=True)
    logs.rows(["o1"] * 4, "treatment", START_US, assignment_probability=None)
    logs.rows(["u1"] * 5, "control", START_US, shadow=True)
    logs.rows(pa.nulls(6, pa.string()), "control", START_US)
    logs.rows(["n1"] * 7, None, START_US, assignment_probability=None)
    logs.rows(["x1"] * 8, "treatment", START_US, experiment="other")
    return logs


@pytest.fixture(scope="module")
def lifted_results(lifted):
    return experiment_results(document(), lifted.root, ResultsRequest(rows_served=8_000))


def test_only_rows_that_the_split_drew_count_and_the_others_are_told_by_reason(lifted_results):
    assert lifted_results.window.rows == 6_000
    left = lifted_results.left_out
    assert (left.forced, left.overridden, left.shadow, left.no_unit, left.not_enrolled) == (3, 4, 5, 6, 7)


def test_a_planted_lift_is_found_and_lies_in_both_intervals(lifted_results):
    (primary,) = lifted_results.of("primary")
    assert primary.verdict == "better"
    for bounds in (primary.absolute.fixed, primary.absolute.anytime):
        assert bounds.low < 0.06 < bounds.high
    assert primary.relative.fixed.low < 0.12 < primary.relative.fixed.high
    assert primary.absolute.anytime.low < primary.absolute.fixed.low


def test_coverage_is_of_all_rows_of_the_model(lifted_results):
    # 6,000 and those that do not count, the shadow rows aside.
    assert lifted_results.window.coverage == pytest.approx((6_000 + 3 + 4 + 6 + 7 + 8) / 8_000)


def test_the_path_ends_where_the_result_is(lifted_results):
    (path,) = lifted_results.effect_paths
    (primary,) = lifted_results.of("primary")
    assert path.points[-1].absolute.estimate == pytest.approx(primary.absolute.estimate)
    assert path.points[-1].absolute.anytime.low == pytest.approx(primary.absolute.anytime.low)
    assert path.points[-1].relative.fixed.high == pytest.approx(primary.relative.fixed.high)
    assert len(path.points) > 20


def test_units_over_time_end_at_the_arms_units(lifted_results):
    assert lifted_results.units_over_time[-1].units == tuple(arm.units for arm in lifted_results.arms)
    assert sum(arm.units for arm in lifted_results.arms) == lifted_results.window.units


def test_guardrails_are_looked_at_without_being_asked_for(lifted_results):
    assert [metric.name for metric in lifted_results.of("guardrail")] == ["error_rate", "fallback_rate", "latency_ms"]


def test_a_window_counts_its_rows_alone(lifted):
    later = ResultsRequest(start=START + timedelta(days=2), end=START + timedelta(days=3))
    results = experiment_results(document(), lifted.root, later)
    assert 1_000 < results.window.rows < 1_400
    assert results.window.first_row >= later.start
    assert results.window.last_row < later.end


def test_an_experiment_without_rows_is_told_with_its_name(lifted):
    with pytest.raises(NoRows, match="experiment 'absent' of model 'diagnosis'"):
        experiment_results(document(experiment="absent"), lifted.root)


def test_a_wrong_document_is_told_with_the_key(lifted):
    with pytest.raises(ExperimentError, match=r"metrics\.primary"):
        experiment_results(document(metrics={"secondary": ["x"]}), lifted.root)


def test_a_document_without_metrics_has_guardrails_and_says_so(lifted):
    results = experiment_results(document(metrics=None), lifted.root)
    assert {metric.role for metric in results.metrics} == {"guardrail"}
    assert any("has no `metrics`" in note for note in results.notes)


def test_a_log_of_the_released_schema_without_that_experiment_is_read_and_has_no_rows(tmp_path):
    folder = tmp_path / "predictions/model=diagnosis/date=2026-01-01/hour=00"
    folder.mkdir(parents=True)
    shutil.copy(GOLDEN, folder)
    with pytest.raises(NoRows):
        experiment_results(document(), tmp_path)


def test_a_file_that_lacks_a_column_is_named_with_it(logs):
    folder = logs.root / "predictions/model=diagnosis/date=2026-01-01/hour=00"
    folder.mkdir(parents=True)
    short = pa.table({"ts": pa.array([START_US], pa.timestamp("us", tz="UTC")), "model": ["diagnosis"]})
    pa.parquet.write_table(short, folder / "a.parquet")
    with pytest.raises(UnreadableFile, match=r"a\.parquet: is not a prediction log's: it has no column"):
        experiment_results(document(), logs.root)


def test_a_damaged_outcome_file_is_told(logs):
    logs.rows(["a"], "control", START_US)
    logs.outcomes("correct", 1.0, START_US, prediction_id=["x"])
    (path,) = logs.root.glob("outcomes/*/*/*.parquet")
    path.write_bytes(b"PAR1")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        experiment_results(document(), logs.root)


def test_more_epochs_than_can_be_combined_are_refused(logs):
    count = EPOCHS_MAX + 1
    logs.rows([f"u{n}" for n in range(count)], "control", START_US, epoch=np.arange(count))
    with pytest.raises(TooManyEpochs, match="narrow --from and --to"):
        experiment_results(document(), logs.root)


def test_versions_with_other_outputs_give_each_their_first_score(logs):
    rng = np.random.default_rng(2)
    names = np.array([f"u{n}" for n in range(400)])
    logs.rows(names[:200], "control", START_US, score=rng.random(200))
    logs.rows(names[200:], "treatment", START_US, version="2", output="logit", logit=rng.random(200) + 1)
    results = experiment_results(document(metrics={"primary": "score", "covariate_days": 0}), logs.root)
    assert results.of("primary")[0].absolute.estimate == pytest.approx(1.0, abs=0.15)


def test_a_unit_in_two_arms_of_one_epoch_counts_in_its_first_and_is_told(logs):
    simple_experiment(logs, np.random.default_rng(3), units=300)
    logs.rows(["z"] * 3, ["control", "treatment", "control"], START_US + np.array([5, 2, 9]))
    results = experiment_results(document(), logs.root)
    assert results.window.units_in_two_arms == 1
    assert any("seen in two arms" in note for note in results.notes)
    plain = experiment_results(document(), logs.root, ResultsRequest(end=START + timedelta(microseconds=3)))
    assert [arm.units for arm in plain.arms] == [0, 1]


def ramp(logs, rng):
    """Write a ramp from 99/1 to 50/50 in which everything gets better by itself, and the treatment makes it worse."""
    for epoch, (share, base) in enumerate(((0.01, 0.2), (0.5, 0.6))):
        names = np.array([f"e{epoch}-{n}" for n in range(12_000)])
        treated = rng.random(12_000) < share
        arm = np.where(treated, "treatment", "control")
        at_us = START_US + epoch * DAY_US + np.arange(12_000)
        probability = np.where(treated, share, 1 - share)
        ids = logs.rows(names, arm, at_us, epoch=epoch, assignment_probability=probability)
        correct = rng.random(12_000) < base - 0.06 * treated
        logs.outcomes("correct", correct.astype("f8"), at_us + 1, prediction_id=ids)
    return treated


def test_a_ramp_over_a_drifting_baseline_has_the_right_sign_where_pooling_has_the_wrong_one(logs):
    ramp(logs, np.random.default_rng(4))
    results = experiment_results(document(), logs.root)
    (primary,) = results.of("primary")
    assert not results.sample_ratio.failed
    assert primary.verdict == "worse"
    assert primary.absolute.fixed.low < -0.06 < primary.absolute.fixed.high
    # 118 of the treatment's 6,100 units are of the first epoch, of control's 17,900 nearly 12,000.
    assert [one.weight for one in primary.epochs] == pytest.approx([0.04, 0.96], abs=0.02)
    (path,) = results.effect_paths
    assert path.points[-1].absolute.fixed.high == pytest.approx(primary.absolute.fixed.high)


@pytest.mark.parametrize("primary", ["correct", "score", {"name": "correct", "of": "per_unit"}])
def test_with_units_that_come_back_in_other_epochs_the_path_ends_where_the_result_is(logs, primary):
    rng = np.random.default_rng(5)
    bucket, level = rng.random(500), rng.random(500)
    names = np.array([f"u{n}" for n in range(500)])
    logs.rows(names, None, START_US - DAY_US, experiment=None, assignment_probability=None, score=level)
    for epoch, share in enumerate((0.3, 0.5, 0.6)):
        arm = np.where(bucket < share, "treatment", "control")
        at_us = START_US + epoch * DAY_US + rng.integers(0, DAY_US, 500)
        probability = np.where(bucket < share, share, 1 - share)
        score = level + 0.1 * rng.random(500)
        ids = logs.rows(names, arm, at_us, epoch=epoch, assignment_probability=probability, score=score)
        logs.outcomes("correct", (rng.random(500) < level).astype("f8"), at_us + 5, prediction_id=ids)
    results = experiment_results(document(metrics={"primary": primary}), logs.root)
    (found,), (path,) = results.of("primary"), results.effect_paths
    assert path.points[-1].absolute.estimate == pytest.approx(found.absolute.estimate)
    assert path.points[-1].absolute.fixed.low == pytest.approx(found.absolute.fixed.low)
    assert (found.units_control, found.units_treatment) < (500, 500)
    if primary == "score":
        assert found.covariate.variance_reduction > 0.8


def test_an_outcome_by_unit_counts_within_its_time_and_the_last_one_told(logs):
    names = [f"u{n}" for n in range(200)]
    arm = ["control", "treatment"] * 100
    logs.rows(names, arm, START_US)
    logs.outcomes("spent", np.arange(200.0), START_US + 10, unit=names)
    logs.outcomes("spent", np.arange(200.0) * 2, START_US + 20, unit=names)
    logs.outcomes("spent", 1e6, START_US + 3_600_000_000, unit=names)  # after the window
    logs.outcomes("spent", 1e6, START_US - 1, unit=names)  # before the first exposure
    metrics = {"primary": {"name": "spent", "of": "per_unit"}, "window_s": 3_600, "covariate_days": 0}
    (found,) = experiment_results(document(metrics=metrics), logs.root).of("primary")
    assert (found.control_mean, found.treatment_mean) == (198.0, 200.0)


def test_what_an_earlier_exposure_did_is_no_past_of_a_later_window(logs):
    rng = np.random.default_rng(6)
    names = np.array([f"u{n}" for n in range(800)])
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 800)]
    effect = (arm == "treatment") * 1.0
    for day in range(3):
        logs.rows(names, arm, START_US + day * DAY_US, score=effect + rng.random(800))
    request = ResultsRequest(start=START + timedelta(days=2))
    (found,) = experiment_results(document(metrics={"primary": "score"}), logs.root, request).of("primary")
    assert found.covariate is None
    assert found.absolute.estimate == pytest.approx(1.0, abs=0.1)


def test_several_treatments_are_each_compared_with_control_at_a_divided_alpha(logs):
    rng = np.random.default_rng(7)
    arms = np.array(["control", "a", "b"])[rng.integers(0, 3, 3_000)]
    score = rng.random(3_000) + 0.2 * (arms == "b")
    logs.rows([f"u{n}" for n in range(3_000)], arms, START_US, assignment_probability=1 / 3, score=score)
    variants = [{"name": name, "version": "1", "bp": bp} for name, bp in (("a", 3333), ("control", 3334), ("b", 3333))]
    metrics = {"primary": "score", "covariate_days": 0}
    results = experiment_results(document(variants=variants, metrics=metrics), logs.root)
    assert {one.treatment: one.verdict for one in results.of("primary")} == {"a": "no_effect_found", "b": "better"}
    assert {one.alpha for one in results.of("primary")} == {0.025}
    assert any("Bonferroni" in note for note in results.notes)
    assert len(results.effect_paths) == 2


def test_rows_of_a_sample_stand_for_others_and_units_kept_for_an_error_alone_are_no_units(logs):
    rng = np.random.default_rng(8)
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 1_000)]
    names = [f"u{n}" for n in range(1_000)]
    logs.rows(names, arm, START_US, sample_weight=10.0, score=rng.random(1_000))
    logs.rows([f"kept{n}" for n in range(300)], "treatment", START_US, error_code="timeout", score=None)
    results = experiment_results(document(metrics={"primary": "error_rate"}), logs.root)
    assert not results.sample_ratio.failed
    assert results.window.units == 1_000
    (found,) = results.of("primary")
    assert found.treatment_mean == pytest.approx(300 / (300 + 10 * np.sum(arm == "treatment")))


def shadowed(logs, rng, *, differing, units=6_000):
    """Write an experiment in which versions differ on some units, only those gain, and a half is scored twice."""
    differs = rng.random(units) < differing
    treated = rng.random(units) < 0.5
    names = np.array([f"u{n}" for n in range(units)])
    at_us = START_US + np.arange(units)
    arm = np.where(treated, "treatment", "control")
    scores = {"1": np.full(units, 0.2), "2": np.where(differs, 0.9, 0.2)}
    own = np.where(treated, "2", "1")
    other = np.where(treated, "1", "2")
    pick = {v: np.where(v == "2", scores["2"], scores["1"]) for v in ("1", "2")}
    ids = logs.rows(names, arm, at_us, version=own, score=np.where(treated, pick["2"], pick["1"]))
    twice = np.flatnonzero(rng.random(units) < 0.5)
    logs.rows(
        names[twice],
        arm[twice],
        at_us[twice],
        version=other[twice],
        shadow=True,
        prediction_id=ids[twice],
        score=np.where(treated, pick["1"], pick["2"])[twice],
    )
    correct = rng.random(units) < 0.5 + 0.4 * (differs & treated)
    logs.outcomes("correct", correct.astype("f8"), at_us + 1, prediction_id=ids)


def test_units_on_which_the_versions_agree_are_left_out_and_the_effect_gets_sharper(logs):
    shadowed(logs, np.random.default_rng(9), differing=0.1)
    rule = DisagreementRule(threshold=0.5)
    (found,) = experiment_results(document(), logs.root, ResultsRequest(rule=rule)).disagreement
    assert found.versions == ("1", "2")
    assert 2_800 < found.units < 3_200
    assert found.share_differing == pytest.approx(0.1, abs=0.02)
    assert found.on_differing.fixed.low < 0.4 < found.on_differing.fixed.high
    assert found.diluted.fixed.low < 0.04 < found.diluted.fixed.high
    assert found.narrower > 0.5
    assert found.narrower == pytest.approx(
        1 - (found.diluted.fixed.high - found.diluted.fixed.low) / (found.plain.fixed.high - found.plain.fixed.low)
    )


def test_scores_within_the_tolerance_are_the_same(logs):
    shadowed(logs, np.random.default_rng(10), differing=0.2, units=1_000)
    rule = DisagreementRule(tolerance=0.8)
    (found,) = experiment_results(document(), logs.root, ResultsRequest(rule=rule)).disagreement
    assert (found.units_differing, found.diluted) == (0, None)


def test_a_shadow_of_a_third_version_says_nothing_of_the_arms(logs):
    simple_experiment(logs, np.random.default_rng(11), units=200)
    logs.rows(["u1"], "control", START_US, version="3", shadow=True, prediction_id=["p1-0"])
    assert experiment_results(document(), logs.root).disagreement == ()


def test_a_slower_treatment_is_found_in_the_quantiles_of_its_rows(logs):
    rng = np.random.default_rng(12)
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 500)]
    unit = rng.integers(0, 500, 20_000)
    micros = (rng.lognormal(8, 0.4, 20_000) * np.where(arm[unit] == "treatment", 1.3, 1.0)).astype("i4")
    names = np.array([f"u{n}" for n in range(500)])
    logs.rows(names[unit], arm[unit], START_US, total_us=micros)
    results = experiment_results(document(), logs.root)
    assert [one.quantile for one in results.latency] == [0.5, 0.95, 0.99]
    for one in results.latency:
        mine = micros[arm[unit] == "treatment"] / 1000
        assert one.treatment_ms == np.quantile(mine, one.quantile, method="inverted_cdf")
        assert one.verdict == "worse"
        assert one.difference_ms.fixed.low < one.difference_ms.estimate < one.difference_ms.fixed.high


def test_a_quantile_with_hardly_a_row_beyond_it_is_not_told(logs):
    rng = np.random.default_rng(13)
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 500)]
    logs.rows([f"u{n}" for n in range(500)], arm, START_US, total_us=rng.integers(1, 10_000, 500))
    assert [one.quantile for one in experiment_results(document(), logs.root).latency] == [0.5, 0.95]


def test_without_a_row_of_control_there_is_nothing_to_compare_and_no_traceback(logs):
    logs.rows([f"u{n}" for n in range(300)], "treatment", START_US + np.arange(300))
    results = experiment_results(document(), logs.root, ResultsRequest(show_despite_srm=True))
    (primary,) = results.of("primary")
    assert (primary.verdict, primary.absolute, primary.units_control) == ("too_few_units", None, 0)
    assert results.latency == ()
    assert results.effect_paths[0].points == ()


def test_an_experiment_of_one_arm_is_read_and_has_no_effect_to_show(logs):
    logs.rows([f"u{n}" for n in range(30)], "control", START_US, assignment_probability=1.0)
    variants = [{"name": "control", "version": "1", "bp": 10_000}]
    results = experiment_results(document(variants=variants), logs.root)
    assert (results.sample_ratio.failed, results.metrics, results.latency) == (False, (), ())


def test_the_report_says_when_a_mismatch_could_first_be_noticed(logs):
    rng = np.random.default_rng(14)
    for day in range(6):
        share = 0.5 if day < 3 else 0.3
        arm = np.where(rng.random(2_000) < share, "treatment", "control")
        logs.rows([f"d{day}-{n}" for n in range(2_000)], arm, START_US + day * DAY_US + np.arange(2_000) * 40_000_000)
    ratio = experiment_results(document(), logs.root).sample_ratio
    assert ratio.failed
    assert START + timedelta(days=3) < ratio.noticed_at < START + timedelta(days=5)


def test_units_whose_outcomes_may_still_come_are_told(lifted_results, logs):
    assert lifted_results.window.units_open == lifted_results.window.units  # five days, and a window of seven
    assert any("less than the outcome window" in note for note in lifted_results.notes)
