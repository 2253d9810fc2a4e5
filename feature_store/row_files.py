"""Parquet, CSV and Arrow files as a stream of record batches, with bounded memory whatever the file's size."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from feature_store.arrow_columns import ARROW_TYPE
from feature_store.dtypes import Dtype
from feature_store.errors import FeatureStoreError
from feature_store.row_layout import RowLayout

ROWS_PER_BATCH = 50_000
CSV_BLOCK_BYTES = 4 * 1024 * 1024
SUFFIXES = (".parquet", ".csv", ".arrow", ".feather")


class UnreadableRowFile(FeatureStoreError):
    """A data file that cannot be read as what its suffix says."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


@dataclass(frozen=True, slots=True)
class RowFile:
    """An open file. `rows` is None where only reading it all would tell."""

    column_names: list[str]
    rows: int | None
    batches: Iterator[pa.RecordBatch]


@contextmanager
def open_row_file(path: Path, layout: RowLayout, text_columns: set[str], rows_before: int = 0) -> Iterator[RowFile]:
    """Open by suffix, and skip the first `rows_before` rows.

    In CSV, features are read by their declared type and `text_columns` (entity, event time) as text, so that `007`
    stays `007`; only an empty field without quotes is null. Raises UnreadableRowFile, here and from the batches.
    """
    opened = {".parquet": _open_parquet, ".csv": _open_csv, ".arrow": _open_arrow, ".feather": _open_arrow}
    if path.suffix not in opened:
        raise UnreadableRowFile(path, f"is none of {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as source:
            file = opened[path.suffix](source, layout, text_columns)
            yield RowFile(file.column_names, file.rows, _without_first(_told(path, file.batches), rows_before))
    except pa.ArrowException as error:
        raise UnreadableRowFile(path, str(error)) from error
    except OSError as error:
        raise UnreadableRowFile(path, error.strerror or str(error)) from error


def _open_parquet(source: Any, _layout: RowLayout, _text_columns: set[str]) -> RowFile:
    file = pyarrow.parquet.ParquetFile(source)
    return RowFile(file.schema_arrow.names, file.metadata.num_rows, file.iter_batches(ROWS_PER_BATCH))


def _open_csv(source: Any, layout: RowLayout, text_columns: set[str]) -> RowFile:
    # Types come from the declaration: those that pyarrow guesses from the first block would make an id 007 a number.
    types = {name: pa.string() for name in text_columns}
    for column in layout.columns:
        as_text = column.length is not None or column.dtype in {Dtype.STRING, Dtype.TIMESTAMP}
        types[column.name] = pa.string() if as_text else ARROW_TYPE[column.dtype]
    reader = pyarrow.csv.open_csv(
        source,
        # In one thread: only then do errors name the row, and Redis is slower than this anyway.
        read_options=pyarrow.csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    return RowFile(reader.schema.names, None, iter(reader))


def _open_arrow(source: Any, _layout: RowLayout, _text_columns: set[str]) -> RowFile:
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:  # the streaming format has no footer
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return RowFile(stream.schema.names, None, iter(stream))
    return RowFile(file.schema.names, None, (file.get_batch(index) for index in range(file.num_record_batches)))


def _told(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise UnreadableRowFile(path, str(error)) from error


def _without_first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        skipped = min(rows, batch.num_rows)
        rows -= skipped
        if skipped < batch.num_rows:
            yield batch.slice(skipped)
