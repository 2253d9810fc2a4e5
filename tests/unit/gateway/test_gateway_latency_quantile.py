from gateway.dispatch.latency_quantile import RECOMPUTE_EVERY, SAMPLES_MAX, SAMPLES_MIN, LatencyQuantile


def observed(quantile: LatencyQuantile, latencies_s) -> LatencyQuantile:
    for latency_s in latencies_s:
        quantile.observe(latency_s)
    return quantile


def test_below_twenty_samples_there_is_no_value():
    assert observed(LatencyQuantile(), [0.001] * (SAMPLES_MIN - 1)).value_s is None


def test_the_first_value_comes_with_the_twentieth_sample():
    assert observed(LatencyQuantile(), [i / 1000 for i in range(1, 21)]).value_s == 0.019


def test_the_value_follows_within_32_observations():
    quantile = observed(LatencyQuantile(0.5), [0.001] * SAMPLES_MIN)
    observed(quantile, [0.005] * (RECOMPUTE_EVERY - 1))
    assert quantile.value_s == 0.001
    quantile.observe(0.005)
    assert quantile.value_s == 0.005


def test_what_is_older_than_512_observations_is_forgotten():
    quantile = observed(LatencyQuantile(), [9.0] * SAMPLES_MAX)
    assert observed(quantile, [0.001] * (SAMPLES_MAX + RECOMPUTE_EVERY)).value_s == 0.001
