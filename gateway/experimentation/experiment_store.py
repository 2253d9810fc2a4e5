"""The experiments in Redis: one revisioned document, compared and swapped; its audit stream; counts; a lease.

All keys share a hash tag, so that a Redis Cluster has them on one node and one script may touch several.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions as redis_errors

from experiments.canary import ArmCounts
from feature_store import FeatureStoreUnavailable, RedisClient, told_as_unavailable

REGISTER: Final = "sekisho:{experiments}"
AUDIT: Final = "sekisho:{experiments}:audit"
NEWS: Final = "sekisho:{experiments}:news"
"""The channel on which a new revision is told."""

ACKNOWLEDGED: Final = "sekisho:{experiments}:acknowledged"
LEASE: Final = "sekisho:{experiments}:lease"
COUNTS: Final = "sekisho:{{experiments}}:counts:{name}:{epoch}"
RESULTS: Final = "sekisho:{{experiments}}:results:{name}"

AUDIT_ENTRIES_MAX: Final = 100_000
"""About so many are kept. A change writes one."""

TIMEOUT_S: Final = 1.5
"""For one step; a caller who waits, waits for several at most. Less than a supervisor waits for a process's answer to
a question (`gateway/process_client.py`), so that it hears what is wrong."""

LEASE_MS: Final = 3_000
COUNTS_KEPT_S: Final = 90 * 86_400
RESULTS_BYTES_MAX: Final = 1024 * 1024

_SWAP: Final = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[6] then return 1 end
local now = redis.call('HGET', KEYS[1], 'revision') or '0'
if now ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'register', ARGV[3], 'token', ARGV[6])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'entry', ARGV[4])
redis.call('PUBLISH', KEYS[3], ARGV[2])
for i = 4, #KEYS do redis.call('DEL', KEYS[i]) end
return 1
"""

_TAKE_LEASE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_GIVE_LEASE_BACK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class StoreUnavailable(Exception):
    """Redis did not answer, or refused; the message says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The register as it lies in Redis. revision 0, no data: there is none."""

    revision: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change as it was written: the stream's id, and what was said of it."""

    id: str
    content: dict[str, Any]


