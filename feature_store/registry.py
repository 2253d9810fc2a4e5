"""The registry of feature views in Redis: a hash per view, beside the rows, read by everyone who reads rows.

`sekisho:views` is the set of names. `sekisho:view:{view}` holds `entity`, `max_age_us`, `description`, `defaults` (JSON
by feature), `schema_id` (the current one), `schema:{id}` (JSON, one for every id ever given) and `revision`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from feature_store.dtypes import NATIVE_DATATYPE, Dtype
from feature_store.errors import CorruptRegistry, FeatureStoreUnavailable, RowTooLarge, WrongFeatureValue
from feature_store.feature_value import pack_value
from feature_store.feature_views import FEATURES_PER_VIEW_MAX, LIST_LENGTH_MAX, MAX_AGE_S_MAX, NAME_PATTERN, FeatureView
from feature_store.redis_client import told_as_unavailable
from feature_store.registered_view import RegisteredView
from feature_store.row_keys import VIEWS_KEY, registry_key
from feature_store.row_layout import SCHEMA_ID_MAX, Column, RowLayout, place_columns
from feature_store.schema_evolution import Conflict, IncompatibleViews, ViewChange, plan_change

VIEWS_MAX = 10_000
"""Views that a registry may list; more is somebody else's set."""

REGISTRY_FIELD_BYTES_MAX = 8 * 1024 * 1024
"""Longest field of a view's hash: a thousand features with the longest defaults."""

APPLY_ATTEMPTS_MAX = 5
"""Times that `apply_views` starts over because someone else changed the registry meanwhile."""

_NAME = re.compile(NAME_PATTERN)
_SCHEMA_FIELD = re.compile(rb"schema:([1-9][0-9]{0,4})")


async def read_views(redis: Redis) -> dict[str, RegisteredView]:
    """Read every registered view by name, in two round trips. `redis` is a client without `decode_responses`.

    Raises CorruptRegistry and FeatureStoreUnavailable.
    """
    with told_as_unavailable(redis):
        listed: set[bytes] = await redis.execute_command("SMEMBERS", VIEWS_KEY)  # type: ignore[no-untyped-call]
        if len(listed) > VIEWS_MAX:
            raise CorruptRegistry("*", VIEWS_KEY.decode(), f"lists {len(listed)} views; at most {VIEWS_MAX} are read")
        names = sorted(name.decode(errors="replace") for name in listed)
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command("HGETALL", registry_key(name))
        hashes = await pipeline.execute()
    return {name: parse_view(name, fields) for name, fields in zip(names, hashes, strict=True)}


async def apply_views(redis: Redis, views: Mapping[str, FeatureView], *, dry_run: bool = False) -> list[ViewChange]:
    """Bring the registry to what is declared: all views or, where one is refused, none. Applying again changes nothing.

    Registered views that are not declared here stay as they are. Raises IncompatibleViews, with every conflict,
    CorruptRegistry and FeatureStoreUnavailable.
    """
    if not views:
        return []
    with told_as_unavailable(redis):
        for _attempt in range(APPLY_ATTEMPTS_MAX):
            async with redis.pipeline(transaction=True) as pipeline:
                await pipeline.watch(*map(registry_key, views))
                changes = await _planned(pipeline, views)
                if dry_run:
                    return changes
                pipeline.multi()  # type: ignore[no-untyped-call]
                for change in changes:
                    _queue(pipeline, change, views[change.view])
                try:
                    await pipeline.execute()
                except WatchError:
                    continue  # someone else applied in between: look again at what is registered now
                return changes
    raise FeatureStoreUnavailable("the registry", f"changed under {APPLY_ATTEMPTS_MAX} attempts to apply")


async def _planned(pipeline: Pipeline, views: Mapping[str, FeatureView]) -> list[ViewChange]:
    changes: list[ViewChange] = []
    conflicts: list[Conflict] = []
    for name, declared in views.items():
        fields: Any = await pipeline.execute_command("HGETALL", registry_key(name))
        try:
            changes.append(plan_change(name, declared, parse_view(name, fields) if fields else None))
        except IncompatibleViews as error:
            conflicts += error.conflicts
    if conflicts:
        raise IncompatibleViews(tuple(conflicts))
    return changes


def _queue(pipeline: Pipeline, change: ViewChange, declared: FeatureView) -> None:
    if change.kind == "unchanged":
        return
    fields: dict[str, str | int | bytes] = {
        "entity": declared.entity,
        "max_age_us": declared.max_age_us,
        "description": declared.description,
        "defaults": msgspec.json.encode(change.defaults),
        "schema_id": change.schema_id,
        f"schema:{change.schema_id}": msgspec.json.encode(change.columns),
        "revision": change.revision,
    }
    pipeline.execute_command("HSET", registry_key(change.view), *(part for item in fields.items() for part in item))
    pipeline.execute_command("SADD", VIEWS_KEY, change.view)


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
