import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from analysis.experiment_results.contrast import contrast
from analysis.experiment_results.intervals import fixed_factor, fixed_p_value
from analysis.experiment_results.judgement import Rules, absolute_effect, relative_effect
from tests.unit.analysis.experiment_results.unit_arrays import Units, columns, moments, stratum

RULES = Rules(alpha=0.05, power=0.8, mde_rel=0.02, pairs_planned=2_500.0, units_planned=None, units=0)


def heavy(rng, size):
    """Units of which a few have very many rows, as in life: a numerator and a denominator of each."""
    rows = 1 + rng.geometric(0.5, size) * (1 + 20 * (rng.random(size) < 0.02))
    return rng.binomial(rows, rng.beta(2, 3, size)), rows


def test_a_plain_mean_has_welchs_interval_and_p_value():
    rng = np.random.default_rng(1)
    control, treatment = rng.normal(5, 1, 300), rng.normal(5.3, 3, 90)
    found = contrast([stratum(columns(control), columns(treatment))], None)
    oracle = CompareMeans(DescrStatsW(treatment), DescrStatsW(control))
    radius = fixed_factor(found.degrees, 0.05) * found.standard_error
    assert (found.difference - radius, found.difference + radius) == pytest.approx(
        oracle.tconfint_diff(usevar="unequal")
    )
    p_value = stats.ttest_ind(treatment, control, equal_var=False).pvalue
    assert fixed_p_value(found.difference / found.standard_error, found.degrees) == pytest.approx(p_value)


def tasted(metric, control, treatment):
    """Ask tea-tasting, by Welch with Student's distribution, as here."""
    data = {name: np.concatenate([control[name], treatment[name]]).astype("f8") for name in control} | {
        "variant": np.repeat([0, 1], [len(control["n"]), len(treatment["n"])])
    }
    return tt.Experiment({"m": metric}).analyze(pa.table(data))["m"]


def test_a_ratio_of_means_agrees_with_tea_tasting_absolute_and_relative():
    rng = np.random.default_rng(2)
    (n, d), (m, e) = heavy(rng, 900), heavy(rng, 1_100)
    found = contrast([stratum(columns(n, d), columns(m, e))], None)
    oracle = tasted(tt.RatioOfMeans("n", "d"), {"n": n, "d": d}, {"n": m, "d": e})
    absolute, relative = absolute_effect(found, RULES), relative_effect(found, RULES)
    assert absolute.estimate == pytest.approx(oracle.effect_size)
    assert absolute.fixed.low == pytest.approx(oracle.effect_size_ci_lower, rel=1e-3)
    assert relative.estimate == pytest.approx(oracle.rel_effect_size)
    assert relative.fixed.low == pytest.approx(oracle.rel_effect_size_ci_lower, rel=5e-3)
    assert relative.fixed.high == pytest.approx(oracle.rel_effect_size_ci_upper, rel=5e-3)


def test_cuped_with_equal_arms_agrees_with_tea_tasting():
    rng = np.random.default_rng(3)
    past = rng.normal(10, 2, 2_000)
    now = past + rng.normal(0, 1, 2_000)
    control = {"n": now[:1000], "p": past[:1000]}
    treatment = {"n": now[1000:] + 0.2, "p": past[1000:]}
    found = contrast([stratum(*(columns(a["n"], past=a["p"]) for a in (control, treatment)))], None)
    oracle = tasted(tt.Mean("n", covariate="p"), control, treatment)
    assert found.difference == pytest.approx(oracle.effect_size, rel=1e-3)
    assert absolute_effect(found, RULES).fixed.low == pytest.approx(oracle.effect_size_ci_lower, rel=5e-3)
    assert 0.75 < found.variance_reduction < 0.85  # of variance 5, past explains 4


def test_the_past_never_widens_and_without_one_nothing_is_adjusted():
    rng = np.random.default_rng(4)
    noise = [columns(rng.normal(size=400), past=rng.normal(size=400)) for _ in range(2)]
    nothing = [columns(rng.normal(size=400)) for _ in range(2)]
    for arms in (noise, nothing):
        with_past, without = (contrast([stratum(*arms)], None, covariates=used) for used in (True, False))
        assert with_past.standard_error <= without.standard_error
    assert contrast([stratum(*nothing)], None).variance_reduction == 0


def test_under_a_hundred_units_an_arm_the_past_is_left_alone():
    rng = np.random.default_rng(5)
    past = rng.normal(size=150)
    arms = [columns(past[:99], past=past[:99]), columns(past[99:], past=past[99:])]
    assert contrast([stratum(*arms)], None).variance_reduction == 0


def test_a_constant_past_is_no_reason_to_divide_by_zero():
    rng = np.random.default_rng(6)
    arms = [columns(rng.normal(size=200), past=np.full(200, 0.1), past_denominator=np.ones(200)) for _ in range(2)]
    found, without = (contrast([stratum(*arms)], None, covariates=used) for used in (True, False))
    assert (found.difference, found.standard_error) == (without.difference, without.standard_error)


def ramp(rng, shift):
    """A ramp from 99/1 to 50/50 while the baseline rises by itself: an epoch each, units of their own."""
    unit, epoch, arm, values = [], [], [], []
    for number, (share, base) in enumerate(((0.01, 1.0), (0.5, 3.0))):
        drawn = rng.random(20_000) < share
        unit.append(np.arange(20_000) + 20_000 * number)
        epoch.append(np.full(20_000, number))
        arm.append(drawn.astype(int))
        values.append(rng.normal(base + shift * drawn, 1.0))
    return Units(*map(np.concatenate, (unit, epoch, arm)), columns(np.concatenate(values)))


