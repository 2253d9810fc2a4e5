import asyncio
import gzip
import zlib

import pytest

from http_server.content_encoding import EncodingCorrupt, EncodingUnknown, InflatedTooLarge, encoding_of, inflated


def read(body: bytes, *encodings: bytes, bytes_max: int = 100) -> bytes:
    encoding = encoding_of([(b"content-encoding", encoding) for encoding in encodings])
    return asyncio.run(inflated(body, encoding, bytes_max))


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"GZIP", gzip.compress), (b" deflate ", zlib.compress)]
)
def test_a_compressed_body_is_inflated(encoding, compress):
    assert read(compress(b"a" * 90), encoding) == b"a" * 90


@pytest.mark.parametrize("encodings", [(), (b"identity",), (b"",)])
def test_a_plain_body_stays_as_it_is(encodings):
    assert read(b"plain", *encodings) == b"plain"


def test_a_body_that_inflates_beyond_the_limit_is_refused():
    with pytest.raises(InflatedTooLarge, match="decompressed body: more given, at most 100 taken"):
        read(gzip.compress(b"\0" * 50_000), b"gzip")


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"abc")[:-4], gzip.compress(b"abc") + b"more", b""])
def test_a_body_that_does_not_decompress_is_refused(body):
    with pytest.raises(EncodingCorrupt, match="compressed body"):
        read(body, b"gzip")


@pytest.mark.parametrize(
    "encodings", [(b"br",), (b"gzip, gzip",), (b"\xff",), (b"gzip", b"gzip"), (b"gzip", b"identity")]
)
def test_an_unknown_encoding_is_refused_with_the_known_ones(encodings):
    with pytest.raises(EncodingUnknown, match="send gzip, deflate or none"):
        read(b"abc", *encodings)
