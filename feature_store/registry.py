"""The registry of feature views in Redis: a hash per view, beside the rows, read by everyone who reads rows.

`sekisho:views` is the set of names. `sekisho:view:{view}` holds `entity`, `max_age_us`, `description`, `defaults` (JSON
by feature), `schema_id` (the current one), `schema:{id}` (JSON, one for every id ever given), `near_cache` (JSON; off
where it is absent) and `revision`.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence

import msgspec
from redis.asyncio import RedisCluster

from feature_store.dtypes import NATIVE_DATATYPE, Dtype
from feature_store.errors import CorruptRegistry, FeatureStoreUnavailable, RowTooLarge, WrongFeatureValue
from feature_store.feature_value import pack_value
from feature_store.feature_views import (
    FEATURES_PER_VIEW_MAX,
    LIST_LENGTH_MAX,
    MAX_AGE_S_MAX,
    NAME_PATTERN,
    NEAR_CACHE_AGE_S_MAX,
    FeatureView,
)
from feature_store.redis_client import RedisClient, told_as_unavailable
from feature_store.registered_view import NearCachePolicy, RegisteredView
from feature_store.row_keys import VIEWS_KEY, registry_key
from feature_store.row_layout import SCHEMA_ID_MAX, Column, RowLayout, place_columns
from feature_store.schema_evolution import Conflict, IncompatibleViews, ViewChange, plan_change

VIEWS_MAX = 10_000
"""Views that a registry may list; more is somebody else's set."""

REGISTRY_FIELD_BYTES_MAX = 8 * 1024 * 1024
"""Longest field of a view's hash: a thousand features with the longest defaults."""

APPLY_ATTEMPTS_MAX = 5
"""Times that `apply_views` starts over because someone else changed the registry meanwhile."""

# KEYS are hashes of views. ARGV has for each: the revision that was planned on (empty for none), how many arguments
# follow, then fields with their values. Answers the first view that is of another revision by now, having changed
# none; else 0, having changed all.
CHANGE_VIEWS = """
local at = 1
for i = 1, #KEYS do
  if (redis.call('HGET', KEYS[i], 'revision') or '') ~= ARGV[at] then
    return i
  end
  at = at + 2 + tonumber(ARGV[at + 1])
end
at = 1
for i = 1, #KEYS do
  local after = at + 2 + tonumber(ARGV[at + 1])
  redis.call('HSET', KEYS[i], unpack(ARGV, at + 2, after - 1))
  at = after
end
return 0
"""

_NAME = re.compile(NAME_PATTERN)
_SCHEMA_FIELD = re.compile(rb"schema:([1-9][0-9]{0,4})")


async def read_views(redis: RedisClient) -> dict[str, RegisteredView]:
    """Read every registered view by name, in two round trips. `redis` is what `open_redis` makes.

    Raises CorruptRegistry and FeatureStoreUnavailable.
    """
    with told_as_unavailable(redis):
        listed: set[bytes] = await redis.execute_command("SMEMBERS", VIEWS_KEY)
        if len(listed) > VIEWS_MAX:
            raise CorruptRegistry("*", VIEWS_KEY.decode(), f"lists {len(listed)} views; at most {VIEWS_MAX} are read")
        names = sorted(name.decode(errors="replace") for name in listed)
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command("HGETALL", registry_key(name))
        hashes = await pipeline.execute()
    return {name: parse_view(name, fields) for name, fields in zip(names, hashes, strict=True)}


async def apply_views(
    redis: RedisClient, views: Mapping[str, FeatureView], *, dry_run: bool = False
) -> list[ViewChange]:
    """Bring the registry to what is declared: all views or, where one is refused, none. Applying again changes nothing.

    Registered views that are not declared here stay as they are. On one server all views change at once; in a cluster
    each by itself, after all were found to be possible, and a run that is cut off is finished by the next.
    Raises IncompatibleViews, with every conflict, CorruptRegistry and FeatureStoreUnavailable.
    """
    if not views:
        return []
    applied: dict[str, ViewChange] = {}
    with told_as_unavailable(redis):
        for _attempt in range(APPLY_ATTEMPTS_MAX):
            changes = await _planned(redis, views)
            if dry_run:
                return changes
            if await _changed(redis, changes, views, applied):
                # Listed last, so that no reader finds a name without a view; and all: an earlier run may have been cut.
                await redis.execute_command("SADD", VIEWS_KEY, *views)
                return [applied.get(change.view, change) for change in changes]
    raise FeatureStoreUnavailable("the registry", f"changed under {APPLY_ATTEMPTS_MAX} attempts to apply")


async def _planned(redis: RedisClient, views: Mapping[str, FeatureView]) -> list[ViewChange]:
    pipeline = redis.pipeline(transaction=False)
    for name in views:
        pipeline.execute_command("HGETALL", registry_key(name))
    changes: list[ViewChange] = []
    conflicts: list[Conflict] = []
    for (name, declared), fields in zip(views.items(), await pipeline.execute(), strict=True):
        try:
            changes.append(plan_change(name, declared, parse_view(name, fields) if fields else None))
        except IncompatibleViews as error:
            conflicts += error.conflicts
    if conflicts:
        raise IncompatibleViews(tuple(conflicts))
    return changes


