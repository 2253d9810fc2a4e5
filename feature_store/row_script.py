"""The one way in which rows are written: a script inside Redis that never replaces a newer row by an older one."""

import hashlib
from collections.abc import Iterator, Sequence

from redis.asyncio import RedisCluster
from redis.crc import key_slot
from redis.exceptions import NoScriptError

from feature_store.redis_client import RedisClient

ROWS_PER_SCRIPT = 250
"""Rows of one EVALSHA: Redis serves nobody else while it runs, which is about half a millisecond."""

# KEYS are row keys; ARGV[1] is the expiry in seconds, then one packed row per key. Answers how many were not written
# because the stored row has a later event time. An equal one is overwritten, so that a corrected load can be repeated.
# A value that does not begin as a row is no row, and is overwritten. Rows go one after another, so that an entity that
# is twice among them ends with its latest.
WRITE_ROWS = """
local kept = 0
for i = 1, #KEYS do
  local row = ARGV[i + 1]
  local stored = redis.call('GETRANGE', KEYS[i], 0, 15)
  if #stored == 16 and string.sub(stored, 1, 2) == string.sub(row, 1, 2)
     and struct.unpack('<i8', stored, 9) > struct.unpack('<i8', row, 9) then
    kept = kept + 1
  else
    redis.call('SET', KEYS[i], row, 'EX', ARGV[1])
  end
end
return kept
"""
_SHA = hashlib.sha1(WRITE_ROWS.encode(), usedforsecurity=False).hexdigest()


async def write_rows(redis: RedisClient, keys: Sequence[bytes], rows: Sequence[bytes], expiry_s: int) -> int:
    """Write rows in one round trip; answer how many were not written because a newer one is stored.

    In a cluster a script may only name keys of one slot, so that most rows have one of their own.
    """
    try:
        return await _written(redis, keys, rows, expiry_s)
    except NoScriptError:  # a server that is new, or has taken over
        await redis.script_load(WRITE_ROWS)
        return await _written(redis, keys, rows, expiry_s)


async def _written(redis: RedisClient, keys: Sequence[bytes], rows: Sequence[bytes], expiry_s: int) -> int:
    pipeline = redis.pipeline(transaction=False)
    for group in _groups(keys, by_slot=isinstance(redis, RedisCluster)):
        group_keys, group_rows = [keys[i] for i in group], [rows[i] for i in group]
        pipeline.execute_command("EVALSHA", _SHA, len(group), *group_keys, expiry_s, *group_rows)
    kept: list[int] = await pipeline.execute()
    return sum(kept)


def _groups(keys: Sequence[bytes], *, by_slot: bool) -> Iterator[Sequence[int]]:
    places: dict[int, list[int]] = {}
    if by_slot:
        for place, key in enumerate(keys):
            places.setdefault(key_slot(key), []).append(place)
    for together in places.values() if by_slot else [range(len(keys))]:
        for start in range(0, len(together), ROWS_PER_SCRIPT):
            yield together[start : start + ROWS_PER_SCRIPT]
