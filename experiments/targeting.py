"""`where`: a small, safe expression over a request's features and entities.

    age >= 18 and country in ['JP', 'DE']
    not (tier == 'free' or visits < 3)

Names, numbers, strings, true and false, lists of those, `== != < <= > >= in not in`, `and or not` and parentheses:
nothing else. It is read by Python's own grammar, checked node by node against that list, and compiled to closures;
there is no `eval`. A name that the request does not have, or a comparison of things that cannot be compared, makes the
condition false for that request.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

EXPRESSION_CHARACTERS_MAX: Final = 2_000
NODES_MAX: Final = 200

Condition = Callable[[Mapping[str, Any]], bool]

_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
_WORDS: Final = {"true": True, "false": False}


class TargetingError(ValueError):
    """A `where` expression says something that the language does not have."""


def compile_condition(expression: str) -> Condition:
    """Compile an expression. Raises TargetingError, which names the part that is not of the language."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise TargetingError(f"{len(expression)} characters; at most {EXPRESSION_CHARACTERS_MAX}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TargetingError(f"cannot be read: {getattr(error, 'msg', error)}") from error
    if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
        raise TargetingError(f"more than {NODES_MAX} parts")
    evaluate = _boolean(tree.body)

    def condition(attributes: Mapping[str, Any]) -> bool:
        try:
            return evaluate(attributes)
        except (KeyError, TypeError):
            return False

    return condition


def _boolean(node: ast.expr) -> Condition:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            parts = [_boolean(value) for value in values]
            return lambda attributes: all(part(attributes) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=values):
            parts = [_boolean(value) for value in values]
            return lambda attributes: any(part(attributes) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _boolean(operand)
            return lambda attributes: not inner(attributes)
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            operands = [_value(part) for part in (left, *comparators)]
            compares = [_COMPARISONS[type(op)] for op in operators if type(op) in _COMPARISONS]
            if len(compares) != len(operators):
                raise TargetingError("`is` is not of the language: use ==")

            def chain(attributes: Mapping[str, Any]) -> bool:
                values = [operand(attributes) for operand in operands]
                return all(compare(values[i], values[i + 1]) for i, compare in enumerate(compares))

            return chain
        case ast.Name() | ast.Constant(value=bool()):
            value = _value(node)
            return lambda attributes: value(attributes) is True
        case _:
            raise TargetingError(f"`{ast.unparse(node)[:80]}` is not a condition")


def _value(node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
    match node:
        case ast.Name(id=name) if name in _WORDS:
            constant = _WORDS[name]
            return lambda _: constant
        case ast.Name(id=name):
            return lambda attributes: attributes[name]
        case ast.Constant(value=bool() | int() | float() | str() as literal):
            return lambda _: literal
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda _: -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item) for item in items]
            return lambda attributes: [value(attributes) for value in values]
        case _:
            raise TargetingError(f"`{ast.unparse(node)[:80]}` is not a name, a number, a string or a list of them")
