"""The arms of an experiment: which version each serves, and which buckets of the split are its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from experiments import fields
from experiments.buckets import BUCKETS
from experiments.errors import ExperimentError
from experiments.fields import Ranges

VARIANTS_MAX: Final = 100
RANGES_MAX: Final = BUCKETS // 2
"""Of one arm. Each change of weights may cut some in two, but no arm has more than these that do not touch."""

CONTROL: Final = "control"
NOBODY: Final = 255
"""In a table of arms: a bucket that no arm has."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm: the model version that it serves, its share of the enrolled and its buckets of the split."""

    name: str
    version: str
    bp: int
    ranges: Ranges


def parse_variants(listed: Any) -> tuple[Variant, ...]:
    """Read the arms. Raises ExperimentError: where names repeat, shares do not add up, or ranges overlap."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= VARIANTS_MAX:
        raise ExperimentError("variants", f"a list of 1 to {VARIANTS_MAX} variants is expected")
    given = [_parse(entry, f"variants[{index}]") for index, entry in enumerate(listed)]
    names = [name for name, _, _, _ in given]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ExperimentError(f"variants[{index}].name", f"{name!r} is used twice")
    total = sum(bp for _, _, bp, _ in given)
    if total != BUCKETS:
        raise ExperimentError("variants", f"bp add up to {total}, not to {BUCKETS}")
    if any(ranges is not None for _, _, _, ranges in given):
        _check_ranges(given)
        return tuple(Variant(name, version, bp, ranges or ()) for name, version, bp, ranges in given)
    in_turn = ranges_in_turn([bp for _, _, bp, _ in given])
    return tuple(
        Variant(name, version, bp, ranges) for (name, version, bp, _), ranges in zip(given, in_turn, strict=True)
    )


def ranges_in_turn(shares_bp: Sequence[int]) -> list[Ranges]:
    """Give each arm the next buckets, from 0 up. An arm without a share has none."""
    found: list[Ranges] = []
    first = 0
    for bp in shares_bp:
        found.append(((first, first + bp),) if bp else ())
        first += bp
    return found


def arm_table(ranges_by_arm: Sequence[Ranges]) -> bytes:
    """Lay the arms out by bucket: 10,000 bytes, each an arm's index, or NOBODY."""
    table = bytearray([NOBODY]) * BUCKETS
    for index, ranges in enumerate(ranges_by_arm):
        for first, end in ranges:
            table[first:end] = bytes([index]) * (end - first)
    return bytes(table)


def control_of(variants: Sequence[Variant]) -> Variant:
    """Return the arm that others are compared with: the one that is named control, else the first."""
    return next((variant for variant in variants if variant.name == CONTROL), variants[0])


_Given = tuple[str, str, int, Ranges | None]


def _parse(entry: Any, at: str) -> _Given:
    if not isinstance(entry, Mapping) or not {"name", "version", "bp"} <= set(entry) <= {
        "name",
        "version",
        "bp",
        "ranges",
    }:
        raise ExperimentError(at, "exactly name, version and bp are expected (and, if need be, ranges)")
    name = fields.text(entry["name"], f"{at}.name")
    version = fields.version(entry["version"], f"{at}.version")
    bp = fields.basis_points(entry["bp"], f"{at}.bp")
    if entry.get("ranges") is None:
        return name, version, bp, None
    if entry["ranges"] == [] and bp == 0:
        return name, version, bp, ()
    ranges = fields.ranges(entry["ranges"], f"{at}.ranges", RANGES_MAX)
    if sum(end - first for first, end in ranges) != bp:
        raise ExperimentError(
            f"{at}.ranges", f"they hold {sum(e - f for f, e in ranges)} buckets, and bp is {bp}: leave them out"
        )
    return name, version, bp, ranges


def _check_ranges(given: Sequence[_Given]) -> None:
    taken = bytearray(BUCKETS)
    for index, (_, _, bp, ranges) in enumerate(given):
        if ranges is None and bp:
            raise ExperimentError(f"variants[{index}].ranges", "either all variants have ranges, or none has")
        for first, end in ranges or ():
            if any(taken[first:end]):
                raise ExperimentError(f"variants[{index}].ranges", f"[{first}, {end}) overlaps another variant's")
            taken[first:end] = b"\1" * (end - first)
