"""The demo's directory: its own, emptied at each start, never somebody else's."""

import fcntl
import shutil
from pathlib import Path
from typing import IO, Final

MARKER: Final = ".sekisho-demo"


class NotTheDemosDirectory(Exception):
    """The directory holds something that the demo did not make, or another demo uses it."""


def claim(directory: Path) -> IO[str]:
    """Make the directory, or empty one that an earlier demo made. Returns a lock to keep while it is used.

    Raises NotTheDemosDirectory, and OSError where it cannot be made.
    """
    marker = directory / MARKER
    if directory.exists() and not marker.exists() and any(directory.iterdir()):
        raise NotTheDemosDirectory(
            f"{directory} is not empty and no earlier demo made it: choose another one with --data-dir"
        )
    directory.mkdir(parents=True, exist_ok=True)
    lock = marker.open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise NotTheDemosDirectory(f"another demo uses {directory}: choose another one with --data-dir") from None
    for entry in directory.iterdir():
        if entry == marker:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return lock
