"""The prediction and outcome logs of one model, as two tables of fixed columns over which experiments are counted.

Everything heavy is done by DuckDB, out of core; what comes back to Python is a few numbers an arm and epoch. Times are
whole microseconds since 1970, UTC: plain arithmetic, which needs no calendar of DuckDB's.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import ibis.expr.datatypes as dt
import pyarrow as pa

from analysis.errors import UnreadableFile
from analysis.outcomes import outcome_files
from analysis.prediction_log import (
    LogPart,
    LogWindow,
    connect,
    create_view,
    find_parts,
    predictions_root,
    within,
)
from contracts.outcome_record import OUTCOME_SCHEMA
from contracts.prediction_record import OUTPUT_PREFIX

SECOND_US: Final = 1_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEEDED: Final = (
    "prediction_id",
    "row",
    "ts",
    "model",
    "version",
    "experiment",
    "epoch",
    "unit",
    "variant_assigned",
    "variant_served",
    "assignment_probability",
    "forced",
    "shadow",
    "degraded",
    "error_code",
    "total_us",
    "sample_weight",
)


# DuckDB's own function of that name, which ibis does not know.
epoch_us: Any = ibis.udf.scalar.builtin(
    lambda moment: moment, name="epoch_us", signature=((dt.Timestamp("UTC"),), dt.int64)
)


VALUE_MAX: Final = 1e15
"""Of an outcome or a score: what is larger is no value. Its square, added up, would leave no digit of the others."""


@dataclass(frozen=True, slots=True)
class ExperimentLog:
    """One model's rows and all outcomes. Close it, or use it as a context manager.

    rows: prediction_id, row, at_us, version, experiment, epoch, unit, arm, served (its own version answered),
        probability, forced, shadow, weight, latency_ms, error and fallback (1.0 or 0.0), score (null without one).
    told: outcomes as logged, with at_us and received_us.
    """

    root: Path
    rows: ibis.Table
    told: ibis.Table
    _connection: duckdb.DuckDBPyConnection = field(repr=False)

    def __enter__(self) -> "ExperimentLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fetch(self, expression: ibis.Table) -> pa.Table:
        """Run an expression. Raises UnreadableFile where a file turns out to be damaged."""
        try:
            return self._connection.sql(ibis.to_sql(expression, dialect="duckdb", pretty=False)).to_arrow_table()
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def lines(self, expression: ibis.Table) -> list[dict[str, Any]]:
        """Run an expression whose result is a few rows."""
        found: list[dict[str, Any]] = self.fetch(expression).to_pylist()
        return found

    def batches(self, expression: ibis.Table) -> Any:
        """Run an expression whose result may not fit into memory: an iterable of Arrow batches."""
        try:
            return self._connection.sql(ibis.to_sql(expression, dialect="duckdb", pretty=False)).to_arrow_reader()
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def keep(self, name: str, expression: ibis.Table) -> ibis.Table:
        """Run an expression and keep its rows under a name, in DuckDB's memory or its temporary files."""
        try:
            self._connection.sql(ibis.to_sql(expression, dialect="duckdb", pretty=False)).create(name)
        except duckdb.Error as error:
            raise self._unreadable(error) from error
        return ibis.table(expression.schema(), name=name)

    def view(self, name: str, expression: ibis.Table) -> ibis.Table:
        """Give an expression a name, so that what is built on it stays small; nothing is run."""
        self._connection.sql(ibis.to_sql(expression, dialect="duckdb", pretty=False)).create_view(name)
        return ibis.table(expression.schema(), name=name)

    def lend(self, name: str, table: pa.Table) -> ibis.Table:
        """Make an Arrow table readable under a name."""
        self._connection.register(name, table)
        return ibis.table(ibis.Schema.from_pyarrow(table.schema), name=name)

    def _unreadable(self, error: duckdb.Error) -> UnreadableFile:
        return UnreadableFile(self.root, f"cannot be read: {str(error).splitlines()[0]}")


