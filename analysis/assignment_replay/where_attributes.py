"""What the log tells of the attributes that a revision's `where` read, and where it cannot tell for sure.

The gateway evaluates `where` over the request as it was sent: its entities and features that have one value throughout.
The log has the entities' ids as text, and of the features those that a version was fed, as it was fed them. So an
attribute may have been another value than the logged one: a number that was rounded to 16 or 32 bits, or an id that was
sent as a number. A row of tensors has no attributes but those that the caller sent beside them, which no log has.
"""

import ast
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

import pyarrow as pa

from contracts.prediction_record import ENTITY_PREFIX, FEATURE_PREFIX

REQUEST_PREFIX: Final = FEATURE_PREFIX + "request."

_WORDS: Final = frozenset({"true", "false"})
_CODE_BY_TYPE: Final = {pa.float16(): "e", pa.float32(): "f"}


class AttributeColumn(NamedTuple):
    """Where one attribute is logged. rounded_to: the `struct` code of what a number was rounded to; empty if exact."""

    name: str
    column: str
    rounded_to: str

    @property
    def is_entity(self) -> bool:
        """Whether it is an entity's id."""
        return self.column.startswith(ENTITY_PREFIX)


class LoggedAttributes(NamedTuple):
    """One request's attributes. of_several: it had more than one instance. of_tensors: it may have sent no features."""

    values: Mapping[str, Any]
    of_several: bool
    of_tensors: bool


@dataclass(frozen=True, slots=True)
class WhereAttributes:
    """What a `where` expression reads: names, and the numbers that it compares with."""

    names: tuple[str, ...]
    numbers: tuple[float, ...]

    def columns(self, schema: pa.Schema) -> tuple[AttributeColumn, ...] | None:
        """Find where its names are logged; None where one is not."""
        found = [_column(name, schema) for name in self.names]
        return None if None in found else tuple(column for column in found if column is not None)

    def may_differ(self, columns: tuple[AttributeColumn, ...], logged: LoggedAttributes) -> bool:
        """Whether the request may have said something for which the expression is otherwise than for what is logged."""
        return logged.of_tensors or any(self._is_uncertain(column, logged) for column in columns)

    def _is_uncertain(self, column: AttributeColumn, logged: LoggedAttributes) -> bool:
        value = logged.values.get(column.name)
        if column.is_entity:
            # Of several instances, one may have sent the number and another its digits: then they had no one value.
            return _is_number(value)
        if not column.rounded_to:
            return False
        if logged.of_several:  # values that differed may have been rounded to one
            return True
        others = (v for name, v in logged.values.items() if name != column.name and isinstance(v, int | float))
        # Rounding keeps the order: only a number that is rounded to the same may have been on the other side.
        return any(_rounded(number, column.rounded_to) == value for number in chain(self.numbers, others))


def where_attributes(expression: str) -> WhereAttributes:
    """Read what a valid expression mentions."""
    tree = ast.parse(expression.strip(), mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - _WORDS
    return WhereAttributes(tuple(sorted(names)), tuple(_numbers(tree)))


def _column(name: str, schema: pa.Schema) -> AttributeColumn | None:
    # A feature goes before an entity of its name, as it does in a request.
    for column in (REQUEST_PREFIX + name, ENTITY_PREFIX + name):
        if column in schema.names:
            return AttributeColumn(name, column, _CODE_BY_TYPE.get(schema.field(column).type, ""))
    return None


def _numbers(tree: ast.AST) -> Iterator[float]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            yield node.value
            yield -node.value  # it may stand behind a minus


def _rounded(number: float, code: str) -> float | None:
    try:
        rounded: float = struct.unpack("<" + code, struct.pack("<" + code, number))[0]
    except OverflowError:
        return None
    return rounded


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and text.removeprefix("-").isdecimal()
