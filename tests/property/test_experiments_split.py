"""The split's promises: shares, independence, and that nobody moves who need not."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import Experiment, Reason, assign, parse_experiment
from experiments.buckets import BUCKETS, bucket, bucket_prefix

UNITS = st.text("ab7/:| \né関\U0001f600", min_size=1, max_size=20)
SALTS = st.text("abXYZ019_-", min_size=1, max_size=16)
SALTS_TRIED = ("7f3c", "a", "2026-q4", "0" * 64)
FALSE_ALARM = 1e-6
"""Of one comparison; the salts are fixed, so that a run that passes passes again."""


def experiment(weights: list[int], **changes: Any) -> Experiment:
    variants = [{"name": f"v{i}", "version": str(i), "bp": bp} for i, bp in enumerate(weights)]
    fixed = {"experiment": "e", "model": "m", "unit": "user", "state": "running", "variants": variants}
    return parse_experiment(fixed | changes)


def buckets(purpose: str, key: str, count: int) -> np.ndarray[Any, Any]:
    prefix = bucket_prefix(purpose, key)
    return np.array([bucket(prefix, b"user-%d" % i) for i in range(count)])


@pytest.mark.parametrize("salt", SALTS_TRIED)
def test_the_shares_of_100_000_units_are_within_binomial_bounds(salt: str):
    drawn = buckets("split", salt, 100_000)
    for weights in ([9_000, 1_000], [5_000, 5_000], [3_333, 3_333, 3_334]):
        arms = experiment(weights, salt=salt)
        for arm in arms.variants:
            inside = int(((drawn >= arm.first_bucket) & (drawn < arm.first_bucket + arm.bp)).sum())
            assert stats.binomtest(inside, len(drawn), arm.bp / BUCKETS).pvalue > FALSE_ALARM
            assert all(arms.variant_at(b) is arm for b in (arm.first_bucket, arm.first_bucket + arm.bp - 1))


@pytest.mark.parametrize("purpose", ["enrol", "split", "layer"])
def test_the_buckets_of_many_salts_are_uniform(purpose: str):
    p_values = []
    for salt in range(60):
        counts = np.bincount(buckets(purpose, f"salt-{salt}", 2_000) // 500, minlength=20)
        p_values.append(stats.chisquare(counts).pvalue)
    assert min(p_values) > FALSE_ALARM
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize("salt", SALTS_TRIED)
def test_enrolment_split_and_layer_are_independent(salt: str):
    draws = [buckets("enrol", salt, 20_000), buckets("split", salt, 20_000), buckets("layer", salt, 20_000)]
    for i, one in enumerate(draws):
        for other in draws[i + 1 :]:
            table = np.histogram2d(one, other, bins=10, range=[[0, BUCKETS], [0, BUCKETS]])[0]
            assert stats.chi2_contingency(table).pvalue > FALSE_ALARM


def test_the_splits_of_two_experiments_are_independent():
    one, other = buckets("split", "7f3c", 20_000), buckets("split", "7f3d", 20_000)
    table = np.histogram2d(one, other, bins=10, range=[[0, BUCKETS], [0, BUCKETS]])[0]
    assert stats.chi2_contingency(table).pvalue > FALSE_ALARM


@given(UNITS, SALTS, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_ramping_up_moves_no_unit_that_is_enrolled(unit: str, salt: str, one_bp: int, other_bp: int):
    low, high = sorted((one_bp, other_bp))
    before = assign((experiment([5_000, 5_000], salt=salt, enrol_bp=low),), unit, {})
    after = assign((experiment([5_000, 5_000], salt=salt, enrol_bp=high),), unit, {})
    if before.enrolled:
        assert (after.reason, after.variant) == (Reason.SPLIT, before.variant)


@given(UNITS, SALTS, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_moving_weight_between_two_arms_moves_only_units_of_the_arm_that_shrinks(
    unit: str, salt: str, one_bp: int, other_bp: int
):
    low, high = sorted((one_bp, other_bp))
    before = assign((experiment([low, BUCKETS - low], salt=salt),), unit, {}).variant
    after = assign((experiment([high, BUCKETS - high], salt=salt),), unit, {}).variant
    assert before is not None
    assert after is not None
    assert (before.name, after.name) != ("v0", "v1")


@given(UNITS, st.lists(st.integers(1, BUCKETS - 1), min_size=1, max_size=5, unique=True).map(sorted))
def test_experiments_with_disjoint_slots_are_mutually_exclusive(unit: str, cuts: list[int]):
    edges = [0, *cuts, BUCKETS]
    layered = [
        experiment([BUCKETS], experiment=f"e{i}", salt=f"s{i}", layer={"name": "page", "slots": [[first, end]]})
        for i, (first, end) in enumerate(pairwise(edges))
    ]
    assert sum(assign((one,), unit, {}).enrolled for one in layered) == 1


@given(UNITS, SALTS, st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any))
@settings(max_examples=50)
def test_every_unit_falls_into_the_arm_whose_range_holds_its_bucket(unit: str, salt: str, parts: list[int]):
    weights = [part * BUCKETS // sum(parts) for part in parts]
    weights[parts.index(max(parts))] += BUCKETS - sum(weights)
    drawn = assign((experiment(weights, salt=salt),), unit, {})
    assert drawn.variant is not None
    assert drawn.split_bucket is not None
    assert drawn.variant.first_bucket <= drawn.split_bucket < drawn.variant.first_bucket + drawn.variant.bp


@given(UNITS, SALTS)
def test_a_unit_is_drawn_alike_every_time(unit: str, salt: str):
    first = assign((experiment([5_000, 5_000], salt=salt),), unit, {})
    again = assign((experiment([5_000, 5_000], salt=salt),), unit, {"age": 3})
    assert first[1:] == again[1:]
