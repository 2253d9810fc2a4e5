import asyncio
import gzip
import zlib

import pytest

from model_workers.body import BodyReader
from model_workers.errors import BodiesFull, BodyRefused, EncodingUnknown, RequestTooLarge


def read(*chunks, headers=(), bytes_max=100, held_bytes_max=1_000, ended=True):
    """Read a body that arrives in these chunks; `ended` false: the sender leaves instead of sending the last one."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if ended:
        messages[-1]["more_body"] = False
    taken = []

    async def receive():
        taken.append(None)
        return messages[len(taken) - 1] if len(taken) <= len(messages) else {"type": "http.disconnect"}

    reader = BodyReader(bytes_max, held_bytes_max)
    return asyncio.run(reader.read(headers, receive)), len(taken)


def test_a_body_in_one_piece_and_one_in_chunks_read_alike():
    assert read(b"abcdef")[0] == read(b"ab", b"", b"cdef")[0] == (b"abcdef", None)


def test_the_length_of_the_json_part_is_read_from_its_header():
    assert read(b"{}", headers=[(b"inference-header-content-length", b"2")])[0] == (b"{}", 2)


@pytest.mark.parametrize("value", [b"-1", b"", b"2x", b"0x10", b" 2", b"1e3", b"9" * 5_000, "٣".encode()])
def test_a_length_that_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(BodyRefused, match="inference-header-content-length must be a whole number of bytes"):
        read(b"{}", headers=[(b"inference-header-content-length", value)])


def test_a_length_that_is_given_twice_and_differs_is_refused():
    with pytest.raises(BodyRefused, match="given twice, as 1 and as 2"):
        read(b"{}", headers=[(b"inference-header-content-length", b"1"), (b"inference-header-content-length", b"2")])


def test_a_body_that_declares_too_much_is_refused_before_any_of_it_is_read():
    async def receive():
        pytest.fail("nothing may be read")

    with pytest.raises(RequestTooLarge, match="101 given, at most 100 taken"):
        asyncio.run(BodyReader(100).read([(b"content-length", b"101")], receive))


def test_a_body_that_grows_beyond_the_limit_is_refused_at_the_chunk_that_does_it():
    with pytest.raises(RequestTooLarge, match="more given, at most 100 taken"):
        read(b"x" * 60, b"x" * 60, b"x" * 60, ended=False)


def test_one_piece_beyond_the_limit_is_refused():
    with pytest.raises(RequestTooLarge, match="101 given"):
        read(b"x" * 101)


def test_many_slow_bodies_share_one_bound_and_give_it_back():
    async def scenario():
        reader = BodyReader(100, held_bytes_max=100)
        first_part_read, go_on = asyncio.Event(), asyncio.Event()

        async def slow():
            if first_part_read.is_set():
                await go_on.wait()
                return {"type": "http.request", "body": b"", "more_body": False}
            first_part_read.set()
            return {"type": "http.request", "body": b"x" * 60, "more_body": True}

        async def quick():
            return {"type": "http.request", "body": b"x" * 60, "more_body": True}

        holding = asyncio.create_task(reader.read([], slow))
        await first_part_read.wait()
        await asyncio.sleep(0)
        with pytest.raises(BodiesFull, match="60 bytes of bodies are held already, at most 100"):
            await reader.read([], quick)
        go_on.set()
        assert len((await holding)[0]) == 60
        with pytest.raises(RequestTooLarge):  # all is given back: now its own limit is what stops it
            await reader.read([], quick)

    asyncio.run(scenario())


def test_a_sender_that_leaves_in_the_middle_is_told_apart():
    with pytest.raises(ConnectionResetError):
        read(b"abc", ended=False)


@pytest.mark.parametrize(
    ("encoding", "compress"), [(b"gzip", gzip.compress), (b"GZIP", gzip.compress), (b"deflate", zlib.compress)]
)
def test_a_compressed_body_is_inflated(encoding, compress):
    assert read(compress(b"a" * 90), headers=[(b"content-encoding", encoding)])[0] == (b"a" * 90, None)


def test_a_body_that_inflates_beyond_the_limit_is_refused():
    bomb = gzip.compress(b"\0" * 50_000)
    with pytest.raises(RequestTooLarge, match="decompressed body: more given, at most 100 taken"):
        read(bomb, headers=[(b"content-encoding", b"gzip")])


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(b"abc")[:-4], gzip.compress(b"abc") + b"more", b""])
def test_a_body_that_does_not_decompress_is_refused(body):
    with pytest.raises(BodyRefused, match="compressed body"):
        read(body, headers=[(b"content-encoding", b"gzip")])


@pytest.mark.parametrize("encoding", [b"br", b"gzip, gzip", b"\xff"])
def test_an_unknown_encoding_is_refused_with_the_known_ones(encoding):
    with pytest.raises(EncodingUnknown, match="send gzip, deflate or none"):
        read(b"abc", headers=[(b"content-encoding", encoding)])
