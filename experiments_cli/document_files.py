"""Experiments from YAML files, each document with where it stands, so that a fault of it can be told with its line.

A file holds documents separated by `---`; of a directory, every `*.yaml` and `*.yml` is read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from experiments import Experiment, ExperimentError, parse_experiment
from experiments.conflicts import refuse_conflicts
from experiments_cli.errors import WrongFiles
from settings.yaml_file import FILE_BYTES_MAX, ConfigurationError, line_of, read_yaml_documents

FILES_MAX: Final = 1_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document stands. index: from 0, within its file. line: of its name, from 1."""

    path: Path
    index: int
    line: int

    def fault(self, key: str, problem: str) -> ConfigurationError:
        """Make the error of a fault under a key, given as an ExperimentError names it, with the key's line."""
        parts = key.replace("[", ".").replace("]", "").split(".")
        keys = [int(part) if part.isdecimal() else part for part in parts]
        return ConfigurationError(self.path, line_of(self.path, *keys, document=self.index), problem)


@dataclass(frozen=True, slots=True)
class FileDocument:
    """One document of a file. document: as JSON has it, where keys are text."""

    source: Source
    document: dict[str, Any]
    experiment: Experiment


def read_documents(path: Path) -> list[FileDocument]:
    """Read every document of a file or a directory, each checked, and all of them together.

    Raises WrongFiles with every fault, the first of each document.
    """
    found: list[FileDocument] = []
    faults: list[ConfigurationError] = []
    for file in _files(path):
        try:
            documents = read_yaml_documents(file, dict[str, Any])
        except ConfigurationError as error:
            faults.append(error)
            continue
        lines = _lines_of_names(file)
        for index, document in enumerate(documents):
            read = _checked(Source(file, index, lines[index] if index < len(lines) else 1), document, found)
            if isinstance(read, FileDocument):
                found.append(read)
            else:
                faults.append(read)
    if faults:
        raise WrongFiles(faults)
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if not files:
        # With --delete-missing a mistyped directory would otherwise mean that every experiment is to go.
        raise WrongFiles([ConfigurationError(path, 1, "a directory without *.yaml and *.yml files")])
    if len(files) > FILES_MAX:
        raise WrongFiles([ConfigurationError(path, 1, f"{len(files)} files; at most {FILES_MAX} are read")])
    return files


def _lines_of_names(path: Path) -> list[int]:
    # All of a file in one pass: `line_of` reads it anew for each, which a thousand documents cannot wait for. What is
    # read here was read well a moment ago; should it have changed meanwhile, lines are off by that.
    lines = []
    try:
        with path.open("rb") as file:
            for node in yaml.compose_all(file.read(FILE_BYTES_MAX), Loader=_LOADER):
                keys = {key.value: key for key, _ in node.value} if isinstance(node, yaml.MappingNode) else {}
                lines.append(keys.get("experiment", node).start_mark.line + 1)
    except (OSError, yaml.YAMLError):
        pass
    return lines


def _checked(
    source: Source, document: dict[str, Any], before: Sequence[FileDocument]
) -> FileDocument | ConfigurationError:
    try:
        experiment = parse_experiment(document)
        refuse_conflicts([*(other.experiment for other in before), experiment])
        return FileDocument(source, _as_json(document), experiment)
    except ExperimentError as error:
        return source.fault(error.key, str(error))
    except (TypeError, ValueError) as error:
        return source.fault("experiment", f"JSON has no such value: {error}")


def _as_json(document: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document, default=str, allow_nan=False))
    return copy
