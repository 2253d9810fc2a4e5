"""The one heavy step: count a log's rows by version, variant and bin of one column.

The expressions are ibis tables over unbound rows, so that DuckDB, Spark or a warehouse can run the same. What comes
back is a few hundred rows a column, and every statistic is computed from those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import ibis
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.profile import CategoryBins, NumericBins
from contracts.prediction_record import OUTPUT_PREFIX

STATIC_SCORE: Final = "static_score"
"""How a row says in `degraded` that no model made its score."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows that one version served under one variant; the variant is empty where no experiment chose."""

    version: str
    variant: str


@dataclass(frozen=True, slots=True)
class BinCounts:
    """Weighted counts of one column over its baseline's bins.

    counts (places,), nulls, weight: sums of sample weights; weight_squares: the sum of their squares.
    """

    rows: int
    weight: float
    weight_squares: float
    nulls: float
    counts: NDArray[np.float64]

    def __add__(self, other: "BinCounts") -> "BinCounts":
        return BinCounts(
            self.rows + other.rows,
            self.weight + other.weight,
            self.weight_squares + other.weight_squares,
            self.nulls + other.nulls,
            self.counts + other.counts,
        )

    @property
    def effective_scale(self) -> float:
        """Turns weighted counts into effective rows (Kish 1965: the square of the sum over the sum of squares)."""
        return self.weight / self.weight_squares if self.weight_squares else 1.0


def comparable(bins: NumericBins | CategoryBins, kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be counted over these bins: numbers and bools as numbers, text as text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if isinstance(bins, CategoryBins) and not bins.categories:
        return True  # the baseline had no value, so any value is new
    wants_text = isinstance(bins, CategoryBins) and isinstance(bins.categories[0], str)
    return text == wants_text and (text or _is_number(kind))


def count_bins(rows: ibis.Table, column: str, kind: pa.DataType, bins: NumericBins | CategoryBins) -> ibis.Table:
    """Count the rows by version, variant and place: 0 for null and NaN, then the places of the bins in order, from 1.

    kind: the column's Arrow type as stored, whose precision the bins' edges are rounded to.
    """
    if column.startswith(OUTPUT_PREFIX):
        rows = rows.filter(~rows.degraded.contains(STATIC_SCORE))
    value = rows[column]
    place = _numeric_place(value, kind, bins) if isinstance(bins, NumericBins) else _category_place(value, kind, bins)
    placed = rows.select(version=rows.version, variant=variant_of(rows), place=place, weight=rows.sample_weight)
    return placed.group_by("version", "variant", "place").agg(
        rows=placed.count(), weight=placed.weight.sum(), weight_squares=(placed.weight * placed.weight).sum()
    )


def count_slices(rows: ibis.Table) -> ibis.Table:
    """Count the rows by version and variant: how many, their weight, how many no model scored, first and last time."""
    keyed = rows.mutate(variant=variant_of(rows), static=rows.degraded.contains(STATIC_SCORE))
    return keyed.group_by("version", "variant").agg(
        rows=keyed.count(),
        weight=keyed.sample_weight.sum(),
        static_rows=keyed.count(where=keyed.static),
        first_row=keyed.ts.min(),
        last_row=keyed.ts.max(),
    )


def variant_of(rows: ibis.Table) -> Any:
    """The variant that served, empty where none did."""
    return rows.variant_served.fill_null("")


def counts_by_slice(counted: pa.Table, places: int) -> dict[Slice, BinCounts]:
    """Gather what `count_bins` gave, one set of counts a slice. places: how many counts the bins have."""
    found: dict[Slice, BinCounts] = {}
    for line in counted.to_pylist():
        key = Slice(line["version"], line["variant"])
        one = _one_place(line, places)
        found[key] = found[key] + one if key in found else one
    return found


def _one_place(line: Mapping[str, Any], places: int) -> BinCounts:
    counts = np.zeros(places)
    if line["place"] > 0:
        counts[line["place"] - 1] = line["weight"]
    nulls = line["weight"] if line["place"] == 0 else 0.0
    return BinCounts(line["rows"], line["weight"], line["weight_squares"], nulls, counts)


def _numeric_place(value: Any, kind: pa.DataType, bins: NumericBins) -> Any:
    number = value.cast("float64")
    lower = [_rounded_to(kind, edge) for edge in bins.lower_edges]
    # A chain, not a tree of halves: measured a tenth faster in DuckDB over 20 bins, and it reads like the bins.
    branches = [(number < edge, index) for index, edge in enumerate(lower, start=1)]
    last = len(lower) + 1
    upper = _rounded_to(kind, bins.upper)
    missing = number.isnull() | number.isnan() if pa.types.is_floating(kind) else number.isnull()
    return ibis.cases((missing, 0), *branches, (number <= upper, last), else_=last + 1)


def _category_place(value: Any, kind: pa.DataType, bins: CategoryBins) -> Any:
    missing = value.isnull() | value.isnan() if pa.types.is_floating(kind) else value.isnull()
    if pa.types.is_boolean(kind):
        value = value.cast("int64")
    # A model fed with floats logs the categories 0 and 1, or false and true, as 0.0 and 1.0: numbers are matched as
    # numbers.
    literals = [category if isinstance(category, str) else int(category) for category in bins.categories]
    branches = [(value == literal, index) for index, literal in enumerate(literals, start=1)]
    return ibis.cases((missing, 0), *branches, else_=len(literals) + 1)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind))


def _rounded_to(kind: pa.DataType, edge: float) -> float:
    """Round an edge as the column's values were: 0.7 logged as float32 is less than 0.7, and would change its bin."""
    with np.errstate(over="ignore"):  # past the type's range, an edge becomes infinite just as the values did
        if pa.types.is_float32(kind):
            return float(np.float32(edge))
        if pa.types.is_float16(kind):
            return float(np.float16(edge))
    return edge
