"""Registered views as bytes, for a reader that keeps its last good ones where Redis is not."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from feature_store.errors import CorruptRegistry
from feature_store.registered_view import RegisteredView
from feature_store.registry import VIEWS_MAX, parse_view
from feature_store.row_layout import SCHEMA_ID_MAX
from feature_store.schema_evolution import columns_of

SNAPSHOT_VERSION = 1
SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024
"""Far more than a gateway's views take (a thousand views of fifty features: 3 MB); more is some other file."""

_WHOLE = "*"
_FILE = "snapshot"


class _View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One view, as the registry's hash of it. What is Raw here is checked by the registry's own parser."""

    entity: str
    max_age_us: int
    description: str
    defaults: msgspec.Raw
    schema_id: int
    schemas: dict[Annotated[int, msgspec.Meta(ge=1, le=SCHEMA_ID_MAX)], msgspec.Raw]
    revision: int
    near_cache: msgspec.Raw


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="views"):
    version: int
    views: dict[str, _View]


def encode_views(views: Mapping[str, RegisteredView]) -> bytes:
    """Encode registered views as versioned JSON that `decode_views` reads. Equal views are equal bytes."""
    snapshot = _Snapshot(version=SNAPSHOT_VERSION, views={name: _encoded(views[name]) for name in sorted(views)})
    return msgspec.json.encode(snapshot)


def decode_views(encoded: bytes) -> dict[str, RegisteredView]:
    """Decode what `encode_views` made, checked as the registry in Redis is.

    Raises CorruptRegistry for anything else: more than SNAPSHOT_BYTES_MAX bytes, another version, a wrong field.
    """
    if len(encoded) > SNAPSHOT_BYTES_MAX:
        raise CorruptRegistry(_WHOLE, _FILE, f"{len(encoded)} bytes; at most {SNAPSHOT_BYTES_MAX} are read")
    try:
        snapshot = msgspec.json.decode(encoded, type=_Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRegistry(_WHOLE, _FILE, str(error)) from error
    if snapshot.version != SNAPSHOT_VERSION:
        raise CorruptRegistry(_WHOLE, _FILE, f"is of version {snapshot.version}; {SNAPSHOT_VERSION} is read")
    if len(snapshot.views) > VIEWS_MAX:
        raise CorruptRegistry(_WHOLE, _FILE, f"has {len(snapshot.views)} views; at most {VIEWS_MAX} are read")
    return {name: parse_view(name, _fields(view)) for name, view in snapshot.views.items()}


def _encoded(view: RegisteredView) -> _View:
    return _View(
        entity=view.entity,
        max_age_us=view.max_age_us,
        description=view.description,
        defaults=_raw(view.defaults),
        schema_id=view.current_schema_id,
        schemas={schema_id: _raw(columns_of(layout)) for schema_id, layout in sorted(view.schemas.items())},
        revision=view.revision,
        near_cache=_raw(view.near_cache),
    )


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value, order="deterministic"))


def _fields(view: _View) -> dict[bytes, bytes]:
    fields = {
        b"entity": view.entity.encode(),
        b"max_age_us": b"%d" % view.max_age_us,
        b"description": view.description.encode(),
        b"defaults": bytes(view.defaults),
        b"schema_id": b"%d" % view.schema_id,
        b"revision": b"%d" % view.revision,
        b"near_cache": bytes(view.near_cache),
    }
    return fields | {b"schema:%d" % schema_id: bytes(raw) for schema_id, raw in view.schemas.items()}
