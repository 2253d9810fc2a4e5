"""Reads single values of a document. Each raises ExperimentError, which names the key at fault."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from experiments.buckets import BUCKETS
from experiments.errors import ExperimentError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
SALT: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
PLAIN_CHARACTERS_MAX: Final = 256
SHOWN_CHARACTERS_MAX: Final = 100
"""How much of a wrong value an error repeats."""

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of buckets."""


def shown(value: Any) -> str:
    """Return a wrong value as an error repeats it."""
    try:
        return repr(value)[:SHOWN_CHARACTERS_MAX]
    except ValueError:  # somewhere in it a number of thousands of digits, which YAML writes as 0xff…
        return f"<{type(value).__name__} too large to be shown>"


def text(value: Any, key: str, pattern: re.Pattern[str] = NAME) -> str:
    """Read a name, or a salt."""
    if value is None:
        raise ExperimentError(key, "is required")
    if not isinstance(value, str) or not pattern.match(value):
        raise ExperimentError(
            key, f"{shown(value)} is not a name: a string of letters, digits, `_`, `-` (and `.`) is expected"
        )
    return value


def plain(value: Any, key: str) -> str:
    """Read a short text of another make: anything that can be printed."""
    if not isinstance(value, str) or not 1 <= len(value) <= PLAIN_CHARACTERS_MAX or not value.isprintable():
        raise ExperimentError(key, f"{shown(value)}: 1 to {PLAIN_CHARACTERS_MAX} printable characters are expected")
    return value


def version(value: Any, key: str) -> str:
    """Read a version's name. YAML reads an unquoted 2 as a number: it is the version "2"."""
    return text(decimal(value), key)


def decimal(value: Any) -> Any:
    """Return a whole number's decimal text, and all else as it is: so too a number of thousands of digits."""
    try:
        return str(value) if is_whole(value) else value
    except ValueError:
        return value


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_utf8(value: str) -> bool:
    """Whether a text can be written down: JSON and YAML can name half a character, which UTF-8 has not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole(value: Any, key: str, least: int, most: int, unit: str) -> int:
    """Read a whole number from `least` to `most`."""
    if not is_whole(value) or not least <= value <= most:
        raise ExperimentError(key, f"{shown(value)}: a whole number of {unit} from {least} to {most} is expected")
    return int(value)


def basis_points(value: Any, key: str) -> int:
    """Read a share, in parts of 10,000."""
    return whole(value, key, 0, BUCKETS, "basis points")


def number(value: Any, key: str, least: float, most: float) -> float:
    """Read a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ExperimentError(key, f"{shown(value)}: a number from {least:g} to {most:g} is expected")
    return float(value)


def mapping(value: Any, key: str, allowed: Sequence[str]) -> Mapping[str, Any]:
    """Read a mapping that has no other keys than these."""
    if not isinstance(value, Mapping):
        raise ExperimentError(key, f"a mapping with {', '.join(allowed)} is expected")
    unknown = next((k for k in value if k not in allowed), None)
    if unknown is not None:
        raise ExperimentError(
            f"{key}.{str(unknown)[:SHOWN_CHARACTERS_MAX]}", f"no such key; there are: {', '.join(allowed)}"
        )
    return value


def ranges(value: Any, key: str, count_max: int) -> Ranges:
    """Read half-open ranges of buckets that do not overlap."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= count_max:
        raise ExperimentError(key, f"a list of 1 to {count_max} ranges is expected")
    read: list[tuple[int, int]] = []
    taken = bytearray(BUCKETS)
    for index, pair in enumerate(value):
        at = f"{key}[{index}]"
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(is_whole, pair))
        if not is_pair or not 0 <= pair[0] < pair[1] <= BUCKETS:
            raise ExperimentError(at, f"{shown(pair)}: [first, end) within 0 and {BUCKETS} is expected")
        first, end = pair
        if any(taken[first:end]):
            raise ExperimentError(at, f"{pair!r} overlaps another range of this experiment")
        taken[first:end] = b"\1" * (end - first)
        read.append((first, end))
    return tuple(read)


def joined(read: Ranges) -> Ranges:
    """Return the same buckets as the fewest ranges, in order."""
    found: list[tuple[int, int]] = []
    for first, end in sorted(read):
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], end)
        else:
            found.append((first, end))
    return tuple(found)
