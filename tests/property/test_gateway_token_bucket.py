"""A token bucket on a clock of the test's: never more than its burst and its rate, and never less than it promised."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.token_bucket import TokenBucket

RATES = st.floats(0.001, 100_000)
BURSTS = st.floats(1, 10_000)
STEPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 100)), max_size=200)
STARTS = st.floats(0, 1e7)


@given(RATES, BURSTS, STARTS, STEPS)
def test_no_stretch_of_time_sees_more_than_the_burst_and_the_rate(rate, burst, start, steps):
    bucket, now, taken = TokenBucket(rate, burst, start), start, []
    for step in steps:
        now += step
        if bucket.take(now) == 0.0:
            taken.append(now)
    for first, since in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - since) + 1e-3


@given(RATES, BURSTS, STARTS, STEPS)
def test_who_waits_as_long_as_was_said_is_served_and_who_waits_less_is_not(rate, burst, start, steps):
    bucket, now = TokenBucket(rate, burst, start), start
    for step in steps:
        now += step
        wait = bucket.take(now)
        assert wait >= 0.0
        if wait > 1e-3:
            assert bucket.take(now + wait / 2) > 0.0
            now += wait / 2
            assert bucket.take(now + bucket.take(now) * (1 + 1e-6) + 1e-6) == 0.0
            now += wait


@given(RATES, BURSTS, STARTS, st.floats(0, 1e6))
def test_a_clock_that_is_set_back_gives_no_tokens(rate, burst, start, back):
    bucket = TokenBucket(rate, burst, start)
    while bucket.take(start) == 0.0:
        pass
    assert bucket.take(start - back) > 0.0
    assert bucket.take(start) > 0.0


@given(RATES, BURSTS, STARTS)
def test_a_full_bucket_serves_its_burst_at_once(rate, burst, start):
    bucket = TokenBucket(rate, burst, start)
    assert all(bucket.take(start) == 0.0 for _ in range(int(burst)))
    assert bucket.take(start) > 0.0
