"""The prediction log of any number of models, as one table of what its rows say of their assignments.

Everything heavy is done by DuckDB, out of core.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa

from analysis.assignment_replay.logged_assignment import COLUMN_BY_FACT, FACTS
from analysis.errors import NoRows, UnreadableFile
from analysis.experiment_results.experiment_log import epoch_us
from analysis.prediction_log import LogPart, LogWindow, connect, create_view, find_parts, predictions_root

BATCH_ROWS: Final = 65_536
"""Of decisions that are taken out of DuckDB at once."""

ROW_COLUMNS: Final = ("prediction_id", "row", "at_us")

_NEEDED: Final = ("prediction_id", "row", "ts", *COLUMN_BY_FACT.values())
_MODEL_PREFIX: Final = "model="


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Files of equal columns. table: their columns as logged, within the window, and besides ROW_COLUMNS and FACTS.

    The facts' names begin with `_`, for some columns are named like them.
    """

    schema: pa.Schema
    table: ibis.Table


@dataclass(frozen=True, slots=True)
class ReplayLog:
    """The rows of a window. Close it, or use it as a context manager."""

    root: Path
    scope: str
    """Which rows, in words."""

    parts: tuple[LoggedRows, ...]
    rows: ibis.Table
    """Of all parts, with ROW_COLUMNS and FACTS alone."""

    _connection: duckdb.DuckDBPyConnection = field(repr=False)

    def __enter__(self) -> "ReplayLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def lines(self, expression: ibis.Table) -> list[dict[str, Any]]:
        """Run an expression whose result is a few rows. Raises UnreadableFile where a file is damaged."""
        try:
            found: list[dict[str, Any]] = self._connection.sql(_sql(expression)).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            raise self._unreadable(error) from error
        return found

    def tuples(self, expression: ibis.Table) -> Iterator[list[tuple[Any, ...]]]:
        """Run an expression whose result may not fit into memory: its rows, batch by batch. Raises as `lines`."""
        try:
            for batch in self._connection.sql(_sql(expression)).to_arrow_reader(BATCH_ROWS):
                yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def lend(self, name: str, table: pa.Table) -> ibis.Table:
        """Make an Arrow table readable under a name."""
        self._connection.register(name, table)
        return ibis.table(ibis.Schema.from_pyarrow(table.schema), name=name)

    def _unreadable(self, error: duckdb.Error) -> UnreadableFile:
        return UnreadableFile(self.root, f"cannot be read: {str(error).splitlines()[0]}")


def open_replay_log(
    log_dir: Path,
    *,
    model: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    threads: int | None = None,
) -> ReplayLog:
    """Open the rows of `start <= ts < end`, of one model or of all, shadows too.

    log_dir: the predictions root, or the directory that holds `predictions`.
    Raises NoRows where there is no file, UnreadableFile where one is not a prediction log's.
    """
    root = predictions_root(log_dir)
    models = [model] if model is not None else _models(root)
    windows = [LogWindow(model=name, start=start, end=end, include_shadow=True) for name in models]
    scope = str(windows[0]) if len(windows) == 1 else f"{len(models)} models in the window"
    found = list(_parts(root, windows))
    if not found:
        raise NoRows(root, scope)
    connection = connect(threads)
    try:
        # What is taken out is sorted; holding the files' order besides costs memory.
        connection.execute("SET preserve_insertion_order = false")
        parts = []
        for number, (part, window) in enumerate(found):
            create_view(connection, f"log_{number}", part.paths)
            table = _named(connection, f"facts_{number}", _with_facts(part, f"log_{number}", window))
            parts.append(LoggedRows(part.schema, table))
        rows = _named(connection, "rows_of_all", union([facts_of(part.table) for part in parts]))
    except BaseException:
        connection.close()
        raise
    return ReplayLog(root, scope, tuple(parts), rows, connection)


def facts_of(table: ibis.Table) -> ibis.Table:
    """Leave ROW_COLUMNS and FACTS, by these names."""
    return table.select(*ROW_COLUMNS, **{fact: table[f"_{fact}"] for fact in FACTS})


def union(tables: Sequence[ibis.Table]) -> ibis.Table:
    """Put tables of equal columns below each other."""
    return tables[0] if len(tables) == 1 else ibis.union(*tables)


def _models(root: Path) -> list[str]:
    return sorted(path.name.removeprefix(_MODEL_PREFIX) for path in root.glob(f"{_MODEL_PREFIX}*") if path.is_dir())


def _parts(root: Path, windows: Sequence[LogWindow]) -> Iterator[tuple[LogPart, LogWindow]]:
    for window in windows:
        try:
            for part in find_parts(root, window):
                yield part, window
        except NoRows:
            continue  # of this model; another one may have some


def _with_facts(part: LogPart, name: str, window: LogWindow) -> ibis.Table:
    missing = [column for column in _NEEDED if column not in part.schema.names]
    if missing:
        raise UnreadableFile(part.paths[0], f"is not a prediction log's: it has no column {', '.join(missing)}")
    # Nullable all: joins make them so, and only tables of equal columns can be put together.
    nullable = pa.schema([column.with_nullable(True) for column in part.schema])
    table = ibis.table(ibis.Schema.from_pyarrow(nullable), name=name)
    # By the directory's model, whatever a row says: one that says another is not passed over, but found.
    if window.start is not None:
        table = table.filter(table.ts >= window.start)
    if window.end is not None:
        table = table.filter(table.ts < window.end)
    facts = {f"_{fact}": table[column] for fact, column in COLUMN_BY_FACT.items()}
    facts["_stepped_down"] = table.error_code.notnull()
    # Where no experiment is named the unit decides nothing, and all such rows are one decision.
    facts["_unit"] = table.experiment.notnull().ifelse(table.unit, ibis.null("string"))
    return table.mutate(at_us=epoch_us(table.ts), **facts)


def _named(connection: duckdb.DuckDBPyConnection, name: str, expression: ibis.Table) -> ibis.Table:
    """Make a view, so that an expression is put into SQL once, and not by each question anew."""
    connection.sql(_sql(expression)).create_view(name)
    return ibis.table(expression.schema(), name=name)


def _sql(expression: ibis.Table) -> str:
    return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))
