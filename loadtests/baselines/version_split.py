"""A 90/10 split by a hash of the user: the same user always gets the same version."""

import hashlib

TREATMENT_BP = 1_000


def version_of(unit: str) -> str:
    """Version "2" for a tenth of all units, else "1"."""
    digest = hashlib.blake2b(unit.encode(), digest_size=8, person=b"bench-split").digest()
    return "2" if int.from_bytes(digest) % 10_000 < TREATMENT_BP else "1"
