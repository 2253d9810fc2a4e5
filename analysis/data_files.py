"""Read training data from Parquet or CSV files, as the columns that a profile is made of."""

import glob
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds

from analysis.errors import UnreadableFile
from analysis.prediction_log import parquet_schema
from analysis.profiling import ColumnSource

DATA_FILES_MAX = 100_000
CSV_BYTES_MAX = 2 * 1024**3
"""A CSV file is read whole, and takes about twice its size."""


class ParquetColumns:
    """Parquet files of equal columns, read one column at a time, so that a table larger than memory can be profiled."""

    def __init__(self, dataset: ds.Dataset) -> None:
        self._dataset = dataset

    @property
    def column_names(self) -> Sequence[str]:
        """Names in the order of the first file."""
        names: list[str] = self._dataset.schema.names
        return names

    @property
    def num_rows(self) -> int:
        """Rows of all files, from their footers."""
        return int(self._dataset.count_rows())

    def column(self, name: str) -> pa.ChunkedArray:
        """Read one column of all files."""
        return self._dataset.to_table(columns=[name]).column(0)


def open_data(pattern: str) -> ColumnSource:
    """Open the Parquet or CSV files that a path or a pattern (`train/*.parquet`) names.

    Raises UnreadableFile where nothing matches, kinds are mixed, columns differ from file to file, or a file is
    damaged.
    """
    paths = [Path(found) for found in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - the pattern may be absolute
    if not paths:
        raise UnreadableFile(Path(pattern), "no such file")
    if len(paths) > DATA_FILES_MAX:
        raise UnreadableFile(Path(pattern), f"{len(paths)} files; at most {DATA_FILES_MAX} are read")
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".parquet"}:
        return _parquet(paths)
    if suffixes == {".csv"}:
        return _csv(paths)
    raise UnreadableFile(Path(pattern), f"expected .parquet files or .csv files, found {', '.join(sorted(suffixes))}")


def _parquet(paths: list[Path]) -> ColumnSource:
    schema = parquet_schema(paths[0])
    for path in paths[1:]:
        _check_same(path, parquet_schema(path), paths[0], schema)
    return ParquetColumns(ds.dataset([str(path) for path in paths], schema=schema, format="parquet"))


def _csv(paths: list[Path]) -> ColumnSource:
    size = sum(path.stat().st_size for path in paths)
    if size > CSV_BYTES_MAX:
        raise UnreadableFile(paths[0], f"{size} bytes of CSV; at most {CSV_BYTES_MAX} are read: convert it to Parquet")
    tables: list[pa.Table] = []
    for path in paths:
        try:
            tables.append(pa_csv.read_csv(path))
        except (OSError, pa.ArrowException) as error:
            raise UnreadableFile(path, f"is not readable CSV: {error}") from error
        _check_same(path, tables[-1].schema, paths[0], tables[0].schema)
    source: ColumnSource = pa.concat_tables(tables)
    return source


def _check_same(path: Path, schema: pa.Schema, first_path: Path, first: pa.Schema) -> None:
    # Not read as one with nulls where a column is missing: a baseline with made-up nulls would hide real ones.
    if schema.equals(first):
        return
    differing = sorted({f"{field.name} ({field.type})" for field in set(schema) ^ set(first)})
    shown = ", ".join(differing[:6]) or "the order of columns"
    raise UnreadableFile(path, f"its columns differ from those of {first_path.name} in {shown}")