def open_experiment_log(
    log_dir: Path,
    model: str,
    *,
    end: datetime | None = None,
    outcomes_dir: Path | None = None,
    threads: int | None = None,
) -> ExperimentLog:
    """Open a model's rows before `end`, and the outcomes of any time.

    log_dir: the predictions root, or the directory that holds `predictions`; `outcomes` is looked for beside
        `predictions`, unless outcomes_dir says where.
    Raises NoRows where the model has no file there, UnreadableFile where a file is not a log's.
    """
    root = predictions_root(log_dir)
    window = LogWindow(model=model, end=end, include_shadow=True)
    parts = find_parts(root, window)
    connection = connect(threads)
    try:
        # What is kept is sorted where its order matters; holding the files' order besides costs memory.
        connection.execute("SET preserve_insertion_order = false")
        for number, part in enumerate(parts):
            create_view(connection, f"log_{number}", part.paths)
        rows = [_rows_of(part, f"log_{number}", window) for number, part in enumerate(parts)]
        told = _told(connection, outcome_files(root.parent / "outcomes" if outcomes_dir is None else outcomes_dir))
    except BaseException:
        connection.close()
        raise
    log = ExperimentLog(root, rows[0] if len(rows) == 1 else ibis.union(*rows), told, connection)
    return replace(log, rows=log.view("model_rows", log.rows), told=log.view("told", log.told))


def microseconds(moment: datetime) -> int:
    """Give a moment as the log's times are written here."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(at_us: int) -> datetime:
    """Give back a moment, in UTC."""
    return _EPOCH + timedelta(microseconds=at_us)


def double(number: int) -> Any:
    """Make a constant of DuckDB's DOUBLE; ibis would write 0.0, which DuckDB reads as a decimal."""
    return ibis.literal(number).cast("float64")


def _rows_of(part: LogPart, name: str, window: LogWindow) -> ibis.Table:
    missing = [column for column in _NEEDED if column not in part.schema.names]
    if missing:
        raise UnreadableFile(part.paths[0], f"is not a prediction log's: it has no column {', '.join(missing)}")
    logged = ibis.Schema.from_pyarrow(part.schema)
    score = next((column for column in part.schema.names if column.startswith(OUTPUT_PREFIX)), None)
    columns = _NEEDED if score is None else (*_NEEDED, score)
    table = within(ibis.table({column: logged[column] for column in columns}, name=name), window)
    table = table.filter(table.sample_weight > 0)
    drawn = table.assignment_probability
    return table.select(
        prediction_id=table.prediction_id,
        row=table.row.cast("int32"),
        at_us=epoch_us(table.ts),
        version=table.version,
        experiment=table.experiment,
        epoch=table.epoch.fill_null(0).cast("int64"),
        unit=table.unit,
        arm=table.variant_assigned,
        served=(table.variant_served == table.variant_assigned).fill_null(False),
        probability=((drawn > 0) & (drawn <= 1)).ifelse(drawn, ibis.null("float64")).cast("float64"),
        forced=table.forced,
        shadow=table.shadow,
        weight=table.sample_weight.cast("float64"),
        latency_ms=table.total_us / 1000.0,
        error=table.error_code.notnull().ifelse(double(1), double(0)),
        fallback=(table.degraded.length() > 0).ifelse(double(1), double(0)),
        score=_number(table[score]) if score is not None else ibis.null("float64"),
    )


def _number(column: Any) -> Any:
    """Read a score as a number; what is none, or beyond VALUE_MAX, is null."""
    kind = column.type()
    if kind.is_floating():
        number = column.cast("float64")
        return (number.isnan() | (number.abs() > VALUE_MAX)).ifelse(ibis.null("float64"), number)
    if kind.is_numeric() or kind.is_boolean():
        return column.cast("float64")
    return ibis.null("float64")


def _told(connection: duckdb.DuckDBPyConnection, paths: tuple[Path, ...]) -> ibis.Table:
    if paths:
        create_view(connection, "outcomes", paths)
    else:
        connection.register("outcomes", OUTCOME_SCHEMA.empty_table())
    table = ibis.table(ibis.Schema.from_pyarrow(OUTCOME_SCHEMA), name="outcomes")
    table = table.filter(~table.value.isnan(), table.value.abs() <= VALUE_MAX)
    return table.mutate(at_us=epoch_us(table["at"]), received_us=epoch_us(table.received_at))
