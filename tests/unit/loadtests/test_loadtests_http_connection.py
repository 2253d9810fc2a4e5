import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.http_connection import RESPONSE_BYTES_MAX, MalformedResponse, Response, parse_response


def response_bytes(status: int, body: bytes, header: str = "Content-Length") -> bytes:
    return f"HTTP/1.1 {status} Whatever\r\nserver: s\r\n{header}: {len(body)}\r\nx: y\r\n\r\n".encode() + body


@given(st.sampled_from([200, 422, 503]), st.binary(max_size=50), st.data())
def test_a_response_is_read_once_it_is_whole_and_not_before(status, body, data):
    whole = response_bytes(status, body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert parse_response(whole[:cut]) is None
    assert parse_response(whole) == Response(status, body)


@pytest.mark.parametrize("header", ["content-length", "Content-Length", "CONTENT-LENGTH"])
def test_a_header_is_known_in_any_case(header):
    assert parse_response(response_bytes(200, b"x", header)) == Response(200, b"x")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length"),
        (f"HTTP/1.1 200 OK\r\ncontent-length: {RESPONSE_BYTES_MAX + 1}\r\n\r\n".encode(), "content-length"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1"),
        (response_bytes(200, b"{}") + b"more", "more than one response"),
        (b"a" * (RESPONSE_BYTES_MAX + 1), "no end of headers"),
    ],
)
def test_what_is_no_answer_to_one_request_is_refused_with_its_beginning(data, problem):
    with pytest.raises(MalformedResponse, match=problem) as refused:
        parse_response(data)
    assert data.startswith(refused.value.start)