def test_a_ramp_over_a_drifting_baseline_has_the_right_sign_where_pooling_has_the_wrong_one():
    units = ramp(np.random.default_rng(7), shift=-0.1)
    pooled = units.values[units.arm == 1, 0].mean() - units.values[units.arm == 0, 0].mean()
    found = contrast(units.strata(), units.clustered)
    assert pooled > 0.5
    assert found.difference == pytest.approx(-0.1, abs=3 * found.standard_error)
    assert found.difference + 1.96 * found.standard_error < 0


def test_a_ramp_without_an_effect_shows_none():
    units = ramp(np.random.default_rng(8), shift=0.0)
    found = contrast(units.strata(), units.clustered)
    assert abs(found.difference) < 3 * found.standard_error


def coming_back(rng, units=400, epochs=3):
    """The same units in every epoch, each with its own level, redrawn into the same arm or another."""
    level = rng.normal(size=units)
    bucket = rng.random(units)
    shares = (0.2, 0.35, 0.5)[:epochs]
    unit = np.tile(np.arange(units), epochs)
    arm = np.concatenate([(bucket < share).astype(int) for share in shares])
    values = np.tile(level, epochs) + rng.normal(size=units * epochs) * 0.3
    return Units(unit, np.repeat(np.arange(epochs), units), arm, columns(values))


def test_units_that_come_back_in_three_epochs_keep_the_level_and_taken_for_others_they_do_not():
    rng = np.random.default_rng(9)
    clustered = separate = 0
    for _ in range(500):
        units = coming_back(rng)
        strata = units.strata()
        found = contrast(strata, units.clustered)
        clustered += abs(found.difference) > 1.96 * found.standard_error
        naive = contrast(strata, None)
        separate += abs(naive.difference) > 1.96 * naive.standard_error
    assert 0.03 <= clustered / 500 <= 0.075
    assert separate / 500 > 0.15


def test_where_no_unit_comes_back_the_clustered_variance_is_that_of_the_epochs_added_up():
    units = ramp(np.random.default_rng(10), shift=0.5)
    clustered, separate = (contrast(units.strata(), how) for how in (units.clustered, None))
    assert clustered.covariance == pytest.approx(separate.covariance, abs=1e-12)


def test_ratios_keep_their_level_with_units_of_very_many_rows():
    rng = np.random.default_rng(11)
    wrong = rows_wrong = 0
    for _ in range(1_000):
        (n, d), (m, e) = heavy(rng, 600), heavy(rng, 600)
        found = contrast([stratum(columns(n, d), columns(m, e))], None)
        wrong += abs(found.difference) > fixed_factor(found.degrees, 0.05) * found.standard_error
        p, q = n.sum() / d.sum(), m.sum() / e.sum()
        rows_wrong += abs(q - p) > 1.96 * np.sqrt(p * (1 - p) / d.sum() + q * (1 - q) / e.sum())
    assert 0.03 <= wrong / 1_000 <= 0.075
    assert rows_wrong / 1_000 > 0.2  # rows taken for independent


def test_cuped_keeps_its_level():
    rng = np.random.default_rng(12)
    wrong = 0
    for _ in range(1_000):
        past = rng.exponential(size=400)
        now = columns(past + rng.exponential(size=400), past=past, past_denominator=past > 0.5)
        found = contrast([stratum(now[:120], now[120:])], None)
        wrong += abs(found.difference) > fixed_factor(found.degrees, 0.05) * found.standard_error
    assert 0.03 <= wrong / 1_000 <= 0.07


def test_many_errors_in_one_arm_beside_none_in_the_other_are_told_apart():
    errors = columns((np.arange(5_000) < 300).astype("f8"))
    found = contrast([stratum(columns(np.zeros(5_000)), errors)], None)
    assert found.difference / found.standard_error > 10
    assert found.standard_error > contrast([stratum(errors, errors)], None).standard_error / 2


def test_an_arm_of_equal_units_is_not_taken_for_known_without_doubt():
    few = columns((np.arange(5_000) < 3).astype("f8"))
    found = contrast([stratum(columns(np.zeros(5_000)), few)], None)
    assert found.difference / found.standard_error < 1.96
    same = contrast([stratum(*[columns(np.full(200, 0.1))] * 2)], None)
    assert same.standard_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("control", "treatment"),
    [(np.zeros((0, 4)), columns([1.0, 2.0])), (columns([1.0]), columns([1.0, 2.0])), (columns([1, 2], [0, 0]),) * 2],
)
def test_epochs_that_cannot_tell_the_arms_apart_are_left_out(control, treatment):
    assert contrast([stratum(control, treatment)], None) is None
    rng = np.random.default_rng(13)
    good = stratum(*(columns(rng.normal(size=50)) for _ in range(2)))
    found = contrast([stratum(control, treatment, epoch=2), good], None)
    assert found.units_control == 50


def test_moments_of_arrays_are_those_of_numpy():
    values = columns(np.random.default_rng(14).normal(size=30))
    assert moments(values).scatter[0, 0] / 29 == pytest.approx(values[:, 0].var(ddof=1))
