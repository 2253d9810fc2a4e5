"""Check LightGBM's text form before its library reads it.

The library parses trees on threads of its own, where what it cannot read ends the whole process (`std::terminate`), and
believes every index: a truncated file aborts a worker, a flipped bit in a child's number lets it run in circles or read
beyond a buffer. So whatever an index leads to is checked here, and each number for being one. A changed digit that
leaves a well-formed tree is another model, which nothing but the artifact's hash can tell.

Source: `GBDT::LoadModelFromString` and the constructor `Tree::Tree(const char*, size_t*)` of LightGBM.
"""

import re
from typing import Final

TREES_MAX: Final = 1_000_000

_INTEGERS = re.compile(rb"-?[0-9]{1,10}(?: -?[0-9]{1,10})*\Z")
_NUMBER = rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|inf|nan)"
_NUMBERS = re.compile(rb"%s(?: %s)*\Z" % (_NUMBER, _NUMBER))
_CLASSES = re.compile(rb"num_class:([0-9]+)")

_OF_NODES: Final = ("threshold", "split_gain", "internal_value", "internal_weight", "internal_count")
_OF_LEAVES: Final = ("leaf_weight", "leaf_count", "leaf_const")
_REQUIRED: Final = ("num_leaves", "num_cat", "leaf_value")
_REQUIRED_OF_NODES: Final = ("split_feature", "threshold", "decision_type", "left_child", "right_child")

_CATEGORICAL: Final = 1
_DECISION_TYPE_MAX: Final = 15


class LightGbmTextError(ValueError):
    """A model's text is truncated or not well-formed; the message says where and how."""


def check_text(text: bytes) -> None:
    """Check that LightGBM can read and run a model. Raises LightGbmTextError."""
    if text.startswith(b"tree\r\n"):
        raise LightGbmTextError("its line ends were made CRLF on the way; publish it as LightGBM wrote it")
    if not text.startswith(b"tree\n"):
        raise LightGbmTextError("it is not LightGBM's text form, which begins with a line `tree`")
    if b"\0" in text:
        raise LightGbmTextError(f"byte {text.index(0)} is zero, which no text has")
    head, found, _ = text.partition(b"\n\nTree=")
    if not found:
        raise LightGbmTextError("it has no trees; the file may be truncated")
    header = _fields(head.partition(b"\n")[2], "the header")
    columns = _integer(header, "max_feature_idx", "the header") + 1
    sizes = _tree_sizes(header)
    at = len(head) + 2
    for index, size in enumerate(sizes):
        _check_tree(text[at : at + size], index, columns)
        at += size
    if not text.startswith(b"end of trees", at):
        raise LightGbmTextError(f"after {len(sizes)} trees, `end of trees` is missing; the file may be truncated")
    if b"\nparameters:" in text[at:] and b"\nend of parameters" not in text[at:]:
        raise LightGbmTextError("`end of parameters` is missing; the file may be truncated")


def _tree_sizes(header: dict[bytes, bytes]) -> list[int]:
    where = "the header"
    sizes = _integers(header, "tree_sizes", where)
    classes = _integer(header, "num_class", where)
    per_iteration = _integer(header, "num_tree_per_iteration", where)
    said = [int(number) for number in _CLASSES.findall(header.get(b"objective", b""))]
    if per_iteration != classes or said not in ([], [classes]):
        raise LightGbmTextError(
            f"{where} gives {classes} classes, {per_iteration} trees an iteration, objective {said}"
        )
    if classes < 1 or len(sizes) % classes or min(sizes) < 1 or len(sizes) > TREES_MAX:
        raise LightGbmTextError(f"{where} gives {len(sizes)} trees for {classes} classes; at most {TREES_MAX} are read")
    return sizes


def _check_tree(block: bytes, index: int, columns: int) -> None:
    where = f"tree {index}"
    first, _, rest = block.partition(b"\n")
    lines, _, after = rest.partition(b"\n\n")
    if first != b"Tree=%d" % index or after.strip():
        raise LightGbmTextError(f"{where} does not lie where `tree_sizes` says; the file may be truncated")
    tree = _fields(lines, where)
    if any(line.count(b"=") != 1 for line in lines.splitlines()):
        raise LightGbmTextError(f"a line of {where} is not of the form `name=value`")
    _require(tree, _REQUIRED, where)
    leaves = _integer(tree, "num_leaves", where)
    if leaves < 1:
        raise LightGbmTextError(f"{where} has {leaves} leaves")
    _check_numbers(tree, "leaf_value", leaves, where)
    _check_numbers(tree, "shrinkage", 1, where)
    if leaves > 1:
        for name in _OF_LEAVES:
            _check_numbers(tree, name, leaves, where)
        _require(tree, _REQUIRED_OF_NODES, where)
        for name in _OF_NODES:
            _check_numbers(tree, name, leaves - 1, where)
        _check_children(tree, leaves, where)
        _check_range(_integers(tree, "split_feature", where, leaves - 1), columns - 1, "split_feature", where)
        _check_categories(tree, leaves, where)
    if tree.get(b"is_linear", b"0") != b"0":
        _check_linear(tree, leaves, columns, where)


