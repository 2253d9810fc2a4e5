"""The adaptive limit before a queue with Poisson arrivals, on a virtual clock."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adaptive_limit import LIMIT_MIN, WINDOW_S, AdaptiveLimit
from gateway.admission import Priority
from tests.simulation.limited_queue import LimitedQueue, Second, Workload

CALM_S, STEP_S, AFTER_S = 4, 8, 8
"""Below capacity, a step above it, below it again."""

CEILING = 2_000
SEEDS = st.integers(0, 2**32)


@st.composite
def workloads(draw, overload: float = 3.0) -> Workload:
    """Models of which a hundred or more requests fit into the deadline: below the floor's few, no limit can help."""
    servers = draw(st.sampled_from([1, 2, 4, 16, 64]))
    deadline_s = draw(st.floats(0.05, 1.0))
    fitting = draw(st.integers(100, 400))
    # No faster than 4,000 a second: each is simulated.
    service_s = max(servers * deadline_s / fitting, servers / 4_000)
    if service_s > 0.15 * deadline_s:
        servers, service_s = 8, 8 * deadline_s / fitting
    usual = draw(st.floats(0.1, 0.8))
    return Workload(
        servers=servers,
        service_s=service_s,
        service_shape=draw(st.sampled_from([1, 4])),
        deadline_s=deadline_s,
        ceiling=CEILING,
        load=lambda now_s: overload if CALM_S <= now_s < CALM_S + STEP_S else usual,
    )


def seconds_of(workload: Workload, seed: int, duration_s: float = CALM_S + STEP_S + AFTER_S) -> list[Second]:
    return LimitedQueue(workload, Random(seed), workload.admission()).run(duration_s)


@given(
    st.floats(0.01, 10),
    st.integers(1, 5_000),
    st.lists(st.tuples(st.integers(0, 200), st.floats(0, 10), st.integers(0, 10_000)), max_size=60),
)
def test_it_stays_between_its_floor_and_its_ceiling_whatever_is_told_to_it(deadline_s, ceiling, windows):
    limit = AdaptiveLimit(deadline_s, ceiling)
    for number, (answers, latency_s, in_flight_most) in enumerate(windows):
        for _ in range(answers):
            limit.completed(latency_s)
        limit.update(1_000 + number * WINDOW_S, in_flight_most)
        assert min(LIMIT_MIN, ceiling) <= limit.limit <= ceiling


@settings(max_examples=15, deadline=None)
@given(workloads(), SEEDS)
def test_below_capacity_nothing_is_shed(workload, seed):
    assert sum(second.shed for second in seconds_of(workload, seed, CALM_S)) == 0


@settings(max_examples=20, deadline=None)
@given(workloads(), SEEDS)
def test_at_three_times_capacity_goodput_is_at_least_nine_tenths_of_capacity_from_the_second_second_on(workload, seed):
    overloaded = seconds_of(workload, seed)[CALM_S + 2 : CALM_S + STEP_S]
    in_time = sum(second.in_time for second in overloaded)
    assert in_time >= 0.9 * workload.capacity * len(overloaded)


@settings(max_examples=15, deadline=None)
@given(workloads(), SEEDS)
def test_in_the_first_two_seconds_of_an_overload_the_sheddable_are_shed_first_and_next_to_none_of_the_critical(
    workload, seed
):
    critical, default, sheddable = Priority.CRITICAL, Priority.DEFAULT, Priority.SHEDDABLE
    mixed = replace(workload, share_by_priority={critical: 0.1, default: 0.6, sheddable: 0.3})
    onset = [second for more in range(2) for second in seconds_of(mixed, seed + more, CALM_S + 2)[CALM_S:]]
    shed = {p: sum(s.shed_by[p] for s in onset) / sum(s.offered_by[p] for s in onset) for p in Priority}
    assert shed[critical] <= 0.1
    assert shed[critical] <= 0.5 * shed[default] <= shed[default] <= shed[sheddable]


@settings(max_examples=20, deadline=None)
@given(workloads(), SEEDS)
def test_five_seconds_after_an_overload_nothing_is_shed_and_the_limit_is_its_ceiling(workload, seed):
    recovered = seconds_of(workload, seed)[CALM_S + STEP_S + 5 :]
    assert sum(second.shed for second in recovered) == 0
    assert {second.limit for second in recovered} == {CEILING}


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 0.5), st.integers(50, 300), SEEDS)
def test_a_model_that_becomes_slower_than_is_usual_loses_less_than_one_in_a_hundred_six_seconds_later(
    deadline_s, servers, seed
):
    # From a tenth of the deadline to half of it, without a queue: a slower version, not an overload.
    workload = Workload(
        servers=servers,
        service_s=deadline_s / 10,
        service_shape=50,
        deadline_s=deadline_s,
        load=lambda now_s: 0.1,
        slowness=lambda now_s: 1.0 if now_s < 2 else 5.0,
    )
    seconds = seconds_of(workload, seed, 12)
    later = seconds[2 + 6 :]
    assert sum(second.shed for second in later) <= 0.01 * sum(second.offered for second in later)
