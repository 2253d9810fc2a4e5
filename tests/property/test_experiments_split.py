"""The split's promises: shares, independence, and that nobody moves who need not."""

from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import Experiment, Hash, Reason, assign, parse_experiment
from experiments.buckets import BUCKETS, draw

UNITS = st.text("ab7/:| \né関\U0001f600", min_size=1, max_size=20)
SALTS = st.text("abXYZ019_-", min_size=1, max_size=16)
HASHES = st.sampled_from(list(Hash))
SALTS_TRIED = ("7f3c", "a", "2026-q4", "0" * 64)
FALSE_ALARM = 1e-6
"""Of one comparison; the salts are fixed, so that a run that passes passes again."""

HOLDOUT = {"name": "h", "bp": 1_000}
PURPOSES = ("enrol", "split", "layer", "holdout", "shadow")


def experiment(weights: list[int], **changes: Any) -> Experiment:
    variants = [{"name": f"v{i}", "version": str(i), "bp": bp} for i, bp in enumerate(weights)]
    fixed = {"experiment": "e", "model": "m", "unit": "user", "state": "running", "variants": variants}
    return parse_experiment(fixed | changes)


@cache
def buckets(purpose: str, key: str, count: int, *, hash_: Hash = Hash.V1) -> np.ndarray[Any, Any]:
    """Draw users. key: the salt, or the name of the layer or the holdout."""
    if purpose in ("layer", "holdout"):
        drawn = draw(purpose, key)
    else:
        made = experiment([BUCKETS], hash=hash_, salt=key, shadow={"version": "1"})
        drawn = {"enrol": made.enrol, "split": made.split, "shadow": made.shadow_draw}[purpose]
    return np.array([drawn(f"user-{i}") for i in range(count)])


