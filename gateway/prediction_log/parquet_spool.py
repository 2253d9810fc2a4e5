"""Streams of the log: Arrow data on disk that grows while it is open, to become one Parquet file once it is closed.

Every append is handed to the operating system at once, so that a killed process loses nothing that was appended.
Streams that a dead process left are found by the lock that nobody holds on them. `parquet_file` makes the Parquet.
"""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

SPOOL_DIRECTORY: Final = "spool"
SPOOL_SUFFIX: Final = ".arrows"
TARGET_KEY: Final = b"sekisho.target"
"""Schema metadata of a stream: the path, below the log's root, of the Parquet file that it will become."""

BUFFER_BYTES: Final = 256 * 1024
"""Of a stream's buffer: the usual batch reaches the operating system by one call."""


@dataclass(frozen=True, slots=True)
class FileNames:
    """How one process names its files: `{host}-{boot}-{sequence}`, so that no two processes ever share a name."""

    host: str
    boot: str

    def name(self, sequence: int) -> str:
        """Return the name of the file of that number."""
        return f"{self.host}-{self.boot}-{sequence:06d}"


class OpenSpool:
    """One growing stream. Its metadata say where the Parquet file will go, so that another process can make it."""

    def __init__(self, root: Path, target: str, schema: pa.Schema) -> None:
        """Begin a stream. target: the Parquet file's path below `root`. Raises OSError."""
        directory = root / SPOOL_DIRECTORY
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / Path(target).with_suffix(SPOOL_SUFFIX).name
        self.rows = 0
        self.bytes = 0
        # The lock says "in use", and is taken under another name: between open and lock, a process that starts would
        # take the file for an orphan.
        unlocked = self.path.with_suffix(".new")
        self._file = _AppendedFile(unlocked)
        try:
            unlocked.rename(self.path)
        except OSError:
            self._file.end()
            raise
        marked = schema.with_metadata({**(schema.metadata or {}), TARGET_KEY: target.encode()})
        # Arrow writes each column's buffers by themselves. Without a buffer before it, each would be a call into
        # Python, for which the writer's thread would have to ask the event loop's for the interpreter.
        self._buffered = pa.BufferedOutputStream(pa.PythonFile(self._file, "w"), BUFFER_BYTES)
        self._writer = pa.ipc.new_stream(self._buffered, marked)

    def append(self, batch: pa.RecordBatch) -> None:
        """Append rows; they are with the operating system when this returns. Raises OSError: then append no more."""
        try:
            self._writer.write_batch(batch)
            self._buffered.flush()
        except (OSError, pa.ArrowException):
            self._file.cut()
            raise
        self._file.keep()
        self.rows += batch.num_rows
        self.bytes += batch.nbytes

    def close(self) -> None:
        """End the stream and let go of its lock. It holds every batch that `append` returned from."""
        # The mark at its end is a courtesy: a stream that ends behind a whole batch is read without it.
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
            self._buffered.flush()
        self._file.end()


def left_behind(root: Path) -> list[Path]:
    """List the streams that are on disk: all but those that are being written are a dead process's."""
    return sorted((root / SPOOL_DIRECTORY).glob(f"*{SPOOL_SUFFIX}"))


class _AppendedFile:
    """A file for pyarrow to write to, of which what was not kept can be cut off for good.

    Arrow's buffer writes once more, when it is flushed or freed, what it could not write before. Behind half of the
    same bytes that would be read as rows which nobody wrote.
    """

    def __init__(self, path: Path) -> None:
        """Create it and take its lock. Raises OSError."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._length = self._kept = 0
        self._taking = True
        self.closed = False

    def write(self, data: bytes) -> None:
        """Hand bytes to the operating system, all of them. Raises OSError."""
        rest = memoryview(data if self._taking else b"")
        while rest:
            written = os.write(self._fd, rest)
            self._length += written
            rest = rest[written:]

    def keep(self) -> None:
        """Keep what was written so far, whatever fails later."""
        self._kept = self._length

    def cut(self) -> None:
        """Cut off what was not kept, and take nothing more."""
        self._taking = False
        with contextlib.suppress(OSError):  # half a batch at a stream's very end is left out when it is read
            os.ftruncate(self._fd, self._kept)

    def end(self) -> None:
        """Close it, which frees the lock."""
        if not self.closed:
            self.closed, self._taking = True, False
            with contextlib.suppress(OSError):  # its bytes were counted when they were written
                os.close(self._fd)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Leave it to `end`: pyarrow closes what it is given when it frees its own, at a time of its choice."""
