"""What looking at a running experiment costs, measured: `python -m tests.simulation.peeking`.

A thousand experiments are simulated unit by unit, and looked at at every step by both intervals of the report. Where
there is no effect, every alarm is false. Where one is planted, it is to be found with the planned power at the planned
size, which `analysis.experiment_results.power` says.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.experiment_results.intervals import (
    ANYTIME_UNITS_MIN,
    anytime_factor,
    clock,
    effective_units,
    planned_effective_units,
)
from analysis.experiment_results.power import sample_size

ALPHA = 0.05
POWER = 0.8
NAIVE = 1.959964
FIRST_LOOK = ANYTIME_UNITS_MIN
"""Units an arm, from which on both intervals are looked at."""

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int, int], float], tuple[Floats, Floats]]
"""Sums of values and of their squares: (runs, steps) from (runs, steps, units a step) draws, with a relative lift."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something to measure: how steps of it are drawn, and its mean and standard deviation over units."""

    name: str
    draw: Draw
    mean: float
    deviation: float


def _converted(rng: np.random.Generator, shape: tuple[int, int, int], lift: float) -> tuple[Floats, Floats]:
    hits = rng.binomial(shape[2], 0.1 * (1 + lift), shape[:2]).astype(np.float64)
    return hits, hits


def _normal(rng: np.random.Generator, shape: tuple[int, int, int], lift: float) -> tuple[Floats, Floats]:
    # The sum of normal values, and that of their squares, drawn as such.
    runs, steps, units = shape
    mean = 1.0 + lift
    sums = units * mean + np.sqrt(units) * rng.normal(size=(runs, steps))
    return sums, sums**2 / units + (rng.chisquare(units - 1, (runs, steps)) if units > 1 else 0.0)


def _spent(rng: np.random.Generator, shape: tuple[int, int, int], lift: float) -> tuple[Floats, Floats]:
    # A fifth spends anything, and a few of those very much.
    values = np.where(rng.random(shape) < 0.2, rng.lognormal(0.0, 1.0, shape), 0.0) * (1 + lift)
    return values.sum(axis=2), np.square(values).sum(axis=2)


_SPENT_MEAN = 0.2 * np.exp(0.5)

