"""`hash: growthbook-v2`: assignments of GrowthBook's SDKs with `hashVersion: 2`, bit for bit.

    bucket = FNV-1a-32(decimal text of FNV-1a-32(seed + unit)) modulo 10,000

over UTF-16 code units, as the JavaScript SDK reads a string. One draw decides both: a variation takes the share
`coverage` of its own weight's range, `[start, start + coverage * weight)`, where `start` is the sum of the weights
before it; units beyond it are not in the experiment. Seed: GrowthBook's `seed`, or the experiment's key; here, the
salt. Coverage: `enrol_bp`. Source: GrowthBook's "Build Your Own SDK" (hash, getBucketRanges, chooseVariation).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from experiments.buckets import BUCKETS, Draw

_OFFSET_BASIS: Final = 0x811C9DC5
_PRIME: Final = 0x01000193


def fnv1a_32(text: str, value: int = _OFFSET_BASIS) -> int:
    """Hash a text's UTF-16 code units, 16 bits at a step, as the JavaScript SDK does.

    A lone surrogate, which no UTF-8 request can hold, counts as itself.

    value: the hash of what precedes the text.
    """
    for code_unit in text.encode() if text.isascii() else _utf_16(text):
        value = ((value ^ code_unit) * _PRIME) & 0xFFFFFFFF
    return value


def draw(seed: str) -> Draw:
    """Make the draw under a seed."""
    seeded = fnv1a_32(seed)
    return lambda unit: fnv1a_32(str(fnv1a_32(unit, seeded))) % BUCKETS


def _utf_16(text: str) -> list[int]:
    data = text.encode("utf-16-le", "surrogatepass")
    return [low | high << 8 for low, high in zip(data[::2], data[1::2], strict=True)]


def covered_ranges(weights_bp: Sequence[int], coverage_bp: int) -> list[tuple[int, int]]:
    """Return the half-open ranges of buckets of each variation.

    GrowthBook compares fractions, so the borders are those of its floating-point sums: a bucket is inside where
    `start <= bucket / 10,000 < end`.
    """
    coverage = coverage_bp / BUCKETS
    starts = [0.0]
    for weight_bp in weights_bp:
        starts.append(starts[-1] + weight_bp / BUCKETS)
    return [
        (_first_at_least(start), _first_at_least(start + coverage * (weight_bp / BUCKETS)))
        for (start, _), weight_bp in zip(pairwise(starts), weights_bp, strict=True)
    ]


def _first_at_least(border: float) -> int:
    near = max(0, min(BUCKETS, round(border * BUCKETS)))
    return next(
        (b for b in range(max(0, near - 1), min(BUCKETS, near + 2)) if b / BUCKETS >= border), min(BUCKETS, near + 1)
    )
