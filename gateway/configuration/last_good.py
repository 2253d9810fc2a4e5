"""What a gateway has seen and would need again: files in its state directory, for a start while their sources are away.

Several processes share the directory. A file is written whole or not at all, and nothing in it is trusted: whoever
reads one checks it as if it had come over the network.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE_FILE_BYTES_MAX: Final = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class StateNotWritten(OSError):
    """The state directory does not take a file; the message says which one and why."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """A file as it was read, and its age."""

    data: bytes
    age_s: float


class StateDirectory:
    """Reads and writes files under one directory. now_us: wall clock. Its methods block, but for `keep`.

    `problem` says why the last write failed; None where it did not.
    """

    def __init__(self, path: Path, now_us: Callable[[], int]) -> None:
        self._path, self._now_us = path, now_us
        self._kept: dict[str, bytes] = {}
        self._writing = asyncio.Lock()
        self.problem: str | None = None

    def path_of(self, name: str) -> Path:
        """Give a file's path. name: relative, of checked parts."""
        return self._path / name

    def read(self, name: str) -> StoredState | None:
        """Read a file. None where there is none, or none that can be read, which is logged."""
        path = self.path_of(name)
        try:
            with path.open("rb") as file:
                data = file.read(STATE_FILE_BYTES_MAX + 1)
                written_at_s = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("a state file cannot be read", extra={"file": str(path), "reason": str(error)})
            return None
        if len(data) > STATE_FILE_BYTES_MAX:
            ignored(path, f"it has more than {STATE_FILE_BYTES_MAX} bytes")
            return None
        return StoredState(data, max(0.0, self._now_us() / 1e6 - written_at_s))

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that a reader, or a start after a power cut, finds the old one or the new one, whole.

        Raises StateNotWritten.
        """
        path = self.path_of(name)
        temporary: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A random name: on a volume of several machines, two processes may have one id.
            descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary = Path(made)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - it is open already
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
        except OSError as error:
            self.problem = f"{path}: {error.strerror or error}"
            if temporary is not None:
                with contextlib.suppress(OSError):  # the fault that counts is told already
                    temporary.unlink()
            raise StateNotWritten(self.problem) from error
        self.problem = None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there. Raises StateNotWritten."""
        self._kept.pop(name, None)
        try:
            self.path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise StateNotWritten(f"{self.path_of(name)}: {error.strerror or error}") from error

    async def keep(self, name: str, data: bytes) -> None:
        """Write a file off the event loop unless this process wrote the same last. A failure is logged, once.

        What is kept so can be learned again from its source: serving goes on without it.
        """
        if self._kept.get(name) == data:
            return
        async with self._writing:
            had_problem = self.problem is not None
            try:
                await asyncio.to_thread(self.write, name, data)
            except StateNotWritten as error:
                if not had_problem:
                    logger.warning("the last good configuration cannot be kept", extra={"reason": str(error)})
                return
            self._kept[name] = data


def ignored(path: Path, reason: str) -> None:
    """Log that a state file is not used."""
    logger.warning("a state file is ignored", extra={"file": str(path), "reason": reason})


def _sync_directory(path: Path) -> None:
    # The rename itself is on disk only when its directory is.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
