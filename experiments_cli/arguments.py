"""Reads what is given on the command line; each reader raises ArgumentTypeError with what to give."""

import argparse
import json
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from experiments.fields import NAME

UNIT_CHARACTERS_MAX: Final = 256
ATTRIBUTES_CHARACTERS_MAX: Final = 8_192
_BP_IN_A_PERCENT: Final = 100
_BP_IN_ALL: Final = 10_000


def share_bp(text: str) -> int:
    """Read a share, `5%` or `500bp`, as basis points. A bare number could be meant as either, and is refused."""
    for ending, factor in (("%", _BP_IN_A_PERCENT), ("bp", 1)):
        if text.endswith(ending):
            bp = _number(text[: -len(ending)].strip()) * factor
            if bp == bp.to_integral_value() and 0 <= bp <= _BP_IN_ALL:
                return int(bp)
    problem = f"{text!r}: give a share from 0% to 100% as 5% or 500bp, of whole basis points (0.01%)"
    raise argparse.ArgumentTypeError(problem)


def name(text: str) -> str:
    """Read the name of an experiment, a model or an arm."""
    if not NAME.match(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: letters, digits, `_`, `-` and `.`")
    return text


def unit(text: str) -> str:
    """Read the id of a unit."""
    if not 1 <= len(text) <= UNIT_CHARACTERS_MAX:
        raise argparse.ArgumentTypeError(f"a unit has 1 to {UNIT_CHARACTERS_MAX} characters")
    return text


def attributes(text: str) -> dict[str, Any]:
    """Read a JSON object of entities and features."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or len(text) > ATTRIBUTES_CHARACTERS_MAX:
        problem = f"""give a JSON object of at most {ATTRIBUTES_CHARACTERS_MAX} characters, as in '{{"age": 34}}'"""
        raise argparse.ArgumentTypeError(problem)
    return found


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return Decimal(-1)
    return number if number.is_finite() and abs(number) <= _BP_IN_ALL else Decimal(-1)


def _refuse_constant(word: str) -> None:
    raise ValueError(word)
