import pytest

from gateway.adaptive_limit import CALM_S, LIMIT_MIN, ROUND_ANSWERS_MIN, WINDOW_S, AdaptiveLimit

DEADLINE_S = 1.0
CEILING = 1_024


class Model:
    """A limit, and the time."""

    def __init__(self, ceiling: int = CEILING) -> None:
        self.limit = AdaptiveLimit(DEADLINE_S, ceiling)
        self.now_s = 1_000.0

    def windows(self, count: int, *, answers: int = 100, latency_s: float, in_flight_most: int) -> int:
        """Let some windows pass; return the limit."""
        for _ in range(count):
            self.now_s += WINDOW_S
            for _ in range(answers):
                self.limit.completed(latency_s)
            self.limit.update(self.now_s, in_flight_most)
        return self.limit.limit


def test_it_starts_at_its_ceiling():
    assert AdaptiveLimit(DEADLINE_S, 300).limit == 300


def test_latencies_far_below_the_deadline_never_lower_it():
    assert Model().windows(600, latency_s=0.37, in_flight_most=900) == CEILING


def test_one_slow_round_lowers_it_to_what_is_worked_off_in_three_eighths_of_the_deadline():
    model = Model()
    model.windows(10, latency_s=0.010, in_flight_most=10)
    assert model.windows(1, answers=100, latency_s=0.600, in_flight_most=600) in (374, 375)


def test_it_does_not_fall_further_while_what_was_in_flight_drains():
    model = Model()
    model.windows(10, latency_s=0.010, in_flight_most=10)
    model.windows(1, answers=100, latency_s=0.600, in_flight_most=600)
    assert model.windows(8, answers=100, latency_s=0.600, in_flight_most=600) in (374, 375)


def test_it_never_falls_below_its_floor():
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    assert model.windows(10, answers=1, latency_s=1.0, in_flight_most=500) == LIMIT_MIN


def test_a_ceiling_below_the_floor_is_kept():
    model = Model(ceiling=4)
    assert model.windows(20, latency_s=1.0, in_flight_most=4) == 4


def test_while_something_presses_on_it_it_grows_by_what_is_worked_off():
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    model.windows(1, answers=25, latency_s=0.600, in_flight_most=600)
    assert model.limit.limit == 93
    assert model.windows(1, answers=200, latency_s=0.050, in_flight_most=90) in (749, 750)


def test_while_little_is_in_flight_it_does_not_grow_before_it_has_been_calm():
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    lowered = model.windows(1, answers=100, latency_s=0.600, in_flight_most=600)
    assert model.windows(int(CALM_S / WINDOW_S) - 1, answers=50, latency_s=0.010, in_flight_most=10) == lowered
    assert model.windows(2, answers=50, latency_s=0.010, in_flight_most=10) == CEILING


def test_with_no_requests_at_all_it_returns_to_its_ceiling():
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    model.windows(1, latency_s=0.600, in_flight_most=600)
    assert model.windows(50, answers=0, latency_s=0.0, in_flight_most=0) == CEILING


def test_a_few_slow_answers_decide_nothing():
    assert Model().windows(20, answers=0, latency_s=0.0, in_flight_most=3) == CEILING
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    for _ in range(10):
        model.windows(1, answers=ROUND_ANSWERS_MIN - 1, latency_s=1.0, in_flight_most=4)
        model.windows(5, answers=0, latency_s=0.0, in_flight_most=4)
    assert model.limit.limit == CEILING


def test_an_overload_of_minutes_allows_at_most_three_quarters_of_the_deadline():
    model = Model()
    model.windows(1, latency_s=0.010, in_flight_most=10)
    model.windows(6_000, latency_s=0.900, in_flight_most=500)
    assert model.limit.latency_most_s == pytest.approx(0.75 * DEADLINE_S)


def test_a_model_that_takes_half_of_its_deadline_from_the_first_is_not_limited():
    assert Model().windows(100, latency_s=0.5, in_flight_most=500) == CEILING
