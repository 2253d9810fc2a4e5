"""Make a profile of a prediction log's window: the reference for comparing two windows."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.bin_counts import STATIC_SCORE, BinCounts, count_bins, count_slices, counts_by_slice
from analysis.binning import Floats
from analysis.column_names import SAMPLE_WEIGHT
from analysis.errors import NoRows, TooManyRows, UnusableColumn
from analysis.prediction_log import LogWindow, PredictionLog, open_log
from analysis.profile import STATUS_BINS, ColumnProfile, Profile, ScoreProfile
from analysis.profiling import (
    BINS_DEFAULT,
    CATEGORIES_MAX_DEFAULT,
    PROFILE_ROWS_MAX,
    ColumnCutter,
    sample_weights,
)
from analysis.verdict import window_sample
from contracts.prediction_record import FEATURE_PREFIX, OUTPUT_PREFIX, STATUS_PREFIX


def profile_log(
    log_dir: Path,
    model: str,
    *,
    version: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    include_shadow: bool = False,
    bins: int = BINS_DEFAULT,
    categories_max: int = CATEGORIES_MAX_DEFAULT,
    threads: int | None = None,
) -> Profile:
    """Profile what a model served: features of all rows, scores of each version, and how each view's rows were found.

    One column at a time is held in memory. Takes and raises what `compare` does, and TooManyRows and UnusableColumn as
    `make_profile` does.
    """
    window = LogWindow(model=model, version=version, start=start, end=end, include_shadow=include_shadow)
    with open_log(log_dir, window, threads=threads) as log:
        slices: list[dict[str, Any]] = []
        for part in log.parts:
            slices += log.fetch(count_slices(log.rows(part))).to_pylist()
        rows = sum(line["rows"] for line in slices)
        if not rows:
            raise NoRows(log.root, str(window))
        if rows > PROFILE_ROWS_MAX:
            raise TooManyRows(rows, PROFILE_ROWS_MAX)
        cutter = ColumnCutter(bins=bins, categories_max=categories_max)
        features = [_profile(log, cutter, column) for column in _columns(log, FEATURE_PREFIX)]
        statuses = [_status_profile(log, column) for column in _columns(log, STATUS_PREFIX)]
        scores = [
            ScoreProfile(served, score)
            for served in sorted({line["version"] for line in slices})
            for column in _columns(log, OUTPUT_PREFIX)
            if (score := _profile(log, cutter, column, served)).rows
        ]
        return Profile(
            model=model,
            version=version or "",
            rows=rows,
            fingerprint=cutter.fingerprint(),
            start=min(line["first_row"] for line in slices),
            end=max(line["last_row"] for line in slices),
            features=tuple(features),
            scores=tuple(scores),
            view_statuses=tuple(statuses),
        )


def _columns(log: PredictionLog, prefix: str) -> list[str]:
    return sorted({name for part in log.parts for name in part.schema.names if name.startswith(prefix)})


def _profile(log: PredictionLog, cutter: ColumnCutter, column: str, version: str | None = None) -> ColumnProfile:
    chunks: list[pa.ChunkedArray] = []
    weights: list[Floats] = []
    for part in log.parts:
        if column not in part.schema.names:
            continue
        rows = log.rows(part)
        if version is not None:
            rows = rows.filter(rows.version == version)
        if column.startswith(OUTPUT_PREFIX):
            rows = rows.filter(~rows.degraded.contains(STATIC_SCORE))
        found = log.fetch(rows.select(value=rows[column], weight=rows[SAMPLE_WEIGHT]))
        chunks.append(found.column("value"))
        weights.append(sample_weights(found.column("weight")))
    name = column.removeprefix(FEATURE_PREFIX).removeprefix(OUTPUT_PREFIX)
    key = name if version is None else f"{name}@{version}"
    return cutter.profile(name, _joined(column, chunks), np.concatenate(weights), key=key)


def _joined(column: str, chunks: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    kinds = {chunk.type for chunk in chunks}
    if len(kinds) > 1:  # versions that store one feature in different widths
        try:
            chunks = [chunk.cast(pa.float64()) for chunk in chunks]
        except pa.ArrowException as error:
            raise UnusableColumn(column, f"logged as {' and as '.join(sorted(map(str, kinds)))}") from error
    return pa.chunked_array([piece for chunk in chunks for piece in chunk.chunks], type=chunks[0].type)


def _status_profile(log: PredictionLog, column: str) -> ColumnProfile:
    total: BinCounts | None = None
    for part in log.parts:
        if column not in part.schema.names:
            continue
        kind = part.schema.field(column).type
        counted = log.fetch(count_bins(log.rows(part), column, kind, STATUS_BINS))
        for counts in counts_by_slice(counted, STATUS_BINS.places).values():
            total = counts if total is None else total + counts
    name = column.removeprefix(STATUS_PREFIX)
    if total is None:
        return ColumnProfile(
            name=name, dtype="string", rows=0, nulls=0.0, bins=STATUS_BINS, counts=(0.0,) * STATUS_BINS.places
        )
    sample = window_sample(total)
    return ColumnProfile(
        name=name,
        dtype="string",
        rows=sample.rows,
        nulls=sample.nulls,
        bins=STATUS_BINS,
        counts=tuple(sample.counts.tolist()),
    )