class ExperimentStore:
    """Reads and writes. Every method raises StoreUnavailable, after TIMEOUT_S at the latest."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    # The register --------------------------------------------------------------------------------------------------

    async def read(self, known_revision: int | None = None) -> Stored:
        """Read the register. Where it still has the known revision, without its data."""
        async with self._told():
            if known_revision is not None:
                revision = await self._redis.execute_command("HGET", REGISTER, "revision")
                if revision is not None and int(revision) == known_revision:
                    return Stored(known_revision, None)
            revision, data = await self._redis.execute_command("HMGET", REGISTER, "revision", "register")
            return Stored(int(revision or 0), data)

    async def swap(
        self, expected: int, revision: int, data: bytes, entry: Mapping[str, Any], forgotten: Sequence[str] = ()
    ) -> bool:
        """Store a register if Redis still has the expected revision, with its entry in the audit stream.

        forgotten: keys that are deleted with it. Returns whether it had: False changes nothing. A script that is sent
        again, because its answer was lost, is known by its token, and does not conflict with itself.
        """
        token, keys = secrets.token_hex(8), (REGISTER, AUDIT, NEWS, *forgotten)
        told = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        async with self._told():
            done = await self._redis.execute_command(
                "EVAL", _SWAP, len(keys), *keys, expected, revision, data, told, AUDIT_ENTRIES_MAX, token
            )
        return bool(done)

    async def news(self, timeout_s: float) -> AsyncGenerator[bool, None]:
        """Yield at each news of a revision (True), and whenever none came for a while (False).

        Raises StoreUnavailable where the channel breaks.
        """
        with _told_as_store_unavailable(), told_as_unavailable(self._redis):
            async with self._redis.pubsub() as channel:
                await channel.subscribe(NEWS)
                while True:
                    message = await channel.get_message(ignore_subscribe_messages=True, timeout=timeout_s)
                    yield message is not None

    async def audit(self, count: int, before: str | None = None) -> list[AuditEntry]:
        """Read entries, the newest first. before: an entry's id, whose elder ones are wanted."""
        async with self._told():
            newest = "+" if before is None else f"({before}"
            found = await self._redis.execute_command("XREVRANGE", AUDIT, newest, "-", "COUNT", count)
            return [AuditEntry(_text(entry_id), _said(_field(fields, b"entry"))) for entry_id, fields in found or []]

    # Who has which revision ----------------------------------------------------------------------------------------

    async def acknowledge(self, instance: str, revision: int, now_us: int) -> None:
        """Say which revision an instance serves by."""
        told = json.dumps({"revision": revision, "at_us": now_us})
        async with self._told():
            await self._redis.execute_command("HSET", ACKNOWLEDGED, instance, told)

    async def forget(self, *instances: str) -> None:
        """Strike instances that are gone."""
        async with self._told():
            await self._redis.execute_command("HDEL", ACKNOWLEDGED, *instances)

    async def acknowledged(self) -> dict[str, tuple[int, int]]:
        """Return revision and time (UTC microseconds) by instance."""
        async with self._told():
            found = _pairs(await self._redis.execute_command("HGETALL", ACKNOWLEDGED))
            told = {_text(instance): _said(value) for instance, value in found}
            return {instance: (int(said["revision"]), int(said["at_us"])) for instance, said in told.items()}

    # The controller's lease ----------------------------------------------------------------------------------------

    async def take_lease(self, instance: str) -> bool:
        """Take the lease for LEASE_MS, or keep it. Returns whether it is this instance's."""
        async with self._told():
            return bool(await self._redis.execute_command("EVAL", _TAKE_LEASE, 1, LEASE, instance, LEASE_MS))

    async def give_lease_back(self, instance: str) -> None:
        """Let another one have it at once."""
        async with self._told():
            await self._redis.execute_command("EVAL", _GIVE_LEASE_BACK, 1, LEASE, instance)

    # Counts of arms ------------------------------------------------------------------------------------------------

    async def add_counts(self, name: str, epoch: int, counts: Mapping[int, Mapping[str, ArmCounts]]) -> None:
        """Add to the counts of an epoch."""
        key = COUNTS.format(name=name, epoch=epoch)
        pipeline = self._redis.pipeline(transaction=False)
        for enrol_bp, arms in counts.items():
            for arm, own in arms.items():
                for field, count in _fields_of(own):
                    pipeline.execute_command("HINCRBY", key, f"{enrol_bp}|{arm}|{field}", count)
        pipeline.execute_command("EXPIRE", key, COUNTS_KEPT_S)
        async with self._told():
            await pipeline.execute()

    async def counts(self, name: str, epoch: int) -> dict[int, dict[str, ArmCounts]]:
        """Read the counts of an epoch, by enrolment and arm."""
        async with self._told():
            found = _pairs(await self._redis.execute_command("HGETALL", COUNTS.format(name=name, epoch=epoch)))
            counts: dict[int, dict[str, ArmCounts]] = {}
            for field, count in found:
                enrol_bp, arm, kind, *index = _text(field).split("|")
                own = counts.setdefault(int(enrol_bp), {}).setdefault(arm, ArmCounts())
                if index:
                    getattr(own, kind)[int(index[0])] = int(count)
                else:
                    setattr(own, kind, int(count))
            return counts

    # Published results ---------------------------------------------------------------------------------------------

    async def publish_results(self, name: str, data: bytes) -> None:
        """Keep an experiment's results."""
        async with self._told():
            await self._redis.execute_command("SET", RESULTS.format(name=name), data)

    async def results(self, name: str) -> bytes | None:
        """Return what was published last."""
        async with self._told():
            found: bytes | None = await self._redis.execute_command("GET", RESULTS.format(name=name))
        return found

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        with _told_as_store_unavailable():
            # The time around the client's errors: a TimeoutError is an OSError, and would be told as one of those.
            async with asyncio.timeout(TIMEOUT_S):
                with told_as_unavailable(self._redis):
                    yield


def keys_of(name: str, epoch: int) -> list[str]:
    """Name what lies in Redis of an experiment beside the register, up to an epoch."""
    return [RESULTS.format(name=name), *(COUNTS.format(name=name, epoch=past) for past in range(1, epoch + 1))]


@contextmanager
def _told_as_store_unavailable() -> Iterator[None]:
    try:
        yield
    except FeatureStoreUnavailable as error:
        raise StoreUnavailable(str(error)) from error
    except TimeoutError as error:
        raise StoreUnavailable(f"no answer within {TIMEOUT_S:g} s") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        redis_errors.DataError,
    ) as error:
        raise StoreUnavailable(f"what lies in Redis cannot be read: {error}") from error


def _fields_of(counts: ArmCounts) -> Iterator[tuple[str, int]]:
    for field in ("requests", "errors", "fallbacks"):
        if getattr(counts, field):
            yield field, getattr(counts, field)
    for field in ("latency", "scores"):
        for index, count in getattr(counts, field).items():
            yield f"{field}|{index}", count


def _pairs(reply: Any) -> list[tuple[Any, Any]]:
    # redis-py gives a mapping, or the bare list, by the protocol's version and the kind of client.
    if isinstance(reply, Mapping):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _said(value: Any) -> dict[str, Any]:
    said = json.loads(value)
    if not isinstance(said, dict):
        raise TypeError(f"a JSON object is expected, not {type(said).__name__}")
    return said


def _field(fields: Any, name: bytes) -> Any:
    return dict(_pairs(fields))[name]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
