"""Bytes that are hardly HTTP, or none: for every port, whatever it serves."""

import os
import random
import re
import socket

from tests.integration.gateway_client import exchange_raw

REPLY_TIMEOUT_S = 10.0


def hostile_bytes(path: str, body: bytes) -> dict[str, list[bytes]]:
    """What may be refused or cut off, but never a success, a server's error or a hang, by claim.

    path and body: of a request that would be taken.
    """
    length = b"content-length: %d" % len(body)
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n".encode()
    chunked = head + b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(body), body)
    get = b"GET /v2 HTTP/1.1\r\nhost: h\r\n"
    lengths = {
        "a content length that is negative": b"-1",
        "a content length that is no number": b"many",
        "a content length with a sign": b"+%d" % len(body),
        "a content length that is hexadecimal": b"0x10",
        "a content length of a thousand digits": b"9" * 1_000,
        "a content length beyond 64 bits": b"%d" % (1 << 64),
        "a list of content lengths": b"%d, %d" % (len(body), len(body) + 1),
    }
    return {
        **{claim: [head + b"content-length: %b\r\n\r\n" % value + body] for claim, value in lengths.items()},
        "two content lengths that differ": [head + length + b"\r\ncontent-length: 1\r\n\r\n" + body],
        "chunks beside a content length": [head + length + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunk],
        "a transfer encoding that is unknown": [head + b"transfer-encoding: brotli\r\n\r\n" + body],
        "chunks that are not the last encoding": [head + b"transfer-encoding: chunked, gzip\r\n\r\n" + chunk],
        "a chunk size that is no number": [chunked + b"zz\r\nabc\r\n0\r\n\r\n"],
        "a chunk size that is negative": [chunked + b"-1\r\nabc\r\n0\r\n\r\n"],
        "a chunk size beyond 64 bits": [chunked + b"F" * 17 + b"\r\nabc\r\n"],
        "a chunk that is longer than it says": [chunked + b"3\r\nabcdef\r\n0\r\n\r\n"],
        "garbage": [random.Random(7).randbytes(2_000)],
        "zeros": [b"\0" * 70_000],
        "one line without an end": [b"x" * 200_000],
        "a TLS hello": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)],
        "HTTP/2 with prior knowledge": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        "a version that does not exist": [b"GET /v2 HTTP/9.9\r\nhost: h\r\n\r\n"],
        "a version that is no version": [b"GET /v2 HTTQ/1.1\r\nhost: h\r\n\r\n"],
        "a method of its own": [b"BREW /v2 HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a method in lower case": [b"get /v2 HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a tunnel": [b"CONNECT example.test:443 HTTP/1.1\r\nhost: h\r\n\r\n"],
        "no path": [b"GET  HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a path that is an asterisk": [b"GET * HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a path of a megabyte": [b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a query of a megabyte": [b"GET /v2?" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a path of bytes beyond ASCII": [b"GET /v2/models/\xff\xfe HTTP/1.1\r\nhost: h\r\n\r\n"],
        "a header of a megabyte": [get + b"x: " + b"a" * (1 << 20) + b"\r\n\r\n"],
        "a header's name of a megabyte": [get + b"x" * (1 << 20) + b": a\r\n\r\n"],
        "100,000 headers": [get + b"".join(b"x-%d: y\r\n" % n for n in range(100_000)) + b"\r\n"],
        "a header without a colon": [get + b"nothing\r\n\r\n"],
        "a header with a NUL": [get + b"x: \0\r\n\r\n"],
        "a header's name with a space": [get + b"x y: z\r\n\r\n"],
        "a header on two lines": [get + b"x: a\r\n b\r\n" + b"content-length : 5\r\n\r\n"],
    }  # fmt: skip


def first_status(port: int, *parts: bytes) -> int | None:
    """Send bytes as they are, and give the status of the first answer; None where the server closes without one.

    Raises TimeoutError where it does neither. The sending side stays open: a server may drop the answer to who hung up.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_TIMEOUT_S) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while not (line := re.match(rb"HTTP/1\.1 (\d{3}) ", received)):
                chunk = connection.recv(65_536)
                if not chunk:
                    assert received == b"", received[:200]
                    return None
                received += chunk
        except TimeoutError:
            raise
        except OSError:
            return None  # closed while there was more to send
        return int(line[1])


def statuses(port: int, *parts: bytes, timeout_s: float = REPLY_TIMEOUT_S) -> list[int]:
    """Send requests of which the last says `connection: close`, and give the statuses of all answers."""
    reply = exchange_raw(port, *parts, timeout_s=timeout_s)
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)]


HOSTILE_NAMES = [
    "..",
    "../..",
    "../../../../etc/passwd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "%00",
    "basket%00",
    "basket%0a",
    "basket%2f..%2fbasket",
    "%2f",
    "%ff%fe",
    "%ed%a0%80",
    "%",
    "%zz",
    "%25252e",
    "a" * 20_000,
    "%f0%9f%92%a9",
    "-",
    ".hidden",
    "basket@1",
    "basket:1",
    "basket;versions=1",
    "%20",
    "{model}",
    "null",
]
"""What stands where a path names a model, a version or an experiment; nothing is served under any of them."""
