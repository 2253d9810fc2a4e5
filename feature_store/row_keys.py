"""The names under which Redis holds rows and the registry."""

from feature_store.errors import InvalidEntityId

ENTITY_ID_BYTES_MAX = 256
"""Longest entity id, in UTF-8. Keys live in Redis's memory beside the rows, and most ids are a tenth of this."""

VIEWS_KEY = b"sekisho:views"
"""The set of registered view names."""


def row_key(view: str, entity_id: str) -> bytes:
    """Name the row of one entity. Raises InvalidEntityId unless the id is 1 to 256 bytes of UTF-8."""
    return row_key_prefix(view) + entity_id_bytes(entity_id)


def row_key_prefix(view: str) -> bytes:
    """The part of a row's key before the entity id: a caller may add `entity_id_bytes(id)` itself."""
    return b"sekisho:row:%b:" % view.encode()


def entity_id_bytes(entity_id: str) -> bytes:
    """Check an entity id and encode it. Raises InvalidEntityId unless it is 1 to 256 bytes of UTF-8."""
    if not 0 < len(entity_id) <= ENTITY_ID_BYTES_MAX:
        raise InvalidEntityId(entity_id, f"{len(entity_id)} characters; 1 to {ENTITY_ID_BYTES_MAX} bytes are allowed")
    try:
        encoded = entity_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidEntityId(entity_id, "is not text that UTF-8 can say") from error
    if len(encoded) > ENTITY_ID_BYTES_MAX:
        raise InvalidEntityId(entity_id, f"{len(encoded)} bytes; 1 to {ENTITY_ID_BYTES_MAX} are allowed")
    return encoded


def registry_key(view: str) -> bytes:
    """Name the hash that holds a view's schemas, defaults and age limit."""
    return b"sekisho:view:%b" % view.encode()
