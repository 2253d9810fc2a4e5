import numpy as np
import pyarrow as pa
import pytest

from analysis import Thresholds, make_profile
from analysis.binning import numeric_places
from analysis.divergence import chi_square
from analysis.drift_report import ColumnDrift
from analysis.noise_floor import out_of_range_p_value
from analysis.permutation import psi_p_value
from analysis.verdict import Sample, adjust_for_many, judge


def test_without_drift_p_values_are_at_most_five_percent_in_about_one_comparison_of_twenty():
    rng = np.random.default_rng(5)
    # Nearly empty bins at both ends, as out-of-range bins are.
    share = np.array([0.002, *[0.0996] * 10, 0.002])
    pairs = [(rng.multinomial(2_000, share), rng.multinomial(80, share)) for _ in range(300)]
    p_values = np.array([psi_p_value(p.astype("f8"), q.astype("f8")) for p, q in pairs])
    assert 0.02 < np.mean(p_values <= 0.05) < 0.09


def test_for_well_filled_bins_the_p_value_agrees_with_the_chi_square_test():
    reference, current = np.array([400.0, 300.0, 300.0]), np.array([150.0, 160.0, 140.0])
    assert psi_p_value(reference, current) == pytest.approx(chi_square(reference, current).p_value, abs=0.02)


def test_one_rare_category_is_not_told_from_chance_and_a_whole_window_of_them_is():
    baseline = np.array([*[250.0] * 20, 0.0])
    assert psi_p_value(baseline, np.array([*[6.0] * 20, 1.0])) > 0.01
    assert psi_p_value(baseline, np.array([0.0] * 20 + [60.0])) == pytest.approx(1e-4)


def test_the_chance_of_values_out_of_range_is_what_simulation_gives():
    rng = np.random.default_rng(8)
    baseline, window = rng.normal(size=(4_000, 100)), rng.normal(size=(4_000, 300))
    low, high = baseline.min(axis=1, keepdims=True), baseline.max(axis=1, keepdims=True)
    outside = np.sum((window < low) | (window > high), axis=1)
    for at_least in (5, 10, 20):
        assert out_of_range_p_value(100, 300, at_least) == pytest.approx(np.mean(outside >= at_least), abs=0.025)


def test_a_small_window_wholly_out_of_a_constant_baselines_range_is_drift():
    profile = make_profile(pa.table({"v.x": np.full(500, 3.0)}), model="m").features[0]
    sample = Sample(60, np.array([0.0, 0.0, 60.0]), 0.0)
    subject = ColumnDrift(kind="feature", name="v.x", verdict="ok", reason="")
    (judged,) = adjust_for_many([judge(subject, profile, sample, Thresholds())], Thresholds())
    assert judged.verdict == "drift"


def test_the_same_counts_give_the_same_p_value_every_time():
    reference, current = np.array([400.0, 300.0]), np.array([100.0, 130.0])
    assert psi_p_value(reference, current) == psi_p_value(reference, current)


def test_a_single_occupied_bin_has_p_value_one():
    assert psi_p_value(np.array([9.0, 0.0]), np.array([5.0, 0.0])) == 1.0


@pytest.mark.parametrize(("n", "m"), [(569, 300), (5_000, 120), (2_000, 5_000)])
def test_thirty_columns_without_drift_raise_an_alarm_in_at_most_one_window_of_twenty(n, m):
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(20):
        columns = []
        for index in range(30):
            draw = (rng.normal, rng.exponential, lambda size: rng.poisson(30, size))[index % 3]
            profile = make_profile(pa.table({"v.x": draw(size=n)}), model="m").features[0]
            places = numeric_places(draw(size=m).astype("f8"), profile.bins)
            sample = Sample(m, np.bincount(places, minlength=profile.bins.places).astype("f8"), 0.0)
            subject = ColumnDrift(kind="feature", name="v.x", verdict="ok", reason="")
            columns.append(judge(subject, profile, sample, Thresholds()))
        alarms += any(column.verdict == "drift" for column in adjust_for_many(columns, Thresholds()))
    assert alarms <= 2
