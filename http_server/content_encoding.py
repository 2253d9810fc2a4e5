"""Inflate a compressed body within bounds, which are checked while it inflates."""

import asyncio
import zlib
from collections.abc import Iterable
from typing import Final

from http_server.exchange import Header

_AUTO_DETECT_GZIP_AND_ZLIB: Final = 32 + zlib.MAX_WBITS
_COMPRESSED: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
_PLAIN: Final = frozenset({b"", b"identity"})


class EncodingUnknown(ValueError):
    """A body is compressed in a way that is not read here."""


class EncodingCorrupt(ValueError):
    """A compressed body does not decode, is cut short, or is followed by more."""


class InflatedTooLarge(ValueError):
    """A body inflates to more than is taken."""


def encoding_of(headers: Iterable[Header]) -> bytes:
    """Return the one content-encoding, empty for none. Raises EncodingUnknown, also where several are stacked."""
    given = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    encodings = [encoding for encoding in given if encoding not in _PLAIN]
    if not encodings:
        return b""
    if len(given) > 1 or encodings[0] not in _COMPRESSED:
        shown = b", ".join(given)[:32].decode("latin-1")
        raise EncodingUnknown(f"content-encoding {shown!r} is not read here; send gzip, deflate or none")
    return encodings[0]


async def inflated(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """Decompress a body, beside the event loop. Raises EncodingCorrupt and InflatedTooLarge."""
    return await asyncio.to_thread(_inflated, body, bytes_max) if encoding else body


def _inflated(body: bytes, bytes_max: int) -> bytes:
    inflater = zlib.decompressobj(_AUTO_DETECT_GZIP_AND_ZLIB)
    try:
        content = inflater.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise EncodingCorrupt(f"the compressed body does not decode: {error}") from error
    if len(content) > bytes_max:
        raise InflatedTooLarge(f"bytes of a decompressed body: more given, at most {bytes_max} taken")
    if not inflater.eof or inflater.unused_data:
        raise EncodingCorrupt("the compressed body is cut short, or more follows its end")
    return content
