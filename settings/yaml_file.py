"""Read a YAML file into a msgspec type; a fault is told with file, line and what was expected."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

FILE_BYTES_MAX = 4 * 1024 * 1024
"""A configuration larger than this is a mistake (a data file, say)."""

DOCUMENTS_PER_FILE_MAX = 1_000

T = TypeVar("T")

# libyaml's loader where PyYAML was built with it: ten times faster on a file of a thousand features.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PATH_PART = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<name>.+?)`")


class ConfigurationError(ValueError):
    """A configuration file is wrong. Carries where (file, line from 1) and what was expected there."""

    def __init__(self, path: Path | str, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")
        self.path, self.line, self.problem = Path(path), line, problem


def read_yaml(path: Path, expected: type[T]) -> T:
    """Read the file's one document as `expected`. Raises ConfigurationError, and never anything else."""
    documents = read_yaml_documents(path, expected)
    if len(documents) != 1:
        raise ConfigurationError(path, 1, f"expected one document, found {len(documents)}")
    return documents[0]


def read_yaml_documents(path: Path, expected: type[T]) -> list[T]:
    """Read each `---`-separated document as `expected`. Raises ConfigurationError, and never anything else."""
    nodes = list(_nodes(path))
    if len(nodes) > DOCUMENTS_PER_FILE_MAX:
        raise ConfigurationError(path, 1, f"more than {DOCUMENTS_PER_FILE_MAX} documents")
    return [_convert(path, node, expected) for node in nodes]


def line_of(path: Path, *keys: str | int, document: int = 0) -> int:
    """Find the line (from 1) of the value under `keys`, or of its nearest ancestor that the file has.

    For checks that a type cannot say (two names that must agree), made after reading.
    """
    nodes = list(_nodes(path))
    return _line(nodes[document], list(keys)) if document < len(nodes) else 1


def _nodes(path: Path) -> Iterator[yaml.Node]:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ConfigurationError(path, 1, f"{size} bytes; at most {FILE_BYTES_MAX} are read")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(path, 1, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, 1, "is not UTF-8 text") from error
    loader = _LOADER(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            _refuse_duplicate_keys(path, node, [])
            yield node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationError(path, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(path, 1, f"not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(path, 1, "nested too deeply") from error
    finally:
        loader.dispose()


def _refuse_duplicate_keys(path: Path, node: yaml.Node, parents: list[int]) -> None:
    # A repeated key is a lost setting: YAML 1.2 forbids it, PyYAML keeps the last one without a word.
    if id(node) in parents:
        raise ConfigurationError(path, node.start_mark.line + 1, "an alias refers to itself")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigurationError(path, line, f"`{key.value}` was given already in line {seen[key.value]}")
            if isinstance(key.value, str):
                seen[key.value] = line
            _refuse_duplicate_keys(path, value, [*parents, id(node)])
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(path, item, [*parents, id(node)])


def _convert(path: Path, node: yaml.Node, expected: type[T]) -> T:
    loader = _LOADER("")
    try:
        value = loader.construct_document(node)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0)
        raise ConfigurationError(path, line + 1, f"not YAML: {error}") from error
    finally:
        loader.dispose()
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `")
        keys = _resolve(value, where.rstrip("`"), str(error), expected)
        unknown = _UNKNOWN_FIELD.search(problem)
        at = ".".join(map(str, keys))
        line = _line(node, [*keys, unknown["name"]] if unknown else list(keys))
        raise ConfigurationError(path, line, problem + (f" in `{at}`" if at else "")) from error


def _resolve(value: Any, where: str, message: str, expected: type) -> list[str | int]:
    # msgspec writes `[...]` for "some key of this mapping". Which one is found by trying each alone.
    keys: list[str | int] = []
    for part in _PATH_PART.finditer(where):
        if part["name"] is not None:
            keys.append(part["name"])
        elif part["index"] != "...":
            keys.append(int(part["index"]))
        else:
            inside = _at(value, keys)
            if not isinstance(inside, dict):
                break
            for key, item in inside.items():
                try:
                    msgspec.convert(_replaced(value, keys, {key: item}), expected)
                except msgspec.ValidationError as error:
                    if str(error) == message:
                        keys.append(key)
                        value = _replaced(value, keys[:-1], {key: item})
                        break
            else:
                break
    return keys


def _at(value: Any, keys: list[str | int]) -> Any:
    for key in keys:
        value = value[key]
    return value


def _replaced(value: Any, keys: list[str | int], inner: Any) -> Any:
    if not keys:
        return inner
    copy = value.copy()
    copy[keys[0]] = _replaced(value[keys[0]], keys[1:], inner)
    return copy


def _line(node: yaml.Node, keys: list[str | int]) -> int:
    line = int(node.start_mark.line) + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if str(k.value) == str(key)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
