"""Identifiers that sort by time: UUID version 7 (RFC 9562, section 5.7)."""

from collections.abc import Callable
from random import Random

_VERSION_7 = 0x7 << 76
_VARIANT_10 = 0x2 << 62


def uuid7_maker(now_us: Callable[[], int], random: Random) -> Callable[[], str]:
    """Make a function that returns a new UUIDv7 as text: 48 bits of milliseconds, then 74 random bits.

    random: seeded from the operating system, one a process. Collisions, not secrets, are what the bits are for, and one
    call of `getrandbits` costs a tenth of a system call.
    """
    draw = random.getrandbits

    def make() -> str:
        bits = draw(74)
        number = (now_us() // 1000) << 80 | _VERSION_7 | (bits >> 62) << 64 | _VARIANT_10 | bits & 0x3FFF_FFFF_FFFF_FFFF
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    return make