def _check_children(tree: dict[bytes, bytes], leaves: int, where: str) -> None:
    """Each node but the root and each leaf has one parent: whatever is reached from the root is then a finite tree."""
    children = _integers(tree, "left_child", where, leaves - 1) + _integers(tree, "right_child", where, leaves - 1)
    if sorted(children) != [*range(-leaves, 0), *range(1, leaves - 1)]:
        raise LightGbmTextError(f"the children in {where} do not form a tree of {leaves} leaves")


def _check_categories(tree: dict[bytes, bytes], leaves: int, where: str) -> None:
    kinds = _integers(tree, "decision_type", where, leaves - 1)
    _check_range(kinds, _DECISION_TYPE_MAX, "decision_type", where)
    count = _integer(tree, "num_cat", where)
    numbers = tree[b"threshold"].split(b" ")
    of_categories = [number for number, kind in zip(numbers, kinds, strict=True) if kind & _CATEGORICAL]
    if not all(number.isdigit() and int(number) < count for number in of_categories):
        raise LightGbmTextError(f"{where} splits by a set of categories that it does not have")
    if count:
        bounds = _integers(tree, "cat_boundaries", where, count + 1)
        words = _integers(tree, "cat_threshold", where)
        if bounds[0] != 0 or bounds != sorted(bounds) or bounds[-1] != len(words):
            raise LightGbmTextError(f"the cat_boundaries of {where} do not fit its cat_threshold")
        _check_range(words, (1 << 32) - 1, "cat_threshold", where)


def _check_linear(tree: dict[bytes, bytes], leaves: int, columns: int, where: str) -> None:
    _require(tree, ("leaf_const", "num_features", "leaf_features", "leaf_coeff"), where)
    counts = _integers(tree, "num_features", where, leaves)
    _check_range(counts, columns, "num_features", where)
    # These two are written with a space more after each leaf.
    given = {name: b" ".join(tree[name].split()) for name in (b"leaf_features", b"leaf_coeff")}
    if any(given.values()) or any(counts):
        _check_range(_integers(given, "leaf_features", where, sum(counts)), columns - 1, "leaf_features", where)
        _check_numbers(given, "leaf_coeff", sum(counts), where)


# Parts
# -----------------------------------------------------------------------------------------------------------------


def _fields(lines: bytes, where: str) -> dict[bytes, bytes]:
    fields = {}
    for line in lines.splitlines():
        name, _, value = line.partition(b"=")
        if name in fields:
            raise LightGbmTextError(f"{where} gives {_shown(name)} twice")
        fields[name] = value
    return fields


def _require(fields: dict[bytes, bytes], names: tuple[str, ...], where: str) -> None:
    for name in names:
        if name.encode() not in fields:
            raise LightGbmTextError(f"{where} has no {name}; the file may be truncated")


def _integer(fields: dict[bytes, bytes], name: str, where: str) -> int:
    return _integers(fields, name, where, 1)[0]


def _integers(fields: dict[bytes, bytes], name: str, where: str, count: int | None = None) -> list[int]:
    _require(fields, (name,), where)
    value = fields[name.encode()]
    if not _INTEGERS.match(value):
        raise LightGbmTextError(f"{name} of {where} is no list of integers: {_shown(value)}")
    numbers = [int(number) for number in value.split(b" ")]
    if count is not None and len(numbers) != count:
        raise LightGbmTextError(f"{name} of {where} has {len(numbers)} numbers instead of {count}")
    return numbers


def _check_numbers(fields: dict[bytes, bytes], name: str, count: int, where: str) -> None:
    value = fields.get(name.encode())
    if value is None:
        return
    if not _NUMBERS.match(value):
        raise LightGbmTextError(f"{name} of {where} is no list of numbers: {_shown(value)}")
    if value.count(b" ") + 1 != count:
        raise LightGbmTextError(f"{name} of {where} has {value.count(b' ') + 1} numbers instead of {count}")


def _check_range(numbers: list[int], most: int, name: str, where: str) -> None:
    if min(numbers) < 0 or max(numbers) > most:
        raise LightGbmTextError(f"{name} of {where} goes from {min(numbers)} to {max(numbers)} instead of 0 to {most}")


def _shown(value: bytes) -> str:
    return repr(value[:40].decode("utf-8", "replace"))
