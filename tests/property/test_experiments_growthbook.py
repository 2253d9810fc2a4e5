"""GrowthBook's ranges, bucket by bucket beside the floating-point rule that its SDKs apply to each unit."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments.buckets import BUCKETS
from experiments.growthbook import covered_ranges, draw, fnv1a_32

WEIGHTS = st.lists(st.integers(0, BUCKETS), max_size=8).map(
    lambda cuts: [end - first for first, end in pairwise([0, *sorted(cuts), BUCKETS])]
)
TEXT = st.text(st.characters(), max_size=12)
"""Of any character, a lone half of a pair too."""


def by_the_rule(weights_bp: list[int], coverage_bp: int) -> list[int | None]:
    """Choose each bucket's variation as the SDKs do, by comparing fractions."""
    coverage = coverage_bp / 10_000
    ranges, start = [], 0.0
    for weight_bp in weights_bp:
        ranges.append((start, start + coverage * (weight_bp / 10_000)))
        start += weight_bp / 10_000
    chosen: list[int | None] = []
    for bucket in range(BUCKETS):
        n = bucket / 10_000
        chosen.append(next((i for i, (first, end) in enumerate(ranges) if first <= n < end), None))
    return chosen


@given(WEIGHTS, st.integers(0, BUCKETS))
@example([2_000, 3_000, 5_000], 2_000)  # 0.2 * 0.2 is more than 0.04
@example([1_000] * 10, BUCKETS)  # ten times 0.1 is less than 1
@example([3_333, 3_333, 3_334], 1)
@settings(max_examples=60, deadline=None)
def test_covered_ranges_hold_the_buckets_that_the_floating_point_rule_chooses(weights_bp: list[int], coverage_bp: int):
    chosen: list[int | None] = [None] * BUCKETS
    for index, (first, end) in enumerate(covered_ranges(weights_bp, coverage_bp)):
        chosen[first:end] = [index] * max(0, end - first)
    assert chosen == by_the_rule(weights_bp, coverage_bp)


@given(WEIGHTS, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
@settings(deadline=None)
def test_a_larger_coverage_keeps_every_bucket_in_its_variation(weights_bp: list[int], one_bp: int, other_bp: int):
    low, high = (covered_ranges(weights_bp, bp) for bp in sorted((one_bp, other_bp)))
    assert all(small[0] == large[0] and small[1] <= large[1] for small, large in zip(low, high, strict=True))
    assert all(one[1] <= other[0] or other[0] >= other[1] for one, other in pairwise(high))


def code_units(text: str) -> list[int]:
    """Split a text as JavaScript's charCodeAt does."""
    found = []
    for point in map(ord, text):
        found += [point] if point < 0x10000 else [0xD800 + (point - 0x10000 >> 10), 0xDC00 + (point - 0x10000 & 0x3FF)]
    return found


@given(TEXT, TEXT)
def test_the_hash_goes_over_the_code_units_of_utf_16_and_may_be_taken_up_in_the_middle(one: str, other: str):
    value = 0x811C9DC5
    for unit in code_units(one + other):
        value = (value ^ unit) * 0x01000193 % 2**32
    assert fnv1a_32(one + other) == value
    assert fnv1a_32(other, fnv1a_32(one)) == value


@given(TEXT, TEXT)
def test_a_draw_hashes_seed_and_unit_and_then_the_decimal_text_of_that(seed: str, unit: str):
    assert draw(seed)(unit) == fnv1a_32(str(fnv1a_32(seed + unit))) % BUCKETS


@pytest.mark.parametrize("unit", ["\U0001f600", "𠮷", "a\U0001f600b"])
def test_a_character_beyond_the_bmp_is_two_code_units(unit: str):
    assert fnv1a_32(unit) == fnv1a_32("".join(map(chr, code_units(unit))))
    assert fnv1a_32(unit) != fnv1a_32("".join(chr(ord(c) & 0xFFFF) for c in unit))
