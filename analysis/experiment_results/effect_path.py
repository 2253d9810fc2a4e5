"""The primary effect as it stood after each slot of time, as somebody would have seen it who looked then.

Every unit's values grow as its rows and outcomes come in. The moments follow by the units that changed: old products
out, new ones in. So all looks together cost about as much as one, and memory is a few numbers a unit, never a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, Final

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.binning import Floats
from analysis.experiment_results.contrast import VALUES, Influence, Moments, Stratum, contrast
from analysis.experiment_results.experiment_log import double, moment
from analysis.experiment_results.judgement import Rules, absolute_effect, relative_effect, why_too_few
from analysis.experiment_results.report import EffectPath, PathPoint
from analysis.experiment_results.unit_table import UnitTable, logged_columns, logged_sums
from experiments.metrics import Metric, Of

PATH_UNITS_MAX: Final = 20_000_000
"""Units times epochs, of which each takes about 60 bytes here. Above it a report has no path."""

PATH_TREATMENTS_MAX: Final = 10

Places = NDArray[np.int64]

_PAIRS: Final = tuple(combinations_with_replacement(range(VALUES), 2))


class RunningUnits:
    """Units whose values change, and the moments of each group of them, kept up to date.

    group (lines,): which group each line belongs to, rising. unit (lines,): which unit it is, from 0, best rising
        within a group; a unit may be in several groups, once in each.
    shift (VALUES,): near the values' means, so that sums of squares keep their digits.
    """

    def __init__(self, group: Places, unit: Places, groups: int, shift: Floats) -> None:
        self._group, self._unit, self._shift = group, unit, shift
        self._bounds = np.searchsorted(group, np.arange(groups + 1))
        self._units = int(unit.max(initial=-1)) + 1
        self._values = np.zeros((VALUES, group.size))
        self._present: NDArray[np.bool_] = np.zeros(group.size, dtype=np.bool_)
        self._count = np.zeros(groups)
        self._nonzero = np.zeros(groups)
        self._sums = np.zeros((groups, VALUES))
        self._products = np.zeros((groups, VALUES, VALUES))

    def add(self, places: Places, more: Floats) -> None:
        """Add to the values of some lines. places: each at most once. more (VALUES, places)."""
        self._count_in(places[self._present[places]], -1.0)
        self._present[places] = True
        for values, added in zip(self._values, more, strict=True):
            values[places] += added
        self._count_in(places, 1.0)

    def moments(self, group: int) -> Moments:
        """Give a group's moments as they are now."""
        units = int(self._count[group])
        if not units:
            return Moments(0, np.zeros(VALUES), np.zeros((VALUES, VALUES)), 0)
        mean = self._sums[group] / units
        scatter = self._products[group] - units * np.outer(mean, mean)
        return Moments(units, mean + self._shift, scatter, int(self._nonzero[group]))

    def clustered(self, weights: Floats) -> Floats:
        """Give the sums (2, 2) of products of influences, added up by unit. weights (groups, 2, VALUES + 1)."""
        moved = np.zeros((2, self._units))
        for group in np.flatnonzero(np.any(weights != 0, axis=(1, 2))):
            lines = slice(self._bounds[group], self._bounds[group + 1])
            for arm in (0, 1):
                constant, *slopes = weights[group, arm]
                by_line = np.full(lines.stop - lines.start, constant)
                # Not as a matrix product: BLAS's threads wait for each other where other programs have the cores.
                for slope, values in zip(slopes, self._values, strict=True):
                    if slope:
                        by_line += slope * values[lines]
                by_line *= self._present[lines]
                # A unit is in a group once, so that nothing is added twice to one place.
                moved[arm][self._unit[lines]] += by_line
        return np.array([[np.sum(one * other) for other in moved] for one in moved])

    def _count_in(self, places: Places, sign: float) -> None:
        if not places.size:
            return
        group = self._group[places]
        groups = self._count.size
        values = [of_all[places] - shift for of_all, shift in zip(self._values, self._shift, strict=True)]
        self._count += sign * np.bincount(group, minlength=groups)
        self._nonzero += sign * np.bincount(group, self._values[0, places] != 0, minlength=groups)
        for i in range(VALUES):
            self._sums[:, i] += sign * np.bincount(group, values[i], minlength=groups)
        for i, j in _PAIRS:
            found = sign * np.bincount(group, values[i] * values[j], minlength=groups)
            self._products[:, i, j] += found
            if i != j:
                self._products[:, j, i] += found


