import numpy as np
import pytest
from scipy import stats

from analysis.experiment_results import ResultsRequest, experiment_results
from analysis.experiment_results.ratio_checks import NOT_SEEN
from analysis.experiment_results.sample_ratio import Split, anytime_p_value, log_bayes_factor, ratio_test
from tests.unit.analysis.experiment_results.experiment_logs import START_US, document, simple_experiment


def split(*observed, shares=(0.5, 0.5)):
    return Split(np.array(observed), np.array(shares))


def test_one_epoch_is_pearsons_chi_square():
    found = ratio_test([split(5_100, 4_900, 1_000, shares=(0.45, 0.45, 0.1))])
    oracle = stats.chisquare([5_100, 4_900, 1_000], [4_950, 4_950, 1_100])
    assert (found.statistic, found.p_value) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert found.degrees == 2


def test_epochs_are_each_held_to_their_own_shares_and_added_up():
    ramp = [split(9_900, 100, shares=(0.99, 0.01)), split(5_000, 5_000)]
    assert ratio_test(ramp).p_value == 1.0
    assert ratio_test([split(14_900, 5_100)]).p_value < 1e-9  # what pooling would have made of it
    assert ratio_test(ramp).degrees == 2


@pytest.mark.parametrize("observed", [(3, 0), (9, 1), (60, 0)])
def test_few_units_are_judged_by_simulated_splits(observed):
    shares = (0.9, 0.1)
    exact = stats.binomtest(observed[1], sum(observed), shares[1])
    expected = np.array(shares) * sum(observed)
    statistic = np.sum((np.array(observed) - expected) ** 2 / expected)
    tails = [
        stats.binom.pmf(k, sum(observed), shares[1])
        for k in range(sum(observed) + 1)
        if (k - expected[1]) ** 2 * (1 / expected[0] + 1 / expected[1]) >= statistic * (1 - 1e-9)
    ]
    found = ratio_test([split(*observed, shares=shares)]).p_value
    if expected.min() < 5:
        assert found == pytest.approx(sum(tails), abs=0.01)
    assert found == pytest.approx(exact.pvalue, abs=0.05)


def test_units_in_an_arm_without_a_share_are_a_mismatch():
    assert ratio_test([split(500, 500, 1, shares=(0.5, 0.5, 0.0))]).p_value == 0
    assert anytime_p_value([log_bayes_factor(split(500, 500, 1, shares=(0.5, 0.5, 0.0)))]) == 0


def test_nothing_and_one_arm_alone_are_no_mismatch():
    assert ratio_test([]).p_value == 1
    assert ratio_test([split(0, 0)]).p_value == 1
    assert ratio_test([split(700, 0, shares=(1.0, 0.0))]).p_value == 1


def test_under_the_split_about_one_healthy_experiment_in_a_thousand_is_suspected():
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(20_000, [0.5, 0.3, 0.2], size=20_000)
    statistics = np.sum(np.square(drawn - [10_000, 6_000, 4_000]) / [10_000, 6_000, 4_000], axis=1)
    p_values = stats.chi2.sf(statistics, 2)
    assert ratio_test([split(*drawn[0], shares=(0.5, 0.3, 0.2))]).p_value == pytest.approx(p_values[0])
    assert np.mean(p_values < 0.001) < 0.002


def test_the_bayes_factor_is_a_martingale_under_the_split():
    # Exactly: over all counts of n units, its mean is 1.
    n, share = 12, 0.3
    factors = [np.exp(log_bayes_factor(split(k, n - k, shares=(share, 1 - share)))) for k in range(n + 1)]
    chances = stats.binom.pmf(np.arange(n + 1), n, share)
    assert np.dot(factors, chances) == pytest.approx(1.0)


def test_looked_at_all_along_the_sequential_check_alarms_in_at_most_a_share_alpha_of_experiments():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(300):
        so_far = np.cumsum(rng.multinomial(300, [0.5, 0.5], size=60), axis=0)
        alarms += anytime_p_value([log_bayes_factor(split(*counts)) for counts in so_far]) < 0.05
    assert alarms / 300 <= 0.05


def test_the_sequential_check_finds_two_percent_of_an_arm_missing():
    rng = np.random.default_rng(3)
    counts = np.array([500_000, rng.binomial(500_000, 0.98)])
    assert anytime_p_value([log_bayes_factor(split(*counts))]) < 0.001


