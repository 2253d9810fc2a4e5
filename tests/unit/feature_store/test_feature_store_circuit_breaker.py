from feature_store.circuit_breaker import (
    FAILURES_TO_OPEN,
    OPEN_S_MAX,
    OPEN_S_MIN,
    REFUSED,
    BreakerState,
    CircuitBreaker,
)


def breaker(draw: float = 0.0) -> CircuitBreaker:
    return CircuitBreaker(lambda: draw)


def opened(at_s: float = 0.0, draw: float = 0.0) -> CircuitBreaker:
    made = breaker(draw)
    for _failure in range(FAILURES_TO_OPEN):
        made.failed(made.admit(at_s), at_s)
    assert made.state is BreakerState.OPEN
    return made


def test_it_opens_after_failures_in_a_row_and_not_before():
    made = breaker()
    for _failure in range(FAILURES_TO_OPEN - 1):
        made.failed(made.admit(0.0), 0.0)
    made.succeeded(made.admit(0.0))
    for _failure in range(FAILURES_TO_OPEN - 1):
        made.failed(made.admit(0.0), 0.0)
    assert (made.state, made.opened) == (BreakerState.CLOSED, 0)
    made.failed(made.admit(0.0), 0.0)
    assert (made.state, made.opened) == (BreakerState.OPEN, 1)


def test_nothing_passes_until_the_first_probe_which_passes_alone():
    made = opened(at_s=10.0)
    assert made.admit(10.0 + OPEN_S_MIN - 0.001) == REFUSED
    assert made.admit(10.0 + OPEN_S_MIN) != REFUSED
    assert made.state is BreakerState.HALF_OPEN
    assert made.admit(99.0) == REFUSED


def test_each_probe_that_fails_doubles_the_time_to_the_next_up_to_the_most():
    made, now_s, waited = opened(), 0.0, []
    for _probe in range(6):
        probe_at_s = next(
            now_s + ms / 1000 for ms in range(5_000) if (period := made.admit(now_s + ms / 1000)) != REFUSED
        )
        waited.append(round(probe_at_s - now_s, 3))
        made.failed(period, probe_at_s)
        now_s = probe_at_s
    assert waited == [0.25, 0.5, 1.0, 2.0, OPEN_S_MAX, OPEN_S_MAX]
    assert made.opened == 1


def test_the_time_to_a_probe_is_shortened_by_up_to_a_half():
    assert opened(draw=0.999999).admit(OPEN_S_MIN / 2 + 0.001) != REFUSED
    assert opened(draw=0.5).admit(OPEN_S_MIN * 0.75 - 0.001) == REFUSED


def test_an_answered_probe_closes_it_and_the_next_time_begins_short_again():
    made = opened()
    made.failed(made.admit(1.0), 1.0)
    made.succeeded(made.admit(2.0))
    assert made.state is BreakerState.CLOSED
    for _failure in range(FAILURES_TO_OPEN):
        made.failed(made.admit(3.0), 3.0)
    assert made.admit(3.0 + OPEN_S_MIN) != REFUSED
    assert made.opened == 2


def test_a_probe_that_was_not_sent_leaves_its_place_to_the_next_read():
    made = opened()
    made.withdrawn(made.admit(1.0))
    assert made.state is BreakerState.OPEN
    assert made.admit(1.0) != REFUSED


def test_what_began_in_an_earlier_period_says_nothing():
    made = breaker()
    before = made.admit(0.0)
    for _failure in range(FAILURES_TO_OPEN):
        made.failed(made.admit(0.0), 0.0)
    made.succeeded(before)
    assert made.state is BreakerState.OPEN
    made.admit(1.0)
    made.failed(before, 1.0)
    made.withdrawn(before)
    assert made.state is BreakerState.HALF_OPEN