@dataclass(frozen=True, slots=True)
class _Lines:
    """The table's lines: group and unit codes, first slot, what each begins with (VALUES, lines), and the groups."""

    group: Places
    unit: Places
    first_slot: Places
    begins_with: Floats
    groups: tuple[tuple[int, str], ...]


def effect_paths(
    units: UnitTable, metric: Metric, control: str, treatments: Sequence[str], rules: Rules
) -> tuple[EffectPath, ...]:
    """Follow a metric's effect from slot to slot, for each treatment, from where an interval can be given."""
    numbered = units.log.keep("numbered", _numbered(units, metric))
    lines = _lines(units, numbered, metric)
    shift = lines.begins_with.mean(axis=1)
    shift[:2] = _means(units, metric)
    running = RunningUnits(lines.group, lines.unit, len(lines.groups), shift)
    points: dict[str, list[PathPoint]] = {treatment: [] for treatment in treatments[:PATH_TREATMENTS_MAX]}
    for slot in _slots(units, numbered, metric, lines, running):
        for treatment, found in points.items():
            point = _point(units, running, lines.groups, slot, (control, treatment), rules)
            if point is not None:
                found.append(point)
    return tuple(EffectPath(treatment=treatment, points=tuple(found)) for treatment, found in points.items())


def _numbered(units: UnitTable, metric: Metric) -> ibis.Table:
    """Number the lines so that a group's lie together, and in them the units in order: memory is then read in order."""
    table = units.table
    order = ibis.window(order_by=[table.epoch, table.arm, table.code])
    _, denominator, *past = units.columns(metric)
    columns = ("unit", "code", "epoch", "arm", "first_us", denominator, *past)
    return table.select(*columns, place=ibis.row_number().over(order))


def _lines(units: UnitTable, numbered: ibis.Table, metric: Metric) -> _Lines:
    _, denominator, *past = units.columns(metric)
    table: pa.Table = units.log.fetch(numbered.drop("unit")).sort_by("place")
    epoch = table.column("epoch").combine_chunks().dictionary_encode()
    arm = table.column("arm").combine_chunks().dictionary_encode()
    pairs = epoch.indices.to_numpy().astype(np.int64) * len(arm.dictionary) + arm.indices.to_numpy()
    present, group = _by_appearance(pairs)
    begins_with = np.zeros((VALUES, table.num_rows))
    if metric.of is Of.PER_UNIT:
        begins_with[1] = table.column(denominator).to_numpy()
    for index, name in enumerate(past):
        begins_with[2 + index] = table.column(name).to_numpy()
    names = [(e, a) for e in epoch.dictionary.to_pylist() for a in arm.dictionary.to_pylist()]
    return _Lines(
        group=group,
        unit=table.column("code").to_numpy(),
        first_slot=(table.column("first_us").to_numpy() - units.slots.origin_us) // units.slots.width_us,
        begins_with=begins_with,
        groups=tuple(names[pair] for pair in present),
    )


def _by_appearance(pairs: Places) -> tuple[list[int], Places]:
    """Number the runs of equal pairs: the pair of each run, and each line's run."""
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    run = np.zeros(pairs.size, dtype=np.int64)
    run[starts] = 1
    return [int(pair) for pair in pairs[starts]], np.cumsum(run) - 1


def _means(units: UnitTable, metric: Metric) -> Floats:
    numerator, denominator, *_ = units.columns(metric)
    table = units.table
    (line,) = units.log.lines(table.agg(n=table[numerator].mean(), d=table[denominator].mean()))
    return np.array([line["n"] or 0.0, line["d"] or 0.0])


