import math
import random
import sys
import threading
from collections.abc import Iterator

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from telemetry.metrics import PENDING_MAX, Counts, Histogram, Series

BOUNDS = (0.000_05, 0.0003, 0.001, 0.5, 1.0, 2.5, 10.0, 1e6, 12_345_678.9)


def exposed(registry: CollectorRegistry) -> list[str]:
    """The text exposition without the time at which a child was made, which only the library's own has."""
    return [row for row in generate_latest(registry).decode().splitlines() if "_created" not in row]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", 'b"\\\n', "é"]),
            # On a bound, beside it, far from all; eighths, so that sums are exact in any order.
            st.sampled_from([*(b for b in BOUNDS if b * 8 == int(b * 8)), -1.0, 0.0, 0.125, 3.875, 1e9, math.inf]),
        ),
        max_size=40,
    )
)
def test_a_histogram_exposes_what_prometheus_clients_own_exposes(observations: list[tuple[str, float]]):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("h", "Some help", ("model",), BOUNDS, ours)
    reference = prometheus_client.Histogram("h", "Some help", ("model",), buckets=BOUNDS, registry=theirs)
    for label, value in observations:
        histogram.child(label).observe(value)
        reference.labels(label).observe(value)
    assert exposed(ours) == exposed(theirs)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_value_on_a_bound_counts_within_it(bound: float):
    series = Series(BOUNDS)
    series.observe(bound)
    series.observe(math.nextafter(bound, math.inf))
    counts = [count for _, count in series.cumulative()[0]]
    at = BOUNDS.index(bound)
    assert counts == [0.0] * at + [1.0] + [2.0] * (len(BOUNDS) - at)


def test_folding_again_and_again_changes_nothing():
    series = Series(BOUNDS)
    for _ in range(10):
        series.observe(0.002)
    first = series.cumulative()
    series.fold()
    assert series.cumulative() == first
    assert first[1] == pytest.approx(0.02)


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_values_observed_while_others_fold_are_neither_lost_nor_counted_twice():
    series, threads_count, values = Series((0.5, 1.5)), 4, 20_000
    done = threading.Event()
    start = threading.Barrier(threads_count + 2)

    def observe() -> None:
        start.wait()
        for _ in range(values):
            series.observe(1.0)

    def fold() -> None:
        start.wait()
        while not done.is_set():
            series.cumulative()

    observers = [threading.Thread(target=observe) for _ in range(threads_count)]
    folders = [threading.Thread(target=fold) for _ in range(2)]
    for thread in (*observers, *folders):
        thread.start()
    for thread in observers:
        thread.join()
    done.set()
    for thread in folders:
        thread.join()
    total = float(threads_count * values)
    assert series.cumulative() == ([("0.5", 0.0), ("1.5", total), ("+Inf", total)], total)


def test_the_values_of_one_child_wait_for_a_fold_up_to_a_limit():
    registry = CollectorRegistry()
    histogram = Histogram("h", "help", ("model",), BOUNDS, registry)
    busy, quiet = histogram.child("busy"), histogram.child("quiet")
    for _ in range(PENDING_MAX - 1):
        busy.observe(1.0)
    assert not busy.overdue
    busy.observe(1.0)
    quiet.observe(1.0)
    assert busy.overdue
    histogram.fold_overdue()
    assert (busy.overdue, quiet.overdue) == (False, False)
    assert busy.cumulative()[0][-1] == ("+Inf", float(PENDING_MAX))
    assert quiet.cumulative()[0][-1] == ("+Inf", 1.0)


def test_a_child_is_made_once():
    histogram = Histogram("h", "help", ("model", "stage"), BOUNDS, CollectorRegistry())
    assert histogram.child("m", "queue") is histogram.child("m", "queue")
    assert histogram.child("m", "queue") is not histogram.child("queue", "m")


@pytest.mark.parametrize("values", [(), ("m",), ("m", "queue", "x")])
def test_a_child_has_a_value_for_each_label(values: tuple[str, ...]):
    histogram = Histogram("h", "help", ("model", "stage"), BOUNDS, CollectorRegistry())
    with pytest.raises(ValueError, match="not one for each"):
        histogram.child(*values)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]):
    with pytest.raises(ValueError, match="bounds must rise"):
        Series(bounds)


def test_counts_expose_what_prometheus_clients_own_counter_and_gauge_expose():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("c", "help", ("model",), ours)
    gauge = Counts("g", "help", ("model",), ours, gauge=True)
    counter_there = prometheus_client.Counter("c", "help", ("model",), registry=theirs)
    gauge_there = prometheus_client.Gauge("g", "help", ("model",), registry=theirs)
    draw = random.Random(1)
    for _ in range(50):
        label, amount = draw.choice("ab"), draw.randint(0, 5)
        counts.add(label, amount=amount)
        counter_there.labels(label).inc(amount)
        gauge.set(label, value=amount)
        gauge_there.labels(label).set(amount)
    assert exposed(ours) == exposed(theirs)


def test_two_families_of_one_name_are_refused_by_the_registry():
    registry = CollectorRegistry()
    Counts("c", "help", (), registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counts("c", "help", (), registry)


def test_forgotten_children_vanish_by_their_first_labels_and_the_others_stay():
    registry = CollectorRegistry()
    counts = Counts("c", "help", ("model", "reason"), registry)
    histogram = Histogram("h", "help", ("model",), (1.0,), registry)
    for model in ("a", "b"):
        counts.add(model, "x")
        counts.add(model, "y")
        histogram.child(model).observe(0.5)
    counts.forget("a")
    histogram.forget("a")
    text = prometheus_client.generate_latest(registry).decode()
    assert 'model="a"' not in text
    assert text.count('c_total{model="b"') == 2
    assert 'h_count{model="b"} 1.0' in text


def test_a_child_that_is_asked_for_again_after_it_was_forgotten_begins_at_nothing():
    histogram = Histogram("h", "help", ("model",), (1.0,), CollectorRegistry())
    histogram.child("a").observe(0.5)
    histogram.forget("a")
    assert histogram.child("a").cumulative() == ([("1.0", 0.0), ("+Inf", 0.0)], 0.0)
