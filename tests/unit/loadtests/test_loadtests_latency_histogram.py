from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.latency_histogram import LATENCY_NS_MAX, RELATIVE_ERROR_MAX, LatencyHistogram

LATENCIES = st.lists(
    st.one_of(st.integers(0, 1_000), st.integers(10_000, 50_000_000), st.integers(0, LATENCY_NS_MAX)), min_size=1
)


def histogram_of(latencies_ns) -> LatencyHistogram:
    made = LatencyHistogram()
    for latency_ns in latencies_ns:
        made.record(latency_ns)
    return made


@given(LATENCIES, st.integers(1, 1_000))
def test_a_percentile_is_the_exact_nearest_rank_within_half_a_per_cent(latencies_ns, thousandths):
    exact = sorted(latencies_ns)[ceil(thousandths * len(latencies_ns) / 1_000) - 1]
    found = histogram_of(latencies_ns).percentile_ns(thousandths / 1_000)
    assert abs(found - exact) <= exact * RELATIVE_ERROR_MAX
    assert RELATIVE_ERROR_MAX < 0.005


def test_seven_percent_of_a_hundred_latencies_is_the_seventh():
    assert histogram_of(range(1, 101)).percentile_ns(0.07) == 7


@given(LATENCIES, LATENCIES)
def test_histograms_that_are_added_are_the_histogram_of_all(some_ns, others_ns):
    added = histogram_of(some_ns)
    added.add(histogram_of(others_ns))
    whole = histogram_of(some_ns + others_ns)
    assert (added.buckets(), added.count, added.max_ns) == (whole.buckets(), whole.count, whole.max_ns)


@given(LATENCIES)
def test_a_histogram_is_made_again_from_what_it_tells(latencies_ns):
    told = histogram_of(latencies_ns)
    made = LatencyHistogram.from_buckets(told.buckets(), told.max_ns)
    assert made.count == len(latencies_ns)
    assert [made.percentile_ns(share) for share in (0.5, 0.99, 1)] == [
        told.percentile_ns(share) for share in (0.5, 0.99, 1)
    ]


@pytest.mark.parametrize(("latency_ns", "counted_ns"), [(-5, 0), (LATENCY_NS_MAX + 1, LATENCY_NS_MAX)])
def test_what_no_latency_can_be_counts_as_the_nearest_that_can(latency_ns, counted_ns):
    assert histogram_of([latency_ns]).max_ns == counted_ns


def test_a_million_latencies_take_as_much_memory_as_one():
    few, many = histogram_of([1]), histogram_of(range(0, 1_000_000_000, 10_000))
    assert len(many._counts) == len(few._counts) < 5_000


def test_the_percentile_of_nothing_is_0():
    assert LatencyHistogram().percentile_ns(0.99) == 0


@pytest.mark.parametrize("share", [0, 1.1])
def test_a_share_beyond_its_range_is_refused(share):
    with pytest.raises(ValueError, match="no percentile"):
        histogram_of([1]).percentile_ns(share)
