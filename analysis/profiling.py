"""Make a baseline profile of a table: the training set, usually."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.binning import Floats, cut_numeric_bins, numeric_places
from analysis.column_names import SAMPLE_WEIGHT, feature_columns, score_columns
from analysis.errors import NoRows, TooManyRows, UnusableColumn
from analysis.fingerprint import column_digest, table_fingerprint
from analysis.profile import CategoryBins, ColumnProfile, Moments, NumericBins, Profile, ScoreProfile

BINS_DEFAULT: Final = 20
CATEGORIES_MAX_DEFAULT: Final = 50
BINS_LIMIT: Final = 1_000
"""More bins than this tell noise apart, not data."""


PROFILE_ROWS_MAX: Final = 50_000_000
"""One column of a profile is sorted in memory, at some 32 bytes a row. A sample of more rows than this says no less."""


class ColumnSource(Protocol):
    """What `make_profile` reads: a pyarrow.Table, or files read one column at a time."""

    @property
    def column_names(self) -> Sequence[str]:
        """Names in order."""

    @property
    def num_rows(self) -> int:
        """Rows of every column."""

    def column(self, name: str) -> pa.ChunkedArray:
        """Give one column's values."""


def make_profile(
    table: ColumnSource,
    *,
    model: str,
    version: str = "",
    bins: int = BINS_DEFAULT,
    categories_max: int = CATEGORIES_MAX_DEFAULT,
) -> Profile:
    """Profile every feature and score of a table.

    table: a pyarrow.Table. Columns named `view.feature` or `f.view.feature` are features, `y.output` are scores,
        `sample_weight` (where present)
        says how many rows each row stands for. Other columns are left alone.
    version: whose scores these are; empty stands for every version.
    bins: the most bins of a number. An integer column with no more distinct values than that is taken as categories.
    categories_max: the most categories named; the rest are counted together as other.
    Raises NoRows for an empty table, TooManyRows for a large one, UnusableColumn for a type that is neither number,
    text nor bool, and where no column is a feature.
    """
    if table.num_rows == 0:
        raise NoRows("table", f"model {model!r}")
    if table.num_rows > PROFILE_ROWS_MAX:
        raise TooManyRows(table.num_rows, PROFILE_ROWS_MAX)
    features = feature_columns(table.column_names)
    scores = score_columns(table.column_names)
    weights = sample_weights(table.column(SAMPLE_WEIGHT)) if SAMPLE_WEIGHT in table.column_names else None
    cut = ColumnCutter(bins=bins, categories_max=categories_max)
    feature_profiles = [cut.profile(name, table.column(column), weights) for name, column in features.items()]
    score_profiles = [cut.profile(name, table.column(column), weights, key=column) for name, column in scores.items()]
    return Profile(
        model=model,
        version=version,
        rows=table.num_rows,
        fingerprint=cut.fingerprint(),
        features=tuple(feature_profiles),
        scores=tuple(ScoreProfile(version, column) for column in score_profiles),
    )


def sample_weights(column: pa.ChunkedArray) -> Floats:
    """Read sample weights. Raises UnusableColumn where one is null, not finite or not positive."""
    try:
        weights: Floats = column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise UnusableColumn(SAMPLE_WEIGHT, f"its type is {column.type}; weights are numbers") from error
    wrong = int(np.count_nonzero(~(np.isfinite(weights) & (weights > 0))))
    if wrong:
        raise UnusableColumn(SAMPLE_WEIGHT, f"{wrong} of {weights.size} weights are not positive numbers")
    return weights


class ColumnCutter:
    """Cuts one column after another into bins, counts it, and keeps the fingerprint of all that it saw."""

    def __init__(self, *, bins: int, categories_max: int) -> None:
        if not 2 <= bins <= BINS_LIMIT:
            raise ValueError(f"bins={bins}: give 2 to {BINS_LIMIT}")
        if not 1 <= categories_max <= BINS_LIMIT:
            raise ValueError(f"categories_max={categories_max}: give 1 to {BINS_LIMIT}")
        self._bins, self._categories_max = bins, categories_max
        self._digests: dict[str, bytes] = {}

    def fingerprint(self) -> str:
        """Give the SHA-256 of every column so far, in the order of their names."""
        return table_fingerprint(self._digests)

    def profile(self, name: str, column: pa.ChunkedArray, weights: Floats | None, *, key: str = "") -> ColumnProfile:
        """Profile one column.

        weights (rows,): or None where every row counts once. key: tells columns of one name apart in the fingerprint.
        Raises UnusableColumn for a type that is neither number, text nor bool.
        """
        column = _decoded(name, column)
        self._digests[key or name] = column_digest(key or name, column)
        kind = column.type
        if weights is None:
            weights = np.ones(len(column))
        weights = weights * (weights.sum() / np.square(weights).sum() if weights.size else 1.0)
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return self._numbers(name, column, weights)
        if pa.types.is_integer(kind) and pc.count_distinct(column).as_py() > self._bins:
            return self._numbers(name, column, weights)
        return self._categories(name, column, weights)

    def _numbers(self, name: str, column: pa.ChunkedArray, weights: Floats) -> ColumnProfile:
        values: Floats = (
            column.cast(pa.float64(), safe=False).to_numpy() + 0.0
        )  # which makes -0.0 the 0.0 that it equals
        # Sorted once for all that follows: sums then round alike, whatever the order that the rows came in.
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        known = ~np.isnan(values)
        finite = np.isfinite(values)
        ordered = values[finite]
        bins: NumericBins | CategoryBins
        if ordered.size:
            bins = cut_numeric_bins(ordered, self._bins)
            places = numeric_places(values[known], bins)
        else:
            bins = CategoryBins(())
            places = np.zeros(int(known.sum()), dtype=np.intp)
        return ColumnProfile(
            name=name,
            dtype=str(column.type),
            rows=len(column),
            nulls=float(weights[~known].sum()),
            bins=bins,
            counts=tuple(np.bincount(places, weights[known], bins.places).astype(float).tolist()),
            moments=_moments(values[finite], weights[finite]) if ordered.size else None,
        )

    def _categories(self, name: str, column: pa.ChunkedArray, weights: Floats) -> ColumnProfile:
        encoded = column.combine_chunks().dictionary_encode()
        values: list[Any] = encoded.dictionary.to_pylist()
        known = ~np.asarray(encoded.indices.is_null())
        codes: NDArray[np.intp] = np.asarray(encoded.indices.fill_null(0), dtype=np.intp)
        totals = np.bincount(codes[known], weights[known], len(values)) if values else np.zeros(0)
        ranked = sorted(range(len(values)), key=lambda code: (-totals[code], values[code]))
        named, others = ranked[: self._categories_max], ranked[self._categories_max :]
        return ColumnProfile(
            name=name,
            dtype="string" if pa.types.is_large_string(column.type) else str(column.type),
            rows=len(column),
            nulls=float(weights[~known].sum()),
            bins=CategoryBins(tuple(values[code] for code in named)),
            counts=(*(float(totals[code]) for code in named), float(totals[others].sum())),
        )


def _decoded(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())  # one type for text: 2 GiB of it does not overflow the offsets
    types = pa.types
    if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise UnusableColumn(name, f"its type is {kind}; features and scores are numbers, text or bools")
    return column.cast(kind)


def _moments(values: Floats, weights: Floats) -> Moments:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(np.average(values, weights=weights))
        std = float(np.sqrt(np.average(np.square(values - mean), weights=weights)))
    return Moments(
        mean=mean if np.isfinite(mean) else None,
        std=std if np.isfinite(std) else None,
        minimum=float(values.min()),
        maximum=float(values.max()),
    )
