"""`hash: v1`: where a unit lands, from 0 to 9,999.

    message = "sekisho/v1/" + purpose + "/" + key + "/" + unit          (UTF-8)
    bucket  = big-endian integer of the first 8 bytes of SHA-256(message), modulo 10,000

`purpose` is `enrol`, `split` or `layer`; `key` is the experiment's salt, or the layer's name for `layer`. Neither can
hold a `/`, so no two (purpose, key, unit) share a message, whatever the unit holds. Enrolment and split are two
independent hashes: ramping enrolment up therefore moves nobody between arms. 64 bits modulo 10,000 favour no bucket by
more than 10,000 / 2^64.

SHA-256 because every language and every warehouse has it, so that an assignment can be recomputed in SQL where the log
lies. Published vectors: `tests/golden/assignment_vectors.json`.
"""

from hashlib import sha256
from typing import Final

BUCKETS: Final = 10_000


def bucket_prefix(purpose: str, key: str) -> bytes:
    """Return what precedes the unit in the message, for `bucket`."""
    return f"sekisho/v1/{purpose}/{key}/".encode()


def bucket(prefix: bytes, unit: bytes) -> int:
    """Return the bucket of a unit id's UTF-8 bytes."""
    return int.from_bytes(sha256(prefix + unit).digest()[:8], "big") % BUCKETS
