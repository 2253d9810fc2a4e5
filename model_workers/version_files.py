"""Read the files of a version, which may be anything: regular ones only, and no more than each says that it holds.

A named pipe, a device or a socket in the place of a file would otherwise hold up its load, and every later one, for
ever.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, Final

from contracts.manifest import Manifest
from model_workers.errors import FileChanged, RepositoryError

ARTIFACT_BYTES_MAX: Final = 8 * 1024**3
CHUNK_BYTES: Final = 1 << 20

FileStamp = tuple[int, int, int]
"""Inode, size and mtime in ns: another one means another file, or another content."""


def stamp_of(status: os.stat_result) -> FileStamp:
    """Take what tells a file from another, and from what it was."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_file(path: Path, bytes_max: int) -> tuple[FileStamp, bytes]:
    """Read a file whole, and stamp it as it was before.

    Raises OSError, RepositoryError where it is no regular file or is too large, FileChanged.
    """
    with _opened(path, bytes_max) as (file, status):
        data = file.read(status.st_size)
        _refuse_resized(path, file, status.st_size - len(data))
    return stamp_of(status), data


def hash_file(path: Path, bytes_max: int) -> tuple[FileStamp, str]:
    """Hash a file with SHA-256, in hexadecimal, and stamp it as it was before. Raises what `read_file` does."""
    digest = hashlib.sha256()
    with _opened(path, bytes_max) as (file, status):
        left = status.st_size
        while chunk := file.read(min(CHUNK_BYTES, left)):
            digest.update(chunk)
            left -= len(chunk)
        _refuse_resized(path, file, left)
    return stamp_of(status), digest.hexdigest()


def read_artifact(directory: Path, manifest: Manifest) -> bytes:
    """Read the model file that a manifest names, for a runtime. Raises what `read_file` does."""
    _, data = read_file(directory / manifest.artifact.file, ARTIFACT_BYTES_MAX)
    return data


@contextmanager
def _opened(path: Path, bytes_max: int) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    # Without O_NONBLOCK the open of a pipe waits for who writes to it.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise RepositoryError(path, "is no regular file") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise RepositoryError(path, "is no regular file")
        if status.st_size > bytes_max:
            raise RepositoryError(path, f"has more than {bytes_max} bytes, the most that is read")
        with open(descriptor, "rb", closefd=False) as file:
            yield file, status
    finally:
        os.close(descriptor)


def _refuse_resized(path: Path, file: BinaryIO, missing: int) -> None:
    if missing or file.read(1):
        raise FileChanged(path)
