"""`where`: a small, safe expression over a request's features and entities.

    age >= 18 and country in ['JP', 'DE']
    not (tier == 'free' or visits < 3)

Names, numbers, strings, true and false, lists of those, `== != < <= > >= in not in`, `and or not` and parentheses:
nothing else. It is read by Python's own grammar, checked node by node against that list, and compiled to closures;
there is no `eval`.

A comparison with a name that the request does not have, or of things that cannot be compared, is unknown; `and`, `or`
and `not` treat it as SQL does, so that neither their order nor a `not` turns it into a yes. A request for which the
whole is unknown is not targeted.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

EXPRESSION_CHARACTERS_MAX: Final = 2_000
NODES_MAX: Final = 200

Condition = Callable[[Mapping[str, Any]], bool]

_Truth = bool | None
_Evaluate = Callable[[Mapping[str, Any]], _Truth]
"""True, false, or None for unknown."""


def _is_member(item: Any, items: Any) -> bool:
    if not isinstance(items, list | tuple):
        raise TypeError("`in` looks into lists only: 'a' in 'abc' would be a search for text")
    return item in items


_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: _is_member,
    ast.NotIn: lambda item, items: not _is_member(item, items),
}
_WORDS: Final = {"true": True, "false": False}


class TargetingError(ValueError):
    """A `where` expression says something that the language does not have."""


def compile_condition(expression: str) -> Condition:
    """Compile an expression. Raises TargetingError, which names the part that is not of the language."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise TargetingError(f"{len(expression)} characters; at most {EXPRESSION_CHARACTERS_MAX}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "invalid escape sequence" and its kind: a fault of the expression
            tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TargetingError(f"cannot be read: {getattr(error, 'msg', error)}") from error
    if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
        raise TargetingError(f"more than {NODES_MAX} parts")
    evaluate = _truth(tree.body)
    return lambda attributes: evaluate(attributes) is True


def _truth(node: ast.expr) -> _Evaluate:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return _all_of([_truth(value) for value in values])
        case ast.BoolOp(op=ast.Or(), values=values):
            return _any_of([_truth(value) for value in values])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _not(_truth(operand))
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            return _chain(operators, [left, *comparators])
        case ast.Name(id=name) if name not in _WORDS:
            return lambda attributes: value if isinstance(value := attributes.get(name), bool) else None
        case ast.Name() | ast.Constant(value=bool()):
            constant = _value(node)
            return lambda attributes: bool(constant(attributes))
        case _:
            raise TargetingError(f"`{ast.unparse(node)[:80]}` is not a condition")


def _all_of(parts: Sequence[_Evaluate]) -> _Evaluate:
    def evaluate(attributes: Mapping[str, Any]) -> _Truth:
        unknown = False
        for part in parts:
            truth = part(attributes)
            if truth is False:
                return False
            unknown = unknown or truth is None
        return None if unknown else True

    return evaluate


def _any_of(parts: Sequence[_Evaluate]) -> _Evaluate:
    def evaluate(attributes: Mapping[str, Any]) -> _Truth:
        unknown = False
        for part in parts:
            truth = part(attributes)
            if truth is True:
                return True
            unknown = unknown or truth is None
        return None if unknown else False

    return evaluate


def _not(part: _Evaluate) -> _Evaluate:
    def evaluate(attributes: Mapping[str, Any]) -> _Truth:
        truth = part(attributes)
        return None if truth is None else not truth

    return evaluate


def _chain(operators: Sequence[ast.cmpop], operands: Sequence[ast.expr]) -> _Evaluate:
    links = [_link(op, operands[i], operands[i + 1]) for i, op in enumerate(operators)]
    return links[0] if len(links) == 1 else _all_of(links)  # as in Python, `a < b < c` is `a < b and b < c`


def _link(op: ast.cmpop, left: ast.expr, right: ast.expr) -> _Evaluate:
    compare = _COMPARISONS.get(type(op))
    if compare is None:
        raise TargetingError("`is` is not of the language: use ==")
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Constant):
        raise TargetingError(f"`{ast.unparse(right)[:80]}` is not a list: write in ['a', 'b']")
    left_value, right_value = _value(left), _value(right)

    def evaluate(attributes: Mapping[str, Any]) -> _Truth:
        try:
            return bool(compare(left_value(attributes), right_value(attributes)))
        except (KeyError, TypeError, RecursionError):  # the last for two hostile values, each nested a thousand deep
            return None

    return evaluate


def _value(node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
    match node:
        case ast.Name(id=name) if name in _WORDS:
            constant = _WORDS[name]
            return lambda _: constant
        case ast.Name(id=name):
            return lambda attributes: attributes[name]
        case ast.Constant(value=bool() | int() | float() | str() as literal):
            return lambda _: literal
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if not isinstance(
            number, bool
        ):
            return lambda _: -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item) for item in items]
            return lambda attributes: [value(attributes) for value in values]
        case _:
            raise TargetingError(f"`{ast.unparse(node)[:80]}` is not a name, a number, a string or a list of them")
