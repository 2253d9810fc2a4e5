"""Identifiers that sort by time: UUID version 7 (RFC 9562, section 5.7)."""

from collections.abc import Callable
from random import Random

_VARIANT_10 = 0x8000


def uuid7_maker(now_us: Callable[[], int], random: Random) -> Callable[[], str]:
    """Make a function that returns a new UUIDv7 as text: 48 bits of milliseconds, then 74 random bits.

    random: seeded from the operating system, one a process. Collisions, not secrets, are what the bits are for, and one
    call of `getrandbits` costs a tenth of a system call.
    """
    draw = random.getrandbits
    made_at_ms, beginning = -1, ""

    def make() -> str:
        nonlocal made_at_ms, beginning
        now_ms = now_us() // 1000
        if now_ms != made_at_ms:  # at thousands a second, several share their first half
            made_at_ms, time = now_ms, f"{now_ms:012x}"
            beginning = f"{time[:8]}-{time[8:]}-7"
        bits = draw(74)
        return f"{beginning}{bits >> 62:03x}-{_VARIANT_10 | bits >> 48 & 0x3FFF:04x}-{bits & 0xFFFF_FFFF_FFFF:012x}"

    return make
