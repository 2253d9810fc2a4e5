import select
import time
from itertools import chain, pairwise

import pytest

from loadtests.arrivals import PIECE_S, Pacer, PreciseTimer, poisson_arrivals_ns


def schedule_ns(rate_per_s: float, seconds: float, seed: int) -> list[int]:
    return list(chain.from_iterable(poisson_arrivals_ns(rate_per_s, seconds, seed)))


def test_a_schedule_offers_exactly_its_rate_in_ascending_order_within_its_time():
    arrivals_ns = schedule_ns(1_000, 2.5, seed=1)
    assert len(arrivals_ns) == 2_500
    assert arrivals_ns == sorted(arrivals_ns)
    assert arrivals_ns[0] >= 0
    assert arrivals_ns[-1] < 2.5e9


def test_gaps_between_arrivals_vary_as_those_of_a_poisson_process_do():
    arrivals_ns = schedule_ns(1_000, 20, seed=1)
    gaps = [later - earlier for earlier, later in pairwise(arrivals_ns)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(1, abs=0.05)


def test_the_same_seed_gives_every_stack_the_same_schedule():
    assert schedule_ns(500, 1, seed=3) == schedule_ns(500, 1, seed=3)
    assert schedule_ns(500, 1, seed=3) != schedule_ns(500, 1, seed=4)


def test_a_schedule_of_hours_is_made_piece_by_piece():
    pieces = poisson_arrivals_ns(10_000, 8 * 3_600, seed=1)
    for number in range(3):
        piece = next(pieces)
        assert number * PIECE_S * 1e9 <= piece[0] <= piece[-1] < (number + 1) * PIECE_S * 1e9
        assert len(piece) == pytest.approx(10_000 * PIECE_S, rel=0.15)


def test_arrivals_are_as_bursty_from_second_to_second_as_those_of_a_poisson_process():
    # A schedule whose every piece had the same number would be smoother than independent callers are.
    counts = [len(piece) for piece in poisson_arrivals_ns(400, 500, seed=1)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert variance / mean == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("rate_per_s", "seconds"), [(0, 1), (10, 0), (1e9, 2)])
def test_a_schedule_that_is_empty_or_too_long_is_refused(rate_per_s, seconds):
    with pytest.raises(ValueError, match="arrivals a second"):
        poisson_arrivals_ns(rate_per_s, seconds, seed=1)


def test_what_is_due_is_sent_with_its_intended_time_and_the_lag_is_told():
    sent, lags = [], []
    clock = iter([125, 125, 125]).__next__
    pacer = Pacer([[10], [], [20, 30]], 100, sent.append, lags.append, clock)
    pacer.send_due()
    assert sent == [110, 120]
    assert lags == [15, 5]
    assert pacer.next_ns == 130


def test_a_pacer_has_nothing_due_after_its_last_arrival():
    pacer = Pacer([[10]], 0, lambda _due: None, lambda _lag: None, lambda: 10)
    pacer.send_due()
    assert pacer.next_ns is None


def test_the_timer_wakes_neither_before_its_time_nor_never():
    timer = PreciseTimer()
    try:
        due_ns = time.monotonic_ns() + 300_000
        timer.wake_at(due_ns)
        readable, _, _ = select.select([timer.fd], [], [], 10)
        assert readable
        assert time.monotonic_ns() >= due_ns
        timer.acknowledge()
        assert select.select([timer.fd], [], [], 0)[0] == []
    finally:
        timer.close()
