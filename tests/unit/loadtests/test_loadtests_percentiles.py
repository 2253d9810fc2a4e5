import pytest

from loadtests.percentiles import spread


def test_a_spread_is_the_middle_round_and_the_extremes():
    assert spread([5, 1, 100]) == (5, 1, 100)


def test_a_spread_of_no_round_is_refused():
    with pytest.raises(ValueError, match="no rounds"):
        spread([])
