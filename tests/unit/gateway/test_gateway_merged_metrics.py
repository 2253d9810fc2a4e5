from prometheus_client.parser import text_string_to_metric_families

from gateway.merged_metrics import MergedMetrics

PAGE = """\
# HELP answers_total Answers
# TYPE answers_total counter
answers_total{{model="m"}} {answers}
# HELP in_flight In flight
# TYPE in_flight gauge
in_flight {in_flight}
# HELP sekisho_version_ready Ready
# TYPE sekisho_version_ready gauge
sekisho_version_ready{{model="m",version="1"}} {ready}
# HELP sekisho_variant_weight Weight
# TYPE sekisho_variant_weight gauge
sekisho_variant_weight{{variant="control"}} 0.9
# HELP wait_seconds Wait
# TYPE wait_seconds histogram
wait_seconds_bucket{{le="0.1"}} {answers}
wait_seconds_bucket{{le="+Inf"}} {answers}
wait_seconds_count {answers}
wait_seconds_sum 0.5
# HELP process_open_fds Files
# TYPE process_open_fds gauge
process_open_fds 7
"""


def page(answers: int = 1, in_flight: int = 0, ready: int = 1) -> str:
    return PAGE.format(answers=answers, in_flight=in_flight, ready=ready)


def samples(metrics: MergedMetrics) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_of_two_processes_are_summed():
    metrics = MergedMetrics()
    metrics.read("0", page(answers=3, in_flight=2))
    metrics.read("1", page(answers=4, in_flight=1))
    merged = samples(metrics)
    assert merged["answers_total", ("m",)] == 7
    assert merged["in_flight", ()] == 3
    assert merged["wait_seconds_bucket", ("0.1",)] == 7
    assert merged["wait_seconds_count", ()] == 7
    assert merged["wait_seconds_sum", ()] == 1.0


def test_a_version_is_ready_only_where_every_process_has_it():
    metrics = MergedMetrics()
    metrics.read("0", page(ready=1))
    metrics.read("1", page(ready=0))
    assert samples(metrics)["sekisho_version_ready", ("m", "1")] == 0


def test_a_configured_weight_is_not_multiplied_by_the_number_of_processes():
    metrics = MergedMetrics()
    metrics.read("0", page())
    metrics.read("1", page())
    assert samples(metrics)["sekisho_variant_weight", ("control",)] == 0.9


def test_what_belongs_to_one_process_is_told_by_process():
    metrics = MergedMetrics()
    metrics.read("0", page())
    metrics.read("1", page())
    merged = samples(metrics)
    assert merged["process_open_fds", ("0",)] == 7
    assert merged["process_open_fds", ("1",)] == 7


def test_a_counter_does_not_fall_when_a_process_ends_and_its_successor_begins_at_zero():
    metrics = MergedMetrics()
    metrics.read("0", page(answers=100, in_flight=5))
    metrics.read("1", page(answers=50))
    metrics.ended("0")
    assert samples(metrics)["answers_total", ("m",)] == 150
    assert samples(metrics)["in_flight", ()] == 0
    metrics.read("0", page(answers=2))
    merged = samples(metrics)
    assert merged["answers_total", ("m",)] == 152
    assert merged["wait_seconds_count", ()] == 152


def test_a_page_that_is_read_again_replaces_the_earlier_one():
    metrics = MergedMetrics()
    metrics.read("0", page(answers=5))
    metrics.read("0", page(answers=9))
    assert samples(metrics)["answers_total", ("m",)] == 9


def test_the_end_of_an_unknown_process_changes_nothing():
    metrics = MergedMetrics()
    metrics.read("0", page(answers=5))
    metrics.ended("7")
    assert samples(metrics)["answers_total", ("m",)] == 5
