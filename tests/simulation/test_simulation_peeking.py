import numpy as np
import pytest

from analysis.experiment_results.contrast import contrast
from analysis.experiment_results.power import sample_size
from tests.simulation.peeking import ALPHA, METRICS, NAIVE, POWER, watch, watch_returning
from tests.unit.analysis.experiment_results.unit_arrays import columns, stratum


@pytest.mark.parametrize("metric", METRICS[:2], ids=lambda metric: metric.name)
def test_a_thousand_experiments_without_effect_peeked_at_at_every_step_alarm_at_most_as_often_as_alpha_says(metric):
    found = watch(metric, runs=1_000, units=5_000, step=10, rng=np.random.default_rng(1))
    assert found.anytime_alarms <= ALPHA
    assert found.naive_alarms > 6 * ALPHA


def test_heavy_tailed_units_do_not_break_the_anytime_interval():
    found = watch(METRICS[2], runs=300, units=3_000, step=20, rng=np.random.default_rng(2))
    assert found.anytime_alarms <= ALPHA
    assert found.naive_alarms > 5 * ALPHA


def test_units_that_come_back_day_after_day_do_not_break_it_either():
    found = watch_returning(runs=200, units=600, days=40, rng=np.random.default_rng(3))
    assert found.anytime_alarms <= ALPHA
    assert found.naive_alarms > 2 * ALPHA


def test_a_plan_that_is_far_too_small_or_too_large_does_not_break_it_either():
    for units_planned in (300, 1_000_000):
        found = watch(
            METRICS[1], runs=1_000, units=3_000, step=10, units_planned=units_planned, rng=np.random.default_rng(4)
        )
        assert found.anytime_alarms <= ALPHA


def test_a_planted_effect_is_found_with_nominal_power_at_the_planned_size_by_either_interval():
    metric = METRICS[1]
    size = sample_size(metric.mean, metric.deviation, mde_rel=0.1, alpha=ALPHA, power=POWER, shares=(0.5, 0.5))
    found = watch(
        metric,
        runs=1_000,
        units=size.units_anytime // 2,
        step=10,
        lift=0.1,
        units_planned=size.units_anytime,
        rng=np.random.default_rng(5),
    )
    at_end = found.z[:, int(np.searchsorted(found.units, size.units / 2))]
    assert np.mean(at_end > NAIVE) == pytest.approx(POWER, abs=0.03)
    first = found.found_at()
    assert np.mean(np.isfinite(first)) >= POWER
    assert np.median(first[np.isfinite(first)]) * 2 < size.units  # half of them before the fixed end


def test_what_is_simulated_is_what_the_report_computes():
    rng = np.random.default_rng(6)
    one, other = rng.normal(1, 1, 500), rng.normal(1.1, 1, 500)
    found = contrast([stratum(columns(one), columns(other))], None)
    error = np.sqrt(one.var(ddof=1) / 500 + other.var(ddof=1) / 500)
    assert found.standard_error == pytest.approx(error)
