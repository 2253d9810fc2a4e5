"""`hash: eppo`: assignments of Eppo's SDKs, bit for bit.

    shard = first 8 hexadecimal digits of MD5(salt + "-" + unit), modulo total shards      (UTF-8)

A unit has a variation where its shard under the traffic salt lies in the traffic range, and its shard under the split
salt in the variation's. Total shards: 10,000. Eppo shows both salts in its configuration: `salts: {enrol, split}` takes
them as they are; without it they are `traffic-SALT` and `split-SALT`. Source: Eppo's SDK test data and `MD5Sharder`.
"""

from hashlib import md5

from experiments.buckets import BUCKETS, Draw


def shard(salt: str, unit: str, total_shards: int = BUCKETS) -> int:
    """Return a unit's shard."""
    digest = md5(f"{salt}-{unit}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big") % total_shards


def draw(salt: str) -> Draw:
    """Make the draw under a salt."""
    return lambda unit: shard(salt, unit)
