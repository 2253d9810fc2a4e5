"""Read a request's body within bounds, which are checked before anything is kept or inflated."""

from collections.abc import Iterable
from typing import Any, Final

from contracts.headers import INFERENCE_HEADER_CONTENT_LENGTH
from http_server import content_encoding
from model_workers.errors import BodiesFull, BodyRefused, EncodingUnknown, RequestTooLarge

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""One body, as it is sent and as it inflates. 16,384 rows of 1,000 FP32 features take 62.5 MiB."""

HELD_BYTES_MAX: Final = 256 * 1024 * 1024
"""All bodies that are being read at one time, so that many slow senders cannot fill the memory."""

LENGTH_DIGITS_MAX: Final = 12
"""Of a length in a header: 12 digits are more than any body, and int() of millions of digits takes minutes."""

Headers = Iterable[tuple[bytes, bytes]]
Receive = Any


class BodyReader:
    """Reads bodies of at most `bytes_max` bytes, and at most `held_bytes_max` of all that are being read."""

    def __init__(self, bytes_max: int = BODY_BYTES_MAX, held_bytes_max: int = HELD_BYTES_MAX) -> None:
        self._bytes_max, self._held_bytes_max = bytes_max, held_bytes_max
        self._held_bytes = 0

    async def read(self, headers: Headers, receive: Receive) -> tuple[bytes, int | None]:
        """Read a body: its bytes, decompressed, and the length of its JSON part where the sender says one.

        Raises RequestTooLarge, BodiesFull, BodyRefused, EncodingUnknown; ConnectionResetError where the sender leaves.
        """
        declared, header_length = None, None
        for name, value in headers:
            if name == INFERENCE_HEADER_CONTENT_LENGTH:
                header_length = _length(name, value, header_length)
            elif name == b"content-length":
                declared = _length(name, value, declared)
        if declared is not None and declared > self._bytes_max:
            raise RequestTooLarge("bytes of a body", self._bytes_max, declared)
        try:
            encoding = content_encoding.encoding_of(headers)
            body = await content_encoding.inflated(await self._received(receive), encoding, self._bytes_max)
        except content_encoding.EncodingUnknown as error:
            raise EncodingUnknown(str(error)) from error
        except content_encoding.EncodingCorrupt as error:
            raise BodyRefused(str(error)) from error
        except content_encoding.InflatedTooLarge as error:
            raise RequestTooLarge("bytes of a decompressed body", self._bytes_max) from error
        return body, header_length

    async def _received(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")  # the usual case: all of it came with the headers
            if len(body) > self._bytes_max:
                raise RequestTooLarge("bytes of a body", self._bytes_max, len(body))
            return body
        parts, size = [], 0
        try:
            while message["type"] == "http.request":
                part = message.get("body", b"")
                size += len(part)
                self._held_bytes += len(part)
                if size > self._bytes_max:
                    raise RequestTooLarge("bytes of a body", self._bytes_max)
                if self._held_bytes > self._held_bytes_max:
                    raise BodiesFull(self._held_bytes - size, self._held_bytes_max)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
                message = await receive()
            raise ConnectionResetError("the sender left in the middle of a body")
        finally:
            self._held_bytes -= size


def _length(name: bytes, value: bytes, earlier: int | None) -> int:
    if not value.isdigit() or len(value) > LENGTH_DIGITS_MAX:
        raise BodyRefused(
            f"header {name.decode()} must be a whole number of bytes, not {value[:32].decode('latin-1')!r}"
        )
    length = int(value)
    if earlier is not None and earlier != length:
        raise BodyRefused(f"header {name.decode()} is given twice, as {earlier} and as {length}")
    return length
