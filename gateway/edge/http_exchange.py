"""One request on the data port, below any framework: its id, and its JSON body."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from contracts.headers import REQUEST_ID
from gateway.errors import InvalidRequest, MalformedRequest, UnsupportedMediaType

REQUEST_ID_BYTES_MAX: Final = 128
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:/=+-]{1,128}\Z")
_JSON_TYPES: Final = (b"application/json", b"")
_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`\Z")
_PATH_PART = re.compile(r"\.?(?P<name>[^.\[]+)|\[(?P<index>\d+)\]")
_SOME_KEY: Final = "[...]"
"""What msgspec's paths say for "some key of this mapping"."""

_KEY_CHARACTERS_SHOWN: Final = 64


def request_id_of(headers: dict[bytes, bytes], new_id: Callable[[], str]) -> str:
    """Echo the caller's request id where it is a plain one of at most REQUEST_ID_BYTES_MAX; make one otherwise."""
    given = headers.get(REQUEST_ID)
    return given.decode() if given is not None and _REQUEST_ID.match(given) else new_id()


def check_json(headers: dict[bytes, bytes]) -> None:
    """Refuse a body that is not said to be JSON, or that is compressed. Raises UnsupportedMediaType."""
    content_type = headers.get(b"content-type", b"")
    if content_type not in _JSON_TYPES and content_type.split(b";")[0].strip().lower() not in _JSON_TYPES:
        raise UnsupportedMediaType(
            f"send application/json, not {content_type[:64].decode('latin-1')!r}", "content-type"
        )
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType("send the body uncompressed", "content-encoding")


def decode_json(decoder: Any, body: bytes) -> Any:
    """Decode a JSON body by type.

    Raises MalformedRequest for what is not JSON, InvalidRequest for what does not fit.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        where = _WHERE.search(str(error))
        detail = str(error)[: where.start()] if where else str(error)
        field = _with_key(where["path"], decoder, body) if where else None
        raise InvalidRequest(detail, field or None) from None
    except msgspec.DecodeError as error:
        raise MalformedRequest(str(error)) from None
    except UnicodeDecodeError:
        raise MalformedRequest("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedRequest("the body is nested too deeply") from None


def _with_key(path: str, decoder: Any, body: bytes) -> str:
    # Which key it is that does not fit is found by trying each of the mapping's alone.
    before, some_key, after = path.partition(_SOME_KEY)
    if not some_key:
        return path
    parts = [(part["name"], part["index"]) for part in _PATH_PART.finditer(before)]
    try:
        mapping = msgspec.json.decode(body)
        for name, index in parts:
            mapping = mapping[int(index) if name is None else name]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return before  # what cannot be read at all lies further on
    for key, value in mapping.items():
        alone: Any = {key: value}
        for name, _ in reversed(parts):
            alone = [alone] if name is None else {name: alone}
        try:
            msgspec.convert(alone, decoder.type)
        except msgspec.ValidationError:
            return f"{before}.{key[:_KEY_CHARACTERS_SHOWN]}{after}"
    return before
