"""Read a YAML file into a msgspec type; a fault is told with file, line and what was expected."""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

FILE_BYTES_MAX = 4 * 1024 * 1024
"""A configuration larger than this is a mistake (a data file, say)."""

DOCUMENTS_PER_FILE_MAX = 1_000
NESTING_MAX = 100

VALUES_MAX = 1_000_000
"""Of one document, every use of an alias counted with all that it stands for: nine lines of aliases of aliases can
stand for more values than any memory holds."""

T = TypeVar("T")

# libyaml's loader where PyYAML was built with it: ten times faster on a file of a thousand features.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PATH_PART = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+|\.\.\.)\]")
_UNKNOWN_FIELD = re.compile(r"unknown field `(?P<name>.+?)`")
_FAULT = re.compile(r"(?P<problem>.*?)(?: - at (?P<key>`key` in )?`(?P<where>[$][^`]*)`)?", re.DOTALL)
"""msgspec's message: what, and where as a path."""


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
    return [_convert(path, node, expected) for node in _nodes(path)]


def line_of(path: Path, *keys: str | int, document: int = 0) -> int:
    """Find the line (from 1) of the value under `keys`, or of its nearest ancestor that the file has.

    For checks that a type cannot say (two names that must agree), made after reading.
    """
    nodes = _nodes(path)
    return _line(nodes[document], list(keys)) if document < len(nodes) else 1


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigurationError(path, 1, f"more than the {FILE_BYTES_MAX} bytes that are read")
        return data.decode("utf-8")
    except OSError as error:
        raise ConfigurationError(path, 1, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(path, line, "is not UTF-8 text") from error


def _nodes(path: Path) -> list[yaml.Node]:
    text = _text(path)
    nodes: list[yaml.Node] = []
    try:
        _refuse_deep_nesting(path, text)
        loader = _LOADER(text)
        try:
            while loader.check_node():
                if len(nodes) == DOCUMENTS_PER_FILE_MAX:
                    raise ConfigurationError(path, 1, f"more than {DOCUMENTS_PER_FILE_MAX} documents")
                node = loader.get_node()
                _extent(path, node, {}, [])
                nodes.append(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        last = len((text + ".").splitlines())  # libyaml takes the end of a file for the beginning of another line
        line = min(mark.line + 1, last) if mark else 1
        raise ConfigurationError(path, line, f"not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        # libyaml counts its position in bytes, PyYAML in characters; the character is found anew.
        wrong = yaml.reader.Reader.NON_PRINTABLE.search(text)
        line = text.count("\n", 0, wrong.start()) + 1 if wrong else 1
        raise ConfigurationError(path, line, f"not YAML: {error.reason}") from error
    return nodes


def _refuse_deep_nesting(path: Path, text: str) -> None:
    # Before nodes are made of the text: libyaml's binding does that by recursion in C, and a million `[` end the
    # process.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > NESTING_MAX:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigurationError(path, line, f"nested more than {NESTING_MAX} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _extent(path: Path, node: yaml.Node, known: dict[int, tuple[int, int]], parents: list[int]) -> tuple[int, int]:
    # How many values the node stands for, and how deep they are nested. Each node is walked once and its extent kept:
    # to follow every alias anew would take as long as what is refused here.
    line = node.start_mark.line + 1
    if id(node) in parents:
        raise ConfigurationError(path, line, "an alias refers to itself")
    if id(node) in known:
        return known[id(node)]
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicate_keys(path, node)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    parents.append(id(node))
    extents = [_extent(path, part, known, parents) for part in inner]
    parents.pop()
    values, depth = 1 + sum(v for v, _ in extents), 1 + max((d for _, d in extents), default=0)
    if values > VALUES_MAX:
        raise ConfigurationError(path, line, f"stands for more than {VALUES_MAX} values")
    if depth > NESTING_MAX + 1:  # the innermost is a value, not a nesting
        raise ConfigurationError(path, line, f"nested more than {NESTING_MAX} deep")
    known[id(node)] = values, depth
    return values, depth


def _refuse_duplicate_keys(path: Path, node: yaml.MappingNode) -> None:
    # A repeated key is a lost setting: YAML 1.2 forbids it, PyYAML keeps the last one without a word.
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigurationError(path, line, "a key is one word or number, not a list or a mapping")
        if key.value in seen:
            raise ConfigurationError(path, line, f"`{key.value}` was given already in line {seen[key.value]}")
        seen[key.value] = line


def _convert(path: Path, node: yaml.Node, expected: type[T]) -> T:
    value = _constructed(path, node)
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        fault = _FAULT.fullmatch(str(error))
        assert fault is not None  # the expression takes any text
        keys = _resolve(value, fault["where"] or "", str(error), expected)
        if fault["key"]:  # of the mapping at `keys`, some key itself is wrong
            keys += _wrong_key(value, keys, str(error), expected)
        at = ".".join(map(str, keys))
        unknown = _UNKNOWN_FIELD.search(fault["problem"])
        line = _line(node, [*keys, unknown["name"]] if unknown else keys)
        raise ConfigurationError(path, line, fault["problem"] + (f" in `{at}`" if at else "")) from error


def _constructed(path: Path, node: yaml.Node) -> Any:
    loader = _LOADER("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigurationError(path, mark.line + 1 if mark else 1, f"not YAML: {error.problem}") from error
    except Exception as error:
        # PyYAML's constructors raise whatever their parsing ran into: ValueError for `2026-13-45`, KeyError for
        # `!!bool maybe`, IndexError for `!!int ""`.
        scalar = _unreadable_scalar(node)
        line, text = (scalar.start_mark.line + 1, scalar.value) if scalar is not None else (1, "")
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise ConfigurationError(path, line, f"not YAML: {text[:64]!r} is no value of its type{why}") from error
    finally:
        loader.dispose()


def _unreadable_scalar(node: yaml.Node) -> yaml.ScalarNode | None:
    if not isinstance(node, yaml.ScalarNode):
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        return next((found for part in inner if (found := _unreadable_scalar(part)) is not None), None)
    loader = _LOADER("")
    try:
        loader.construct_document(node)
    except Exception:  # noqa: BLE001 - as above; which one it is does not matter, only that there is one
        return node
    finally:
        loader.dispose()
    return None


def _resolve(value: Any, where: str, message: str, expected: type) -> list[str | int]:
    # msgspec writes `[...]` for "some key of this mapping". Which one is found by trying each alone.
    keys: list[str | int] = []
    for part in _PATH_PART.finditer(where):
        if part["name"] is not None:
            keys.append(part["name"])
        elif part["index"] != "...":
            keys.append(int(part["index"]))
        else:
            found = _wrong_key(value, keys, message, expected)
            if not found:
                break
            value = _replaced(value, keys, {found[0]: _at(value, keys)[found[0]]})
            keys += found
    return keys


def _wrong_key(value: Any, keys: list[str | int], message: str, expected: type) -> list[str | int]:
    inside = _at(value, keys)
    for key, item in inside.items() if isinstance(inside, dict) else ():
        try:
            msgspec.convert(_replaced(value, keys, {key: item}), expected)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return [key]
    return []


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
