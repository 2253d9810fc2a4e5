"""How far a load has come, in a small file, so that one that was cut off can go on where it stopped."""

from pathlib import Path

import msgspec

from feature_store.errors import FeatureStoreError, FeatureStoreUnavailable

PROGRESS_BYTES_MAX = 4_096


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds, as JSON. The data's size and time of change say whether it is still the same data."""

    view: str
    data_bytes: int
    data_modified_ns: int
    rows: int
    """Rows from the start that are in Redis."""


class CannotResume(FeatureStoreError):
    """There is nothing to go on from, or it belongs to other data."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"cannot resume from {path}: {problem}; without --resume the load starts over, which is harmless"
        )
        self.path, self.problem = path, problem


class LoadCutOff(FeatureStoreError):
    """Redis stopped taking rows. `rows` of the file, from its start, are stored, and need not be loaded again."""

    def __init__(self, fault: FeatureStoreUnavailable, rows: int) -> None:
        super().__init__(f"{fault}; the first {rows:,} rows are stored: once that is mended, --resume loads the others")
        self.fault, self.rows = fault, rows


def progress_path(data: Path, view: str) -> Path:
    """Where the progress of loading this file into this view is kept: beside the file."""
    return data.with_name(f"{data.name}.{view}.progress")


def read_progress(path: Path, data: Path, view: str) -> int:
    """Say how many rows were loaded before. Raises CannotResume."""
    try:
        if path.stat().st_size > PROGRESS_BYTES_MAX:
            raise CannotResume(path, f"it is longer than {PROGRESS_BYTES_MAX} bytes")
        kept = msgspec.json.decode(path.read_bytes(), type=LoadProgress)
    except FileNotFoundError as error:
        raise CannotResume(path, "there is no such file (a load that finished removes it)") from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CannotResume(path, str(error)) from error
    if kept != _progress(data, view, kept.rows) or kept.rows < 0:
        raise CannotResume(path, f"it is about other data than {data} and view {view}, or the file has changed since")
    return kept.rows


def write_progress(path: Path, data: Path, view: str, rows: int) -> None:
    """Keep how many rows are in Redis; whole or not at all, whenever it is cut off. Raises OSError."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(msgspec.json.encode(_progress(data, view, rows)))
    beside.replace(path)


def _progress(data: Path, view: str, rows: int) -> LoadProgress:
    status = data.stat()
    return LoadProgress(view=view, data_bytes=status.st_size, data_modified_ns=status.st_mtime_ns, rows=rows)
