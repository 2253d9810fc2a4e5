"""Every revision of every experiment that was ever put, read from what was exported: the audit trail, or files.

The audit trail is the JSON lines of `sekisho-experiments audit --export`. Files are YAML documents, as a gateway reads
them; revision and epoch are then fingerprints of the document.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from analysis.errors import AnalysisError
from experiments import Experiment, ExperimentError, parse_experiment
from settings.yaml_file import ConfigurationError, line_of, read_yaml_documents

FILES_MAX: Final = 1_000
LINES_MAX: Final = 1_000_000
"""Of one file: what an export holds at most."""

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one change: two documents with every override that is allowed are a tenth of it."""

YAML_SUFFIXES: Final = (".yaml", ".yml")
LINES_SUFFIX: Final = ".jsonl"
"""In a directory; a file that is named by itself may have any."""

Key = tuple[str, int]
"""An experiment's name, and its revision."""


class DamagedHistory(AnalysisError):
    """A history cannot be read. Carries the file, the line (from 1) and what was wrong there."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")
        self.path, self.line, self.problem = path, line, problem


@dataclass(frozen=True, slots=True)
class History:
    """Revisions by name and number."""

    _found: Mapping[Key, tuple[Experiment, ...]]

    def of(self, name: str, revision: int) -> tuple[Experiment, ...]:
        """Return what a revision was; nothing where nobody put it.

        More than one where a number was given twice: by a store that was emptied or set back, or where two documents
        have one fingerprint.
        """
        return self._found.get((name, revision), ())

    def experiments(self) -> Iterator[Experiment]:
        """Give every revision."""
        for found in self._found.values():
            yield from found

    @property
    def numbered_twice(self) -> tuple[Key, ...]:
        """The numbers that mean more than one document."""
        return tuple(key for key, found in sorted(self._found.items()) if len(found) > 1)


class _Change(msgspec.Struct):
    """What is read of an audit entry. A kill switch has no document, a restored register many."""

    experiment: str | None = None
    revision: int | None = None
    epoch: int | None = None
    after: dict[str, Any] | None = None
    documents: list["_Change"] = []


_DECODE = msgspec.json.Decoder(_Change).decode


def read_history(paths: Sequence[Path], wanted: Collection[Key] | None = None) -> History:
    """Read files of JSON lines, YAML files, and directories of both.

    wanted: only these are kept, though everything is checked; None keeps all.
    Raises DamagedHistory with file and line.
    """
    found: dict[Key, tuple[Experiment, ...]] = {}
    for path in _files(paths):
        for experiment in _documents(path) if path.suffix in YAML_SUFFIXES else _changes(path):
            key = experiment.name, experiment.revision
            same = found.get(key, ())
            # Files may overlap, and say the same again.
            known = any((one.epoch, one.document) == (experiment.epoch, experiment.document) for one in same)
            if not known and (wanted is None or key in wanted):
                found[key] = (*same, experiment)
    return History(found)


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix in {*YAML_SUFFIXES, LINES_SUFFIX})
        if not inside:
            raise DamagedHistory(path, 1, f"a directory without *{LINES_SUFFIX}, *.yaml and *.yml files")
        files += inside
    if len(files) > FILES_MAX:
        raise DamagedHistory(files[FILES_MAX], 1, f"{len(files)} files; at most {FILES_MAX} are read")
    return files


def _documents(path: Path) -> Iterator[Experiment]:
    try:
        for index, document in enumerate(read_yaml_documents(path, dict[str, Any])):
            try:
                yield parse_experiment(document)
            except ExperimentError as error:
                parts = error.key.replace("[", ".").replace("]", "").split(".")
                keys = [int(part) if part.isdecimal() else part for part in parts]
                raise DamagedHistory(path, line_of(path, *keys, document=index), str(error)) from error
    except ConfigurationError as error:
        raise DamagedHistory(path, error.line, error.problem) from error


def _changes(path: Path) -> Iterator[Experiment]:
    for number, line in _lines(path):
        try:
            change = _DECODE(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problem = f"not a line of `sekisho-experiments audit --export`: {error}"
            raise DamagedHistory(path, number, problem) from error
        for one in (change, *change.documents):
            if one.after is not None:
                yield _experiment(path, number, one, one.after)


def _experiment(path: Path, number: int, change: _Change, document: dict[str, Any]) -> Experiment:
    if change.experiment is None or change.revision is None or change.epoch is None:
        raise DamagedHistory(path, number, "a document without its experiment, revision and epoch")
    try:
        experiment = parse_experiment(document, revision=change.revision, epoch=change.epoch)
    except ExperimentError as error:
        raise DamagedHistory(path, number, f"no document that this program reads: {error}") from error
    if experiment.name != change.experiment:
        problem = f"a change of {change.experiment!r} that holds the document of {experiment.name!r}"
        raise DamagedHistory(path, number, problem)
    return experiment


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX or number > LINES_MAX:
                    problem = f"more than {LINES_MAX} lines" if number > LINES_MAX else "a line that does not end"
                    raise DamagedHistory(path, number, problem)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DamagedHistory(path, 1, f"cannot be read: {error.strerror}") from error
