"""Parquet files of the log, made of closed streams: whole, under their final name by one atomic rename, or not at all.

Whoever holds a stream's lock makes its file, so that two processes may try. The gateway has a process of its own for it
(`parquet_process`); nothing here knows.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.prediction_log.packed_columns import unpacked, unpacked_schema
from gateway.prediction_log.parquet_spool import SPOOL_DIRECTORY, TARGET_KEY

COMPRESSION: Final = "zstd"

ROW_GROUP_ROWS: Final = 65_536
"""Rows of a row group, which are in memory at once."""

REASON_CHARACTERS_MAX: Final = 500


class Conversion(msgspec.Struct, omit_defaults=True):
    """What became of one stream."""

    stream: str
    """Its file name."""

    fault: str | None = None
    """Why it is a stream still; None where it became Parquet, held no row, or is another process's to convert."""

    cut: str | None = None
    """Where it ended in the middle of a batch, which was left out: how that was seen."""


def convert(root: Path, stream: Path) -> Conversion:
    """Make a stream's Parquet file and remove the stream, unless another process holds it. Raises for nothing on disk.

    root: the log's, below which the file will be. A half-written last batch is left out.
    """
    try:
        with stream.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:
                return Conversion(stream.name)  # its file was made between open and lock
            cut = _make_parquet(root, stream)
            stream.unlink()
    except BlockingIOError:
        return Conversion(stream.name)
    except (OSError, pa.ArrowException) as error:
        gone = isinstance(error, FileNotFoundError) and not stream.exists()
        return Conversion(
            stream.name, fault=None if gone else f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
        )
    return Conversion(stream.name, cut=cut)


def convert_named(root: Path, name: str) -> bytes:
    """Convert the stream of that file name; return the Conversion as JSON."""
    converted = convert(root, root / SPOOL_DIRECTORY / name)
    pa.default_memory_pool().release_unused()  # there may be a minute until the next one
    return msgspec.json.encode(converted)


class _WholeBatches:
    """The batches of a stream up to its end, or to where it was cut off."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader = reader
        self.cut: str | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._reader
        except (pa.ArrowInvalid, OSError) as error:
            self.cut = _how_it_was_cut(error)


def _make_parquet(root: Path, stream: Path) -> str | None:
    """Return how the stream was seen to be cut off, None where it is whole. Raises OSError, ArrowException."""
    try:
        source = pa.memory_map(str(stream))
        reader = pa.ipc.open_stream(source)
    except (pa.ArrowInvalid, OSError) as error:
        return _how_it_was_cut(error)
    with source, reader:
        batches = _WholeBatches(reader)
        target = _target(root, reader.schema)
        if target is not None:
            _write(target, unpacked_schema(reader.schema), _row_groups(batches, reader.schema))
    return batches.cut


def _write(target: Path, schema: pa.Schema, groups: Iterator[pa.Table]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.tmp")
    # No statistics of floats: they leave NaN out, and readers that trust them then find none.
    countable = [field.name for field in schema if not pa.types.is_floating(field.type)]
    rows = 0
    with pq.ParquetWriter(unfinished, schema, compression=COMPRESSION, write_statistics=countable) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
            del group  # before the next one is made
    if rows:
        unfinished.replace(target)
    else:
        unfinished.unlink()


def _row_groups(batches: _WholeBatches, schema: pa.Schema) -> Iterator[pa.Table]:
    gathered: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        gathered.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield _row_group(gathered, schema)
            gathered, rows = [], 0
    if gathered:
        yield _row_group(gathered, schema)


def _row_group(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    return unpacked(pa.Table.from_batches(batches, schema).unify_dictionaries())


def _how_it_was_cut(error: Exception) -> str:
    # Arrow tells a stream that ends within a batch by ArrowInvalid or OSError. One of the disk's own has a number.
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return str(error)[:REASON_CHARACTERS_MAX]


def _target(root: Path, schema: pa.Schema) -> Path | None:
    if TARGET_KEY not in (schema.metadata or {}):
        return None
    target = (root / schema.metadata[TARGET_KEY].decode()).resolve()
    return target if target.is_relative_to(root.resolve()) else None
