"""Read a prediction log: find a model's files, and hand out its rows in parts of equal columns.

Versions of a model log different columns. Files are therefore grouped by their columns and every part is read alone:
read as one table, a column that a version never had would come out as nulls, and nulls are what a drift report looks
for.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import NoRows, UnreadableFile
from contracts.prediction_record import SCHEMA_VERSION

LOG_FILES_MAX = 200_000
"""Two years of hourly files from ten hosts. More means a wrong directory, or a log that wants compacting."""

MEMORY_MAX = "4GB"
"""DuckDB's own bound; what does not fit is spilled to its temporary directory."""

PARTITION_SLACK: Final = timedelta(hours=2)
"""A file is filed by when it was begun or closed, so that its rows may belong to a neighbouring hour."""

_SCHEMA_VERSION_KEY: Final = b"sekisho.schema_version"
_NEEDED: Final = ("ts", "model", "version", "variant_served", "shadow", "forced", "degraded", "sample_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWindow:
    """Which rows of a model are looked at: `start <= ts < end`, each open where None.

    `version` None means every version. Raises ValueError for a bound without time zone, or a window that ends before
    it begins.
    """

    model: str
    version: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    include_shadow: bool = False

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound is not None and bound.tzinfo is None:
                raise ValueError(f"{bound.isoformat()} has no time zone: which hours it means cannot be told")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(
                f"the window begins at {self.start.isoformat()}, not before its end {self.end.isoformat()}"
            )

    def __str__(self) -> str:
        name = self.model if self.version is None else f"{self.model}@{self.version}"
        start = "the beginning" if self.start is None else self.start.isoformat()
        end = "now" if self.end is None else self.end.isoformat()
        return f"model {name!r} from {start} to {end}"


@dataclass(frozen=True, slots=True)
class LogPart:
    """Files that have the same columns."""

    schema: pa.Schema
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PredictionLog:
    """The rows of one window. Close it, or use it as a context manager."""

    root: Path
    window: LogWindow
    parts: tuple[LogPart, ...]
    _connection: duckdb.DuckDBPyConnection = field(repr=False)

    def __enter__(self) -> "PredictionLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, part: LogPart) -> ibis.Table:
        """Give the part's rows of the window, as an ibis table for `fetch`."""
        table = ibis.table(ibis.Schema.from_pyarrow(part.schema), name=self._table_name(part))
        return within(table, self.window)

    def fetch(self, expression: ibis.Table) -> pa.Table:
        """Run an expression over the rows of this log. Raises UnreadableFile where a file turns out to be damaged."""
        try:
            return self._connection.sql(ibis.to_sql(expression, dialect="duckdb")).to_arrow_table()
        except duckdb.Error as error:
            raise UnreadableFile(self.root, f"cannot be read: {str(error).splitlines()[0]}") from error

    def _table_name(self, part: LogPart) -> str:
        return f"log_{self.parts.index(part)}"


def within(table: ibis.Table, window: LogWindow) -> ibis.Table:
    """Keep the window's rows of a table that has the prediction log's fixed columns."""
    conditions = [table.model == window.model]
    if window.version is not None:
        conditions.append(table.version == window.version)
    if window.start is not None:
        conditions.append(table.ts >= window.start)
    if window.end is not None:
        conditions.append(table.ts < window.end)
    if not window.include_shadow:
        conditions.append(~table.shadow)
    return table.filter(*conditions)


def predictions_root(log_dir: Path) -> Path:
    """Find the directory that holds `model=…`: the one given, or `predictions` in it. Raises UnreadableFile."""
    if not log_dir.is_dir():
        raise UnreadableFile(
            log_dir, "is not a directory; give the prediction log's root, which holds model=…/date=…/hour=…"
        )
    return log_dir / "predictions" if (log_dir / "predictions").is_dir() else log_dir


def open_log(log_dir: Path, window: LogWindow, *, threads: int | None = None) -> PredictionLog:
    """Open the part of a prediction log that can hold the window's rows.

    log_dir: the predictions root, or the directory that holds it as `predictions`.
    threads: of DuckDB; None takes one a core.
    Raises NoRows where the model has no file there, UnreadableFile where a file is not a prediction log's.
    """
    root = predictions_root(log_dir)
    parts = find_parts(root, window)
    connection = connect(threads)
    for number, part in enumerate(parts):
        create_view(connection, f"log_{number}", part.paths)
    return PredictionLog(root, window, parts, connection)


def find_parts(root: Path, window: LogWindow) -> tuple[LogPart, ...]:
    """Find the files that can hold the window's rows, grouped by their columns. Raises as `open_log` does."""
    paths = sorted(_files(root, window))
    if not paths:
        raise NoRows(root, str(window))
    groups: dict[tuple[tuple[str, str], ...], tuple[pa.Schema, list[Path]]] = {}
    for path in paths:
        schema = parquet_schema(path)
        _check_schema(path, schema)
        key = tuple(sorted((column.name, str(column.type)) for column in schema))
        groups.setdefault(key, (schema, []))[1].append(path)
    return tuple(LogPart(schema.remove_metadata(), tuple(files)) for schema, files in groups.values())


def connect(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Open an empty DuckDB within the memory bound, which fetches nothing from any network."""
    config: dict[str, Any] = {
        "memory_limit": MEMORY_MAX,
        "autoinstall_known_extensions": False,
        # Parquet's statistics leave NaN out, and DuckDB takes a column with such statistics for one without NaN: it
        # then answers every isnan() with false.
        "disabled_optimizers": "statistics_propagation",
        # Made only when something spills, and removed at close. By default it would lie in the working directory.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"sekisho-analysis-{os.getpid()}"),
    }
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(config=config)


def create_view(connection: duckdb.DuckDBPyConnection, name: str, paths: tuple[Path, ...]) -> None:
    """Name a list of Parquet files as one table. Raises UnreadableFile."""
    try:
        # The directory's model=, date= and hour= say less than the rows' own columns, and would hide `model`.
        files = connection.read_parquet([str(path) for path in paths], hive_partitioning=False, union_by_name=True)
        files.create_view(name)
    except duckdb.Error as error:
        raise UnreadableFile(paths[0].parent, f"cannot be read: {str(error).splitlines()[0]}") from error


def parquet_schema(path: Path) -> pa.Schema:
    """Read a Parquet file's columns. Raises UnreadableFile."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UnreadableFile(path, "is not a readable Parquet file; move it away to go on without it") from error


def _files(root: Path, window: LogWindow) -> Iterator[Path]:
    found = 0
    # A path, not a pattern: the model's name comes from outside.
    for path in (root / f"model={window.model}").glob("date=*/hour=*/*.parquet"):
        if not _may_hold(path, window):
            continue
        found += 1
        if found > LOG_FILES_MAX:
            raise UnreadableFile(root, f"more than {LOG_FILES_MAX} files: narrow the window, or compact the log")
        yield path


def _may_hold(path: Path, window: LogWindow) -> bool:
    hour = path.parent.name.removeprefix("hour=")
    date = path.parent.parent.name.removeprefix("date=")
    try:
        begin = datetime.strptime(f"{date} {hour}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    except ValueError:
        return True  # not a name that the log's writer gives: its rows' own times decide
    end = begin + timedelta(hours=1)
    too_early = window.start is not None and end + PARTITION_SLACK <= window.start
    too_late = window.end is not None and begin - PARTITION_SLACK >= window.end
    return not (too_early or too_late)


def _check_schema(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in _NEEDED if name not in schema.names]
    if missing:
        raise UnreadableFile(path, f"is not a prediction log's: it has no column {', '.join(missing)}")
    version = (schema.metadata or {}).get(_SCHEMA_VERSION_KEY, b"1")
    if version.decode(errors="replace") not in {str(known) for known in range(1, SCHEMA_VERSION + 1)}:
        raise UnreadableFile(
            path, f"has schema version {version.decode(errors='replace')}; up to {SCHEMA_VERSION} is known"
        )