def _slots(
    units: UnitTable, numbered: ibis.Table, metric: Metric, lines: _Lines, running: RunningUnits
) -> Iterator[int]:
    """Let units appear and change, and yield every slot once all of it has been added."""
    appear = np.argsort(lines.first_slot, kind="stable")
    bounds = np.searchsorted(lines.first_slot[appear], np.arange(units.slots.count + 1))
    changes = _changes(units, numbered, metric)
    pending = next(changes, None)
    for slot in range(units.slots.count):
        new = appear[bounds[slot] : bounds[slot + 1]]
        running.add(new, lines.begins_with[:, new])
        while pending is not None and pending[0] <= slot:
            running.add(pending[1], pending[2])
            pending = next(changes, None)
        yield slot


def _changes(units: UnitTable, numbered: ibis.Table, metric: Metric) -> Iterator[tuple[int, Places, Floats]]:
    """Yield what is added to the table's lines, slot by slot: the slot, places (n,) and values (VALUES, n)."""
    changes = _logged_changes(units, metric) if metric.logged else _outcome_changes(units, metric)
    joined = changes.join(numbered.select("place", "unit", "epoch"), ["unit", "epoch"])
    for batch in units.log.batches(joined.select("slot", "place", "n", "d").order_by("slot")):
        slots = batch.column("slot").to_numpy()
        places = batch.column("place").to_numpy()
        more = np.zeros((VALUES, slots.size))
        more[0], more[1] = batch.column("n").to_numpy(), batch.column("d").to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(slots)) + 1)] if slots.size else []
        for start, end in zip(starts, [*starts[1:], slots.size], strict=True):
            yield int(slots[start]), places[start:end], more[:, start:end]


def _logged_changes(units: UnitTable, metric: Metric) -> ibis.Table:
    rows = units.rows
    slotted = rows.mutate(slot=(rows.at_us - units.slots.origin_us) // units.slots.width_us)
    summed = slotted.group_by("unit", "epoch", "slot").agg(**logged_sums(slotted))
    numerator, denominator = logged_columns(metric)
    return summed.select(
        "unit", "epoch", "slot", n=summed[numerator].fill_null(0.0), d=summed[denominator].fill_null(0.0)
    )


def _outcome_changes(units: UnitTable, metric: Metric) -> ibis.Table:
    values = units.values.filter(units.values.metric.isin(list(metric.outcomes)))
    divisor: Any = double(0)
    if metric.denominator is not None:
        divisor = values.total.sum(where=values.metric == metric.denominator).fill_null(0.0)
    elif metric.of is Of.PER_OUTCOME:
        divisor = values.number.sum()
    numerator = values.total.sum(where=values.metric == metric.numerator).fill_null(0.0)
    # Outcomes may be told after the last slot, which then has them.
    last = values.mutate(slot=ibis.least(values.slot.cast("int64"), units.slots.count - 1))
    return last.group_by("unit", "epoch", "slot").agg(n=numerator, d=divisor)


def _point(
    units: UnitTable,
    running: RunningUnits,
    groups: Sequence[tuple[int, str]],
    slot: int,
    arms: tuple[str, str],
    rules: Rules,
) -> PathPoint | None:
    found = {group: running.moments(index) for index, group in enumerate(groups)}
    epochs = sorted({epoch for epoch, _ in groups})
    strata = [
        Stratum(epoch, found[epoch, arms[0]], found[epoch, arms[1]])
        for epoch in epochs
        if (epoch, arms[0]) in found and (epoch, arms[1]) in found
    ]
    compared = contrast(strata, partial(_clustered, running, groups, arms))
    counts = [sum(one.arms[side].units for one in strata) for side in (0, 1)]
    if compared is None or why_too_few(compared, counts[0], counts[1]):
        return None
    return PathPoint(
        at=moment(units.slots.end_us(slot)),
        absolute=absolute_effect(compared, rules),
        relative=relative_effect(compared, rules),
    )


def _clustered(
    running: RunningUnits,
    groups: Sequence[tuple[int, str]],
    arms: tuple[str, str],
    influences: Sequence[Influence],
) -> Floats:
    weights = np.zeros((len(groups), 2, VALUES + 1))
    for influence in influences:
        weights[groups.index((influence.epoch, arms[influence.is_treatment]))] = influence.weights
    return running.clustered(weights)
