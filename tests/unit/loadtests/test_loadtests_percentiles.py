import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.percentiles import percentile, spread


@given(st.lists(st.integers(), min_size=1), st.integers(1, 1000))
def test_a_percentile_is_the_least_value_that_its_share_does_not_exceed(values, thousandths):
    ascending = sorted(values)
    found = percentile(ascending, thousandths / 1000)
    assert sum(value <= found for value in values) * 1000 >= thousandths * len(values)
    below = [value for value in values if value < found]
    assert len(below) * 1000 < thousandths * len(values)


def test_seven_percent_of_a_hundred_values_is_the_seventh():
    assert percentile(range(1, 101), 0.07) == 7


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], 0), ([1], 1.1)])
def test_a_percentile_of_nothing_or_beyond_its_range_is_refused(values, share):
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_a_spread_is_the_middle_round_and_the_extremes():
    assert spread([5, 1, 100]) == (5, 1, 100)
