"""What happened after the predictions: outcomes joined to the rows that were served, by version and variant."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import ibis

from analysis.bin_counts import variant_of
from analysis.errors import NoRows, UnreadableFile
from analysis.prediction_log import (
    LOG_FILES_MAX,
    LogWindow,
    connect,
    create_view,
    find_parts,
    parquet_schema,
    predictions_root,
    within,
)
from contracts.outcome_record import OUTCOME_SCHEMA

_PREDICTION_COLUMNS = (
    "prediction_id",
    "row",
    "ts",
    "model",
    "version",
    "variant_served",
    "forced",
    "shadow",
    "sample_weight",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOutcome:
    """One version under one variant: its served rows, how many of them have an outcome, and the outcomes' mean.

    `variant` is empty where no experiment chose. `mean` is weighted by the rows' sample weights, and None without an
    outcome.
    """

    version: str
    variant: str
    rows: int
    outcomes: int
    mean: float | None


def outcomes_by_variant(
    log_dir: Path,
    model: str,
    *,
    metric: str,
    outcomes_dir: Path | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    threads: int | None = None,
) -> tuple[VariantOutcome, ...]:
    """Join a model's predictions with what was reported of them, by version and variant.

    Joined by prediction id and row (a row left out means row 0). Of several outcomes of one row the one with the
    latest `at` counts, and of equals the one received last. Shadow and forced rows are left out: no experiment chose
    them. Outcomes that are keyed by unit are not joined.

    log_dir: the predictions root, or the directory that holds `predictions`; `outcomes` is looked for beside
        `predictions`.
    start, end: of the predictions' time, `start <= ts < end`. Outcomes may come at any time.
    Raises NoRows where nothing was served in the window, UnreadableFile for a damaged log.
    """
    window = LogWindow(model=model, start=start, end=end)
    root = predictions_root(log_dir)
    prediction_files = tuple(path for part in find_parts(root, window) for path in part.paths)
    told_files = outcome_files(root.parent / "outcomes" if outcomes_dir is None else outcomes_dir)
    connection = connect(threads)
    try:
        create_view(connection, "predictions", prediction_files)
        if told_files:
            create_view(connection, "outcomes", told_files)
        else:
            connection.register("outcomes", OUTCOME_SCHEMA.empty_table())
        expression = _joined(_predictions(prediction_files[0], window), metric)
        lines = connection.sql(ibis.to_sql(expression, dialect="duckdb")).to_arrow_table().to_pylist()
    except duckdb.Error as error:
        raise UnreadableFile(root, f"cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()
    if not lines:
        raise NoRows(root, str(window))
    return tuple(VariantOutcome(**line) for line in lines)


def _predictions(path: Path, window: LogWindow) -> ibis.Table:
    logged = ibis.Schema.from_pyarrow(parquet_schema(path))
    table = ibis.table({name: logged[name] for name in _PREDICTION_COLUMNS}, name="predictions")
    served = within(table, window)
    return served.filter(~served.forced)


def _joined(predictions: ibis.Table, metric: str) -> ibis.Table:
    logged = ibis.table(ibis.Schema.from_pyarrow(OUTCOME_SCHEMA), name="outcomes")
    told = logged.filter(logged.metric == metric, logged.prediction_id.notnull())
    keyed = told.select("prediction_id", "value", "at", "received_at", row=told.row.fill_null(0))
    # The value decides last, so that two outcomes equal in both times give one answer in every run.
    order = [keyed["at"].desc(), keyed.received_at.desc(), keyed.value.desc()]
    ranked = keyed.mutate(
        rank=ibis.row_number().over(ibis.window(group_by=[keyed.prediction_id, keyed.row], order_by=order))
    )
    last = ranked.filter(ranked["rank"] == 0).select("prediction_id", "row", "value")
    joined = predictions.mutate(variant=variant_of(predictions)).left_join(last, ["prediction_id", "row"])
    weight = joined.value.notnull().ifelse(joined.sample_weight, 0.0)
    return (
        joined.group_by("version", "variant")
        .agg(
            rows=joined.count(),
            outcomes=joined.value.count(),
            mean=(joined.value * joined.sample_weight).sum() / weight.sum().nullif(0.0),
        )
        .order_by("version", "variant")
    )


def outcome_files(outcomes_dir: Path) -> tuple[Path, ...]:
    """Find the outcome log's files. Raises UnreadableFile where there are too many."""
    paths = tuple(sorted(outcomes_dir.glob("date=*/hour=*/*.parquet")))
    if len(paths) > LOG_FILES_MAX:
        raise UnreadableFile(outcomes_dir, f"{len(paths)} files; at most {LOG_FILES_MAX} are read")
    return paths