def dependence(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Return the p-value of the hypothesis that two draws are independent."""
    table = np.histogram2d(one, other, bins=10, range=[[0, BUCKETS], [0, BUCKETS]])[0]
    return float(stats.chi2_contingency(table).pvalue)


@pytest.mark.parametrize("hash_", Hash)
@pytest.mark.parametrize("salt", SALTS_TRIED)
def test_the_shares_of_100_000_units_are_within_binomial_bounds(salt: str, hash_: Hash):
    drawn = buckets("split", salt, 100_000, hash_=hash_)
    for weights in ([9_000, 1_000], [5_000, 5_000], [3_333, 3_333, 3_334]):
        arms = experiment(weights, salt=salt, hash=hash_)
        for arm in arms.variants:
            ((first, end),) = arm.ranges
            inside = int(((drawn >= first) & (drawn < end)).sum())
            assert stats.binomtest(inside, len(drawn), arm.bp / BUCKETS).pvalue > FALSE_ALARM
            assert all(arms.variant_at(b) is arm for b in (first, end - 1))


@pytest.mark.parametrize(
    ("purpose", "hash_"),
    [*[(p, Hash.V1) for p in PURPOSES], *[(p, h) for p in PURPOSES[:2] for h in Hash if h is not Hash.V1]],
)
def test_the_buckets_of_many_salts_are_uniform(purpose: str, hash_: Hash):
    p_values = []
    for salt in range(60):
        counts = np.bincount(buckets(purpose, f"salt-{salt}", 2_000, hash_=hash_) // 500, minlength=20)
        p_values.append(stats.chisquare(counts).pvalue)
    assert min(p_values) > FALSE_ALARM
    assert stats.kstest(p_values, "uniform").pvalue > FALSE_ALARM


@pytest.mark.parametrize("hash_", [Hash.V1, Hash.EPPO])
@pytest.mark.parametrize("salt", SALTS_TRIED)
def test_enrolment_split_layer_holdout_and_shadow_are_independent(salt: str, hash_: Hash):
    draws = [buckets(purpose, salt, 20_000, hash_=hash_) for purpose in PURPOSES]
    for one, other in combinations(draws, 2):
        assert dependence(one, other) > FALSE_ALARM


@pytest.mark.parametrize("salt", SALTS_TRIED)
def test_growthbooks_one_draw_is_independent_of_layer_holdout_and_shadow(salt: str):
    one = buckets("split", salt, 20_000, hash_=Hash.GROWTHBOOK_V2)
    assert np.array_equal(one, buckets("enrol", salt, 20_000, hash_=Hash.GROWTHBOOK_V2))
    for purpose in ("layer", "holdout", "shadow"):
        assert dependence(one, buckets(purpose, salt, 20_000, hash_=Hash.GROWTHBOOK_V2)) > FALSE_ALARM


@pytest.mark.parametrize("hash_", Hash)
def test_the_splits_of_two_experiments_are_independent(hash_: Hash):
    drawn = [buckets("split", salt, 20_000, hash_=hash_) for salt in ("7f3c", "7f3d", "7f3", "e-1", "e-2")]
    for one, other in combinations(drawn, 2):
        assert dependence(one, other) > FALSE_ALARM


def test_the_splits_of_two_hashes_under_one_salt_are_independent():
    drawn = [buckets("split", "7f3c", 20_000, hash_=hash_) for hash_ in Hash]
    for one, other in combinations(drawn, 2):
        assert dependence(one, other) > FALSE_ALARM


@given(UNITS, SALTS, HASHES, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_ramping_up_moves_no_unit_that_is_enrolled(unit: str, salt: str, hash_: Hash, one_bp: int, other_bp: int):
    low, high = sorted((one_bp, other_bp))
    before = assign((experiment([3_333, 6_667], salt=salt, hash=hash_, enrol_bp=low),), unit, {})
    after = assign((experiment([3_333, 6_667], salt=salt, hash=hash_, enrol_bp=high),), unit, {})
    if before.enrolled:
        assert (after.reason, after.variant) == (Reason.SPLIT, before.variant)


@pytest.mark.parametrize("hash_", Hash)
def test_on_a_ramp_units_only_come_in_and_each_stays_in_its_arm(hash_: Hash):
    steps = [
        experiment([2_000, 3_000, 5_000], hash=hash_, enrol_bp=bp) for bp in (0, 1, 100, 777, 1_000, 5_000, 10_000)
    ]
    enrolled = []
    for unit in (f"user-{i}" for i in range(2_000)):
        arms = [assign((step,), unit, {}).variant for step in steps]
        came_in = next(i for i, arm in enumerate(arms) if arm is not None)
        assert {arm.name for arm in arms[came_in:] if arm is not None} == {arms[-1].name}
        assert None not in arms[came_in:]
        enrolled.append(came_in)
    shares = np.searchsorted(np.sort(enrolled), range(len(steps)), side="right") / len(enrolled)
    assert shares[0] == 0
    assert shares == pytest.approx([step.enrol_bp / BUCKETS for step in steps], abs=0.06)


@given(UNITS, SALTS, HASHES, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_moving_weight_between_two_arms_moves_only_units_of_the_arm_that_shrinks(
    unit: str, salt: str, hash_: Hash, one_bp: int, other_bp: int
):
    low, high = sorted((one_bp, other_bp))
    before = assign((experiment([low, BUCKETS - low], salt=salt, hash=hash_),), unit, {}).variant
    after = assign((experiment([high, BUCKETS - high], salt=salt, hash=hash_),), unit, {}).variant
    assert before is not None
    assert after is not None
    assert (before.name, after.name) != ("v0", "v1")


@given(UNITS, st.lists(st.integers(1, BUCKETS - 1), min_size=1, max_size=5, unique=True).map(sorted))
def test_experiments_with_disjoint_slots_are_mutually_exclusive(unit: str, cuts: list[int]):
    edges = [0, *cuts, BUCKETS]
    layered = [
        experiment(
            [BUCKETS],
            experiment=f"e{i}",
            salt=f"s{i}",
            hash=list(Hash)[i % 3],
            layer={"name": "page", "slots": [[first, end]]},
        )
        for i, (first, end) in enumerate(pairwise(edges))
    ]
    assert sum(assign((one,), unit, {}).enrolled for one in layered) == 1


def test_a_holdout_is_one_set_of_units_over_all_experiments_that_name_it():
    naming = [
        experiment([5_000, 5_000], experiment="a", salt="a", holdout=HOLDOUT),
        experiment([BUCKETS], experiment="b", model="another", hash="growthbook-v2", enrol_bp=100, holdout=HOLDOUT),
        experiment([5_000, 5_000], experiment="c", hash="eppo", layer={"slots": [[0, 500]]}, holdout=HOLDOUT),
    ]
    units = [f"user-{i}" for i in range(20_000)]
    held = [{unit for unit in units if assign((e,), unit, {}).reason is Reason.HELD_OUT} for e in naming]
    assert held[0] == held[1] == held[2]
    assert stats.binomtest(len(held[0]), len(units), HOLDOUT["bp"] / BUCKETS).pvalue > FALSE_ALARM


def test_the_units_of_two_holdouts_are_independent():
    assert dependence(buckets("holdout", "h", 20_000), buckets("holdout", "g", 20_000)) > FALSE_ALARM


def test_a_larger_holdout_keeps_the_units_of_the_smaller():
    units = [f"user-{i}" for i in range(5_000)]
    sizes = [experiment([BUCKETS], holdout=HOLDOUT | {"bp": bp}) for bp in (0, 100, 1_000, 5_000, BUCKETS)]
    held = [{unit for unit in units if assign((size,), unit, {}).variant is None} for size in sizes]
    assert all(small < large for small, large in pairwise(held))


@given(UNITS, SALTS, HASHES, st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any))
@settings(max_examples=50)
def test_every_unit_falls_into_the_arm_whose_range_holds_its_bucket(
    unit: str, salt: str, hash_: Hash, parts: list[int]
):
    weights = [part * BUCKETS // sum(parts) for part in parts]
    weights[parts.index(max(parts))] += BUCKETS - sum(weights)
    drawn = assign((experiment(weights, salt=salt, hash=hash_),), unit, {})
    assert drawn.variant is not None
    assert drawn.split_bucket is not None
    ((first, end),) = drawn.variant.ranges
    assert end - first == drawn.variant.bp
    if hash_ is Hash.GROWTHBOOK_V2:  # whose borders are sums of fractions
        assert first - 1 <= drawn.split_bucket <= end
    else:
        assert first <= drawn.split_bucket < end


@given(UNITS, SALTS, HASHES)
def test_a_unit_is_drawn_alike_every_time(unit: str, salt: str, hash_: Hash):
    first = assign((experiment([5_000, 5_000], salt=salt, hash=hash_),), unit, {})
    again = assign((experiment([5_000, 5_000], salt=salt, hash=hash_),), unit, {"age": 3})
    assert first[1:] == again[1:]
