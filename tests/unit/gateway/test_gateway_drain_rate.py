from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.drain_rate import KNOWN_AFTER_S, WINDOW_S, DrainRate


def drained(rate: float, for_s: float, *, step_s: float = 0.01) -> tuple[DrainRate, int, float]:
    """A queue that has been drained at a rate for a while, and never became empty."""
    drain, now_s, sent = DrainRate(), 100.0, 0.0
    began_s = now_s
    while now_s - began_s <= for_s:
        drain.rows_wait(int(sent), now_s)
        drain.wait_s(1, int(sent), now_s)
        now_s += step_s
        sent += rate * step_s
    return drain, int(sent), now_s


def test_where_nothing_waits_nothing_is_waited_for():
    drain = DrainRate()
    assert drain.wait_s(0, 10, 1.0) == 0.0
    drain.rows_wait(10, 1.0)
    drain.none_waits()
    assert drain.wait_s(5, 10, 9.0) == 0.0


def test_a_queue_that_has_just_formed_says_nothing_yet():
    drain = DrainRate()
    drain.rows_wait(0, 1.0)
    assert drain.wait_s(1_000, 0, 1.0 + KNOWN_AFTER_S / 2) == 0.0


@given(rate=st.floats(50, 50_000), for_s=st.floats(0.1, 3 * WINDOW_S), rows=st.integers(1, 10_000))
def test_the_wait_is_what_is_queued_over_the_rate_at_which_it_is_drained(rate, for_s, rows):
    drain, sent, now_s = drained(rate, for_s)
    expected_s = rows / rate
    found_s = drain.wait_s(rows, sent, now_s)
    assert 0.7 * expected_s - 0.02 <= found_s <= 1.6 * expected_s + 0.02


def test_a_queue_that_stands_still_is_expected_to_do_so_for_as_long_again():
    drain, sent, now_s = drained(1_000.0, 2 * WINDOW_S)
    assert drain.wait_s(10, sent, now_s + 0.3) >= 0.3
    stuck = DrainRate()
    stuck.rows_wait(0, 1.0)
    assert stuck.wait_s(10, 0, 1.2) >= 0.19


def test_a_rate_of_long_ago_is_forgotten():
    drain, sent, now_s = drained(100.0, 4 * WINDOW_S)
    for _ in range(200):
        now_s += 0.01
        sent += 100
        drain.rows_wait(sent, now_s)
        wait_s = drain.wait_s(1_000, sent, now_s)
    assert wait_s < 0.2, "it is 10,000 rows a second by now"
