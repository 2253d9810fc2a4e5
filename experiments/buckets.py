"""`hash: v1`: where a unit lands, from 0 to 9,999.

    message = "sekisho/v1/" + purpose + "/" + key + "/" + unit          (UTF-8)
    bucket  = big-endian integer of the first 8 bytes of SHA-256(message), modulo 10,000

`purpose` is `enrol`, `split`, `layer`, `holdout` or `shadow`; `key` is the experiment's salt, or the name of the layer
or the holdout for those. Neither can hold a `/`, so no two (purpose, key, unit) share a message, whatever the unit
holds. Enrolment and split are two independent hashes: ramping enrolment up therefore moves nobody between arms. 64
bits modulo 10,000 favour no bucket by more than 10,000 / 2^64.

SHA-256 because every language and every warehouse has it, so that an assignment can be recomputed in SQL where the log
lies. Published vectors: `tests/golden/assignment_vectors.json`.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

BUCKETS: Final = 10_000

Draw = Callable[[str], int]
"""A unit's bucket."""


def bucket_prefix(purpose: str, key: str) -> bytes:
    """Return what precedes the unit in the message, for `bucket`."""
    return f"sekisho/v1/{purpose}/{key}/".encode()


def bucket(prefix: bytes, unit: bytes) -> int:
    """Return the bucket of a unit id's UTF-8 bytes."""
    return int.from_bytes(sha256(prefix + unit).digest()[:8], "big") % BUCKETS


def draw(purpose: str, key: str) -> Draw:
    """Make the draw of one purpose under one key."""
    prefix = bucket_prefix(purpose, key)
    return lambda unit: int.from_bytes(sha256(prefix + unit.encode()).digest()[:8], "big") % BUCKETS
