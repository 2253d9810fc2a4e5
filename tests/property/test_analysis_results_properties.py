import math
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.experiment_results.charts import scale_of
from analysis.experiment_results.contrast import contrast
from analysis.experiment_results.effect_path import RunningUnits
from analysis.experiment_results.intervals import anytime_factor, anytime_p_value, fixed_factor, fixed_p_value, tuning
from analysis.experiment_results.quantiles import distribution, quantile_interval
from analysis.experiment_results.sample_ratio import Split, log_bayes_factor, ratio_test
from analysis.experiment_results.time_slots import SLOTS_MAX, time_slots
from experiments.errors import ExperimentError
from experiments.metrics import parse_metrics
from tests.unit.analysis.experiment_results.unit_arrays import Units, columns, moments, stratum

seeds = st.integers(0, 2**32 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
plan_keys = st.sampled_from(
    ["primary", "secondary", "mde_rel", "power", "alpha", "window_s", "covariate_days", "units_planned", "name", "of"]
)


def draw_units(seed, epochs=2, units=60):
    """Units that are in several epochs, with a past, some of them without a denominator."""
    rng = np.random.default_rng(seed)
    unit = np.tile(np.arange(units), epochs)
    lines = unit.size
    values = columns(
        rng.poisson(2, lines) * rng.random(lines), rng.poisson(1.5, lines), rng.random(lines), rng.integers(0, 2, lines)
    )
    return Units(unit, np.repeat(np.arange(epochs), units), rng.integers(0, 2, lines), values)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_with_the_arms_exchanged_the_difference_changes_its_sign_and_nothing_else(seed):
    units = draw_units(seed)
    other = Units(units.unit, units.epoch, 1 - units.arm, units.values)
    one, two = (contrast(some.strata(), some.clustered) for some in (units, other))
    assert two.difference == pytest.approx(-one.difference)
    assert two.standard_error == pytest.approx(one.standard_error)
    assert two.degrees == pytest.approx(one.degrees)


@given(seeds, st.floats(0.01, 1_000))
@settings(max_examples=40, deadline=None)
def test_in_another_currency_the_effect_is_the_same(seed, rate):
    units = draw_units(seed)
    scaled = Units(units.unit, units.epoch, units.arm, units.values * [rate, 1, rate, 1])
    one, two = (contrast(some.strata(), some.clustered) for some in (units, scaled))
    assert two.difference == pytest.approx(rate * one.difference, rel=1e-6)
    assert two.standard_error == pytest.approx(rate * one.standard_error, rel=1e-6)


@given(seeds, st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_moments_kept_up_to_date_are_those_of_the_final_values(seed, parts):
    rng = np.random.default_rng(seed)
    units = draw_units(seed)
    order = np.lexsort((units.unit, units.arm, units.epoch))
    group = (units.epoch * 2 + units.arm)[order]
    unit, values = units.unit[order], units.values[order]
    running = RunningUnits(group, unit, 4, values.mean(axis=0))
    part = rng.integers(0, parts, values.shape[0])
    for index in range(parts):  # first a share of what each will be, then the rest
        places = np.flatnonzero(part == index)
        running.add(places, (values[places] * 0.25).T)
        running.add(places, (values[places] * 0.75).T)
    for index in range(4):
        found, wanted = running.moments(index), moments(values[group == index])
        assert found.mean == pytest.approx(wanted.mean)
        assert found.scatter == pytest.approx(wanted.scatter, abs=1e-9)
        assert (found.units, found.nonzero) == (wanted.units, wanted.nonzero)
    influences = []
    contrast(units.strata(), lambda given: influences.extend(given) or np.eye(2))
    weights = np.zeros((4, 2, 5))
    for one in influences:
        weights[one.epoch * 2 + one.is_treatment] = one.weights
    assert running.clustered(weights) == pytest.approx(units.clustered(influences))


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 2_000), st.floats(0.01, 0.99)), min_size=1, max_size=4))
def test_the_ratio_test_does_not_mind_the_order_of_arms_or_epochs(given_splits):
    splits = [Split(np.array([a, b]), np.array([share, 1 - share])) for a, b, share in given_splits]
    turned = [Split(one.observed[::-1], one.shares[::-1]) for one in reversed(splits)]
    one, two = ratio_test(splits), ratio_test(turned)
    assert one.statistic == pytest.approx(two.statistic)
    assert 0 <= one.p_value <= 1
    evidence = [log_bayes_factor(split) for split in splits]
    assert all(math.isfinite(value) for value in evidence)
    assert sum(evidence) == pytest.approx(sum(map(log_bayes_factor, turned)), abs=1e-6)


@given(st.floats(-50, 50), st.floats(1e-6, 1e6), st.floats(2, 1e6))
def test_what_may_be_looked_at_any_time_is_never_surer_than_one_look(z, clock, degrees):
    assert anytime_p_value(z, clock) >= fixed_p_value(z, 1e9) * (1 - 1e-9)
    assert anytime_factor(clock, 0.05) > fixed_factor(1e9, 0.05)
    assert anytime_factor(clock, 0.05) >= anytime_factor(tuning(0.05), 0.05) * (1 - 1e-12)
    assert 0 <= fixed_p_value(z, degrees) <= 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 0.5))
def test_a_quantile_lies_in_its_interval_and_is_one_of_the_values(values, share, error):
    found = distribution(np.array(values), np.ones(len(values)))
    interval = quantile_interval(found, share, error, 2.0)
    assert interval.low <= found.quantile(share) <= interval.high
    assert found.quantile(share) in values


@given(st.integers(0, 4 * 10**15), st.integers(0, 10**16))
def test_slots_hold_the_span_and_are_not_too_many(first_us, length_us):
    slots = time_slots(first_us, first_us + length_us)
    assert slots.origin_us <= first_us
    assert slots.end_us(slots.count - 1) > first_us + length_us >= slots.end_us(slots.count - 2)
    assert slots.count <= SLOTS_MAX


@given(st.lists(st.floats(-1e9, 1e9), max_size=8))
def test_a_scale_holds_its_values_and_has_few_round_ticks(values):
    scale = scale_of(values)
    assert all(0 <= scale.at(value) <= 100 for value in values)
    assert scale.low < scale.high
    assert len(scale.ticks()) <= 12


@given(json_values | st.dictionaries(plan_keys, json_values, max_size=5))
def test_no_document_makes_the_plan_of_metrics_fail_in_another_way_than_it_says(value):
    with suppress(ExperimentError):
        assert parse_metrics(value).primary.name


def test_the_moments_of_a_stratum_are_those_of_its_arms():
    one = stratum(columns([1.0, 2.0, 3.0]), columns([4.0, 6.0]))
    assert (one.control.units, one.treatment.units) == (3, 2)
    assert one.weight == pytest.approx(6 / 5)
