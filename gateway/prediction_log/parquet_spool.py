"""Files of the log: an Arrow stream that grows while it is open, made into one Parquet file when it is closed.

Every append is handed to the operating system at once, so that a killed process loses nothing that was appended. A
closed stream becomes Parquet under its final name by one atomic rename: a reader sees whole files only. Streams that a
dead process left are closed by the next one that starts.
"""

import fcntl
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

SPOOL_SUFFIX: Final = ".arrows"
TARGET_KEY: Final = b"sekisho.target"
"""Schema metadata of a stream: the path, below the log's root, of the Parquet file that it will become."""

COMPRESSION: Final = "zstd"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileNames:
    """How one process names its files: `{host}-{boot}-{sequence}`, so that no two processes ever share a name."""

    host: str
    boot: str

    def name(self, sequence: int) -> str:
        """Return the name of the file of that number."""
        return f"{self.host}-{self.boot}-{sequence:06d}"


class OpenSpool:
    """One growing stream. Its metadata say where the Parquet file will go, so that another process can finish it."""

    def __init__(self, root: Path, target: str, schema: pa.Schema) -> None:
        """Begin a stream. target: the Parquet file's path below `root`. Raises OSError."""
        directory = root / "spool"
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / Path(target).with_suffix(SPOOL_SUFFIX).name
        self.rows = 0
        self.bytes = 0
        self._root = root
        # Unbuffered: what is appended is with the operating system when `append` returns. The lock says "in use", and
        # is taken under another name: between open and lock, a process that starts would take the file for an orphan.
        unlocked = self.path.with_suffix(".new")
        self._file = unlocked.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(self.path)
        marked = schema.with_metadata({**(schema.metadata or {}), TARGET_KEY: target.encode()})
        self._writer = pa.ipc.new_stream(self._file, marked)

    def append(self, batch: pa.RecordBatch) -> None:
        """Append rows. Raises OSError."""
        self._writer.write_batch(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

    def close(self) -> Path | None:
        """Make the Parquet file and remove the stream. Returns its path. Raises OSError; the stream then stays."""
        try:
            self._writer.close()
            return finish(self._root, self.path)
        finally:
            self._file.close()


def finish(root: Path, stream: Path) -> Path | None:
    """Make a stream's Parquet file and remove the stream. A half-written last batch is left out. Raises OSError.

    Returns the file's path, None where the stream held no row.
    """
    batches = []
    schema = None
    try:
        with pa.memory_map(str(stream)) as source, pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            batches.extend(reader)
    except (pa.ArrowInvalid, OSError) as error:
        # Arrow tells a stream that ends within a batch by either. An OSError of the disk's own has a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        logger.warning("a log stream ends in the middle of a batch", extra={"file": stream.name, "reason": str(error)})
    target = _target(root, schema)
    if target is not None and batches:
        table = pa.Table.from_batches(batches, schema).unify_dictionaries()
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.tmp")
        # No statistics of floats: they leave NaN out, and readers that trust them then find none.
        countable = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
        pq.write_table(table, unfinished, compression=COMPRESSION, write_statistics=countable)
        unfinished.replace(target)
    stream.unlink()
    return target if batches else None


def _target(root: Path, schema: pa.Schema | None) -> Path | None:
    if schema is None or TARGET_KEY not in (schema.metadata or {}):
        return None
    target = (root / schema.metadata[TARGET_KEY].decode()).resolve()
    return target if target.is_relative_to(root.resolve()) else None


def recover(root: Path) -> int:
    """Finish the streams that no living process holds. Returns how many. Never raises for one bad file."""
    finished = 0
    for stream in sorted((root / "spool").glob(f"*{SPOOL_SUFFIX}")):
        try:
            with stream.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finish(root, stream)
                finished += 1
        except BlockingIOError:
            continue  # another process is writing it
        except (OSError, pa.ArrowException) as error:
            logger.warning("a log stream cannot be recovered", extra={"file": stream.name, "reason": str(error)})
    return finished