def test_two_percent_of_one_arms_rows_lost_is_caught_and_hides_the_effects(logs):
    rng = np.random.default_rng(4)
    units = 200_000
    arm = rng.integers(0, 2, units)
    kept = np.flatnonzero((arm == 0) | (rng.random(units) > 0.02))
    names = np.char.add("u", kept.astype(str))
    logs.rows(names, np.array(["control", "treatment"])[arm[kept]], START_US + kept)
    results = experiment_results(document(), logs.root)
    (failed, *_) = (check for check in results.sample_ratio.checks if check.failed)
    assert (failed.stage, failed.p_value < 0.001) == ("assigned", True)
    assert results.effects_hidden
    assert results.metrics == results.latency == results.effect_paths == ()


def test_an_arm_of_which_every_row_is_lost_is_caught(logs):
    logs.rows([f"u{n}" for n in range(40)], "control", START_US)
    results = experiment_results(document(), logs.root)
    assert results.sample_ratio.failed
    assert [(arm.name, arm.units) for arm in results.arms] == [("control", 40), ("treatment", 0)]


def test_a_share_that_no_arm_of_the_document_can_have_had_is_named_as_not_seen(logs):
    arms = ["control", "treatment"] * 500
    logs.rows([f"u{n}" for n in range(1_000)], arms, START_US, assignment_probability=1 / 3)
    results = experiment_results(document(), logs.root)
    assert results.arms[-1].name == NOT_SEEN
    assert results.sample_ratio.failed


def test_outcomes_that_one_arm_loses_are_caught_where_they_are_counted_per_outcome(logs):
    rng = np.random.default_rng(5)
    names = np.array([f"u{n}" for n in range(4_000)])
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 4_000)]
    ids = logs.rows(names, arm, START_US)
    told = np.flatnonzero((arm == "control") | (rng.random(4_000) < 0.8))
    logs.outcomes("correct", 1.0, START_US + 1, prediction_id=ids[told])
    lost = experiment_results(document(), logs.root)
    assert [check.stage for check in lost.sample_ratio.checks if check.failed] == ["outcome"]
    # Per unit, that somebody has an outcome is the effect.
    bought = {"primary": {"name": "correct", "of": "per_unit"}, "covariate_days": 0}
    found = experiment_results(document(metrics=bought), logs.root)
    assert not found.sample_ratio.failed
    assert found.of("primary")[0].verdict == "worse"


def test_units_that_never_got_their_own_version_are_caught_at_the_served_stage(logs):
    rng = np.random.default_rng(6)
    arm = np.array(["control", "treatment"])[rng.integers(0, 2, 4_000)]
    served = np.where((arm == "treatment") & (rng.random(4_000) < 0.3), None, arm)
    logs.rows([f"u{n}" for n in range(4_000)], arm, START_US, variant_served=served.tolist())
    results = experiment_results(document(), logs.root)
    assert [check.stage for check in results.sample_ratio.checks if check.failed] == ["served"]
    assert results.arms[1].rows_not_served > 400


def test_effects_despite_a_mismatch_are_shown_only_where_asked_for(logs):
    simple_experiment(logs, np.random.default_rng(7), units=1_500)
    logs.rows([f"extra{n}" for n in range(300)], "treatment", START_US)
    hidden = experiment_results(document(), logs.root)
    shown = experiment_results(document(), logs.root, ResultsRequest(show_despite_srm=True))
    assert (hidden.effects_hidden, shown.effects_hidden) == (True, False)
    assert shown.sample_ratio.failed
    assert shown.of("primary")[0].absolute is not None


def test_each_epochs_own_check_is_among_the_checks(logs):
    rng = np.random.default_rng(8)
    for epoch, share in ((1, 0.1), (2, 0.5)):
        arm = np.where(rng.random(2_000) < share, "treatment", "control")
        probability = np.where(arm == "treatment", share, 1 - share)
        names = [f"u{n}" for n in range(2_000)]  # the same units come back
        logs.rows(names, arm, START_US + epoch, epoch=epoch, assignment_probability=probability)
    results = experiment_results(document(), logs.root)
    assigned = [check for check in results.sample_ratio.checks if check.stage == "assigned"]
    assert [(check.epoch, sum(check.units)) for check in assigned] == [(None, 2_000), (1, 2_000), (2, 2_000)]
    assert not results.sample_ratio.failed
