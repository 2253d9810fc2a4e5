"""What the table of units says of one metric: the moments of each arm in each epoch, and sums of influences by unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, Final

import ibis
import numpy as np
import pyarrow as pa

from analysis.binning import Floats
from analysis.experiment_results.contrast import VALUES, Influence, Moments, Stratum
from analysis.experiment_results.experiment_log import double
from analysis.experiment_results.unit_table import UnitTable
from experiments.metrics import Metric

_PAIRS: Final = tuple(combinations_with_replacement(range(VALUES), 2))

Group = tuple[int, str]
"""An epoch and an arm."""


@dataclass(frozen=True, slots=True)
class MetricUnits:
    """One metric of some units: those of the table, or of a part of it.

    table: code, epoch, arm and four columns of values, `columns`.
    """

    units: UnitTable
    table: ibis.Table
    columns: tuple[str, str, str, str]
    moments: dict[Group, Moments]

    def strata(self, control: str, treatment: str) -> list[Stratum]:
        """Pair two arms' moments by epoch, in the order of the epochs' numbers."""
        epochs = sorted({epoch for epoch, _ in self.moments})
        return [
            Stratum(epoch, self.moments[epoch, control], self.moments[epoch, treatment])
            for epoch in epochs
            if (epoch, control) in self.moments and (epoch, treatment) in self.moments
        ]

    def clustered(self, control: str, treatment: str, influences: Sequence[Influence]) -> Floats:
        """Add up each unit's influences over epochs and arms; give the sums (2, 2) of their products over units."""
        weights = self.units.log.lend(
            "influences",
            pa.Table.from_pylist(
                [
                    {
                        "epoch": influence.epoch,
                        "arm": treatment if influence.is_treatment else control,
                        **{f"w{i}{j}": float(influence.weights[i, j]) for i in range(2) for j in range(VALUES + 1)},
                    }
                    for influence in influences
                ]
            ),
        )
        joined = self.table.join(weights, ["epoch", "arm"])
        values = [double(1), *(joined[column] for column in self.columns)]
        moved = [sum(joined[f"w{i}{j}"] * value for j, value in enumerate(values)) for i in range(2)]
        by_unit = joined.group_by("code").agg(control=moved[0].sum(), treatment=moved[1].sum())
        (line,) = self.units.log.lines(
            by_unit.agg(
                cc=(by_unit.control * by_unit.control).sum(),
                ct=(by_unit.control * by_unit.treatment).sum(),
                tt=(by_unit.treatment * by_unit.treatment).sum(),
            )
        )
        return np.array(
            [
                [
                    line["cc"],
                    line["ct"],
                ],
                [line["ct"], line["tt"]],
            ],
            dtype=np.float64,
        )


def metric_units(units: UnitTable, metric: Metric, table: ibis.Table | None = None) -> MetricUnits:
    """Compute the moments of a metric. table: a part of the units' table, in place of the whole."""
    return values_units(units, units.table if table is None else table, units.columns(metric))


def values_units(units: UnitTable, table: ibis.Table, columns: tuple[str, str, str, str]) -> MetricUnits:
    """Compute the moments of any four columns of a table of units."""
    expression = table.group_by("epoch", "arm").agg(
        units=table.count(),
        nonzero=table.count(where=table[columns[0]] != 0),
        **{f"mean_{i}": table[column].mean() for i, column in enumerate(columns)},
        # Covariances, which DuckDB updates as it goes; sums of squares less a square of sums would cancel.
        **{f"cov_{i}_{j}": table[columns[i]].cov(table[columns[j]], how="pop") for i, j in _PAIRS},
    )
    moments = {(int(line["epoch"]), str(line["arm"])): _moments(line) for line in units.log.lines(expression)}
    return MetricUnits(units, table, columns, moments)


def _moments(line: dict[str, Any]) -> Moments:
    units = int(line["units"])
    scatter = np.zeros((VALUES, VALUES))
    for i, j in _PAIRS:
        scatter[i, j] = scatter[j, i] = (line[f"cov_{i}_{j}"] or 0.0) * units
    mean = np.array([line[f"mean_{i}"] for i in range(VALUES)], dtype=np.float64)
    return Moments(units, mean, scatter, int(line["nonzero"]))
