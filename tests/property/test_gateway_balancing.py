from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.balancing import FULL_SCAN_MAX, choose
from tests.unit.gateway.balanced_workers import NOW_S, Worker, worker

WORKERS = st.builds(
    worker,
    outstanding_rows=st.integers(0, 100),
    latency_s=st.floats(0, 2),
    sampled_s_ago=st.floats(0, 100),
    has_idle_connection=st.booleans(),
    weight=st.sampled_from([0.1, 0.55, 1.0]),
)


@given(st.lists(WORKERS, max_size=30), st.integers())
def test_some_idle_one_is_chosen_wherever_there_is_any(workers: list[Worker], seed: int):
    chosen = choose(workers, Random(seed), NOW_S)
    idle = [each for each in workers if each.has_idle_connection]
    assert (chosen in idle) if idle else chosen is None


@given(st.lists(WORKERS, max_size=FULL_SCAN_MAX), st.integers())
def test_of_few_no_full_weight_one_that_is_idle_holds_less_than_the_chosen(workers: list[Worker], seed: int):
    chosen = choose(workers, Random(seed), NOW_S)
    full = [each.outstanding_rows for each in workers if each.has_idle_connection and each.weight == 1.0]
    if chosen is not None and full:
        assert chosen.outstanding_rows <= min(full)
