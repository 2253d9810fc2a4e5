from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.latency_quantile import RECOMPUTE_EVERY, SAMPLES_MAX, SAMPLES_MIN, LatencyQuantile

LATENCIES = st.lists(st.floats(0, 100), max_size=1_500)


@given(LATENCIES, st.floats(0.01, 1.0))
def test_the_value_is_the_nearest_rank_of_the_window_at_the_last_recomputation(latencies_s, quantile):
    live = LatencyQuantile(quantile)
    for latency_s in latencies_s:
        live.observe(latency_s)
    if len(latencies_s) < SAMPLES_MIN:
        assert live.value_s is None
        return
    recomputed_at = len(latencies_s) - (len(latencies_s) - SAMPLES_MIN) % RECOMPUTE_EVERY
    window = sorted(latencies_s[max(0, recomputed_at - SAMPLES_MAX) : recomputed_at])
    assert live.value_s == window[ceil(quantile * len(window)) - 1]