METRICS = (
    Metric("converted, 10 % of units", _converted, 0.1, 0.3),
    Metric("normal, deviation as large as the mean", _normal, 1.0, 1.0),
    Metric(
        "spent, by a fifth of units, heavy tail", _spent, _SPENT_MEAN, float(np.sqrt(0.2 * np.exp(2) - _SPENT_MEAN**2))
    ),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """How runs went, looked at after each step of units an arm.

    z (runs, steps): the difference in standard errors. units (steps,): an arm. reach (steps,): how many standard errors
    the anytime interval reaches.
    """

    z: Floats
    units: Floats
    reach: Floats

    @property
    def naive_alarms(self) -> float:
        """Share of runs in which the usual 95 % interval left out 0 at some look."""
        return float(np.mean(np.any(np.abs(self.z) > NAIVE, axis=1)))

    @property
    def anytime_alarms(self) -> float:
        """The same of the anytime interval."""
        return float(np.mean(np.any(np.abs(self.z) > self.reach, axis=1)))

    def found_at(self) -> Floats:
        """Units an arm at which the anytime interval first left out 0; infinite where it never did."""
        outside = np.abs(self.z) > self.reach
        first = self.units[np.argmax(outside, axis=1)]
        return np.where(outside.any(axis=1), first, np.inf)


def watch(
    metric: Metric,
    *,
    runs: int,
    units: int,
    step: int,
    lift: float = 0.0,
    units_planned: int | None = None,
    rng: np.random.Generator,
) -> Watched:
    """Simulate runs of so many units an arm, looked at after every `step` of them."""
    steps = units // step
    sizes = step * np.arange(1, steps + 1, dtype=np.float64)
    means, errors = [], []
    for by in (0.0, lift):
        sums, squares = (np.cumsum(one, axis=1) for one in metric.draw(rng, (runs, steps, step), by))
        means.append(sums / sizes)
        errors.append((squares - sums**2 / sizes) / (sizes - 1) / sizes)
    error = np.sqrt(np.maximum(errors[0] + errors[1], 1e-300))
    planned = planned_effective_units(units_planned, 2)
    reach = np.array([anytime_factor(clock(effective_units(n, n), planned, ALPHA), ALPHA) for n in sizes])
    seen = sizes >= FIRST_LOOK
    return Watched(((means[1] - means[0]) / error)[:, seen], sizes[seen], reach[seen])


def watch_returning(*, runs: int, units: int, days: int, rng: np.random.Generator) -> Watched:
    """Simulate units that come back day after day, looked at daily; no effect. The mean is over their rows.

    Each unit has a level of its own and comes on a third of the days; the variance is clustered by unit.
    """
    z = np.zeros((runs, days))
    reach = np.full(days, np.inf)
    planned = planned_effective_units(2 * units, 2)
    for run in range(runs):
        first = rng.integers(0, days, 2 * units)
        level = rng.normal(size=2 * units)
        arm = np.repeat([0, 1], units)
        n, d = np.zeros(2 * units), np.zeros(2 * units)
        for day in range(days):
            here = (first <= day) & ((rng.random(2 * units) < 1 / 3) | (first == day))
            n += here * (level + rng.normal(size=2 * units))
            d += here
            values, variances = [], []
            counts = [int(np.sum((arm == side) & (d > 0))) for side in (0, 1)]
            if min(counts) < FIRST_LOOK:
                continue
            for side in (0, 1):
                mine = (arm == side) & (d > 0)
                ratio = n[mine].sum() / d[mine].sum()
                moved = (n[mine] - ratio * d[mine]) / d[mine].sum()
                values.append(ratio)
                variances.append(np.sum(moved**2) * mine.sum() / (mine.sum() - 1))
            z[run, day] = (values[1] - values[0]) / np.sqrt(sum(variances))
            # The runs differ a little in how many units have come; the bound is that of the last one.
            reach[day] = anytime_factor(clock(effective_units(*counts), planned, ALPHA), ALPHA)
    return Watched(z, np.arange(1.0, days + 1), reach)


def false_alarm_lines(runs: int, units: int, step: int, seed: int) -> Iterator[str]:
    """Yield the table of false alarms."""
    looks = (units - FIRST_LOOK) // step + 1
    yield f"{runs:,} experiments without any effect, {units:,} units an arm, {looks:,} looks each:\n"
    yield "| metric | usual 95 % interval | anytime interval |"
    yield "| --- | ---: | ---: |"
    for metric in METRICS:
        rng = np.random.default_rng(seed)
        # In parts: the heavy-tailed values of all runs at once would take gigabytes.
        parts = [
            watch(metric, runs=part, units=units, step=step, rng=rng)
            for part in [100] * (runs // 100) + [runs % 100] * bool(runs % 100)
        ]
        found = Watched(np.concatenate([one.z for one in parts]), parts[0].units, parts[0].reach)
        yield f"| {metric.name} | {found.naive_alarms:.1%} | {found.anytime_alarms:.1%} |"
    back = watch_returning(runs=runs, units=400, days=60, rng=np.random.default_rng(seed))
    yield f"| rows of units that come back, 60 daily looks | {back.naive_alarms:.1%} | {back.anytime_alarms:.1%} |"


def power_lines(runs: int, seed: int) -> Iterator[str]:
    """Yield the table of planted effects."""
    yield f"\n{runs:,} experiments with a planted effect, planned with power {POWER:g}:\n"
    yield (
        "| metric | effect | planned, at the end | found at the end | planned, any time | found any time | "
        "half of those found at | usual interval with peeking |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for metric, lift in zip(METRICS, (0.05, 0.08, 0.1), strict=True):
        rng = np.random.default_rng(seed)
        size = sample_size(metric.mean, metric.deviation, mde_rel=lift, alpha=ALPHA, power=POWER, shares=(0.5, 0.5))
        assert size is not None
        end, anytime = (-(-units // 2) for units in (size.units, size.units_anytime))
        step = max(10, anytime // 400)
        parts = [
            watch(metric, runs=100, units=anytime, step=step, lift=lift, units_planned=size.units_anytime, rng=rng)
            for _ in range(runs // 100)
        ]
        found = Watched(np.concatenate([one.z for one in parts]), parts[0].units, parts[0].reach)
        at_end = found.z[:, int(np.searchsorted(found.units, end))]
        first = found.found_at()
        middle = 2 * np.median(first[np.isfinite(first)])
        yield (
            f"| {metric.name} | {lift:+.0%} | {size.units:,} | {np.mean(at_end > NAIVE):.1%} | "
            f"{size.units_anytime:,} | {np.mean(np.isfinite(first)):.1%} | {middle:,.0f} | "
            f"{found.naive_alarms:.1%} |"
        )


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.peeking", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--units", type=int, default=10_000, help="an arm, without an effect")
    parser.add_argument("--step", type=int, default=10, help="units an arm between two looks")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for line in false_alarm_lines(arguments.runs, arguments.units, arguments.step, arguments.seed):
        print(line, flush=True)
    for line in power_lines(arguments.runs, arguments.seed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