async def _changed(
    redis: RedisClient,
    changes: Sequence[ViewChange],
    views: Mapping[str, FeatureView],
    applied: MutableMapping[str, ViewChange],
) -> bool:
    """Write what changes, noting what was `applied`. False: someone else changed a view after it was looked at."""
    script = redis.register_script(CHANGE_VIEWS)
    changing = [change for change in changes if change.kind != "unchanged"]
    # In a cluster a script may only name keys of one slot.
    for together in [[change] for change in changing] if isinstance(redis, RedisCluster) else [changing]:
        arguments = [argument for change in together for argument in _arguments(change, views[change.view])]
        if together and await script(keys=[registry_key(change.view) for change in together], args=arguments):
            return False
        applied.update({change.view: change for change in together})
    return True


def _arguments(change: ViewChange, declared: FeatureView) -> list[str | int | bytes]:
    fields: dict[str, str | int | bytes] = {
        "entity": declared.entity,
        "max_age_us": declared.max_age_us,
        "description": declared.description,
        "defaults": msgspec.json.encode(change.defaults),
        "schema_id": change.schema_id,
        f"schema:{change.schema_id}": msgspec.json.encode(change.columns),
        "revision": change.revision,
        "near_cache": msgspec.json.encode(declared.near_cache_policy),
    }
    registered = change.revision - 1 if change.kind == "changed" else ""
    return [registered, 2 * len(fields), *(part for item in fields.items() for part in item)]


def parse_view(name: str, fields: Mapping[bytes, bytes]) -> RegisteredView:
    """Make a view of its hash. Raises CorruptRegistry."""
    if not _NAME.fullmatch(name):
        raise CorruptRegistry(name[:64], "name", f"is not a name ({NAME_PATTERN})")
    for field, value in fields.items():
        if len(value) > REGISTRY_FIELD_BYTES_MAX:
            raise CorruptRegistry(name, repr(field[:32]), f"{len(value)} bytes; at most {REGISTRY_FIELD_BYTES_MAX}")
    schemas = _schemas(name, fields)
    current = _integer(name, fields, "schema_id", SCHEMA_ID_MAX)
    if current not in schemas:
        raise CorruptRegistry(name, "schema_id", f"there is no schema {current}")
    return RegisteredView(
        name=name,
        entity=_text(name, fields, "entity"),
        max_age_us=_integer(name, fields, "max_age_us", MAX_AGE_S_MAX * 1_000_000),
        current_schema_id=current,
        schemas=schemas,
        defaults=_defaults(name, fields, schemas[current]),
        description=_text(name, fields, "description"),
        revision=_integer(name, fields, "revision", 2**53),
        near_cache=_near_cache(name, fields),
    )


def _schemas(view: str, fields: Mapping[bytes, bytes]) -> dict[int, RowLayout]:
    schemas = {}
    for field, value in fields.items():
        match = _SCHEMA_FIELD.fullmatch(field)
        if match is None or int(match[1]) > SCHEMA_ID_MAX:
            continue
        try:
            columns = msgspec.json.decode(value, type=list[Column])
            schemas[int(match[1])] = place_columns(view, int(match[1]), _checked(columns))
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RowTooLarge) as error:
            raise CorruptRegistry(view, field.decode(), str(error)) from error
    return schemas


def _checked(columns: list[Column]) -> list[Column]:
    if not 1 <= len({column.name for column in columns}) == len(columns) <= FEATURES_PER_VIEW_MAX:
        raise ValueError(f"{len(columns)} columns, or one that is there twice")
    for column in columns:
        length_is_wrong = column.length is not None and not 1 <= column.length <= LIST_LENGTH_MAX
        list_of_strings = column.dtype is Dtype.STRING and column.length is not None
        if not _NAME.fullmatch(column.name) or length_is_wrong or list_of_strings:
            raise ValueError(f"column {column.name[:64]!r} {column.type_name} is none that could be declared")
    return columns


def _defaults(view: str, fields: Mapping[bytes, bytes], layout: RowLayout) -> dict[str, object]:
    try:
        defaults: dict[str, object] = msgspec.json.decode(fields.get(b"defaults", b""), type=dict[str, object])
        columns = {column.name: column for column in layout.columns}
        for name, value in defaults.items():
            pack_value(name, value, NATIVE_DATATYPE[columns[name].dtype], columns[name].length)
    except KeyError as error:
        raise CorruptRegistry(view, "defaults", f"no feature {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, WrongFeatureValue) as error:
        raise CorruptRegistry(view, "defaults", str(error)) from error
    return defaults


def _near_cache(view: str, fields: Mapping[bytes, bytes]) -> NearCachePolicy:
    try:
        policy = msgspec.json.decode(fields.get(b"near_cache", b"{}"), type=NearCachePolicy)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptRegistry(view, "near_cache", str(error)) from error
    for age_us in (policy.max_age_us, policy.stale_if_unavailable_us):
        if not 0 <= age_us <= NEAR_CACHE_AGE_S_MAX * 1_000_000:
            raise CorruptRegistry(view, "near_cache", f"{age_us} µs is not from 0 to {NEAR_CACHE_AGE_S_MAX} s")
    return policy


def _integer(view: str, fields: Mapping[bytes, bytes], field: str, maximum: int) -> int:
    text = _text(view, fields, field)
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= maximum):
        raise CorruptRegistry(view, field, f"{text[:32]!r} is not a number from 1 to {maximum}")
    return int(text)


def _text(view: str, fields: Mapping[bytes, bytes], field: str) -> str:
    value = fields.get(field.encode())
    if value is None:
        raise CorruptRegistry(view, field, "is not there: was it written by `sekisho-features apply`?")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise CorruptRegistry(view, field, "is not UTF-8") from error
