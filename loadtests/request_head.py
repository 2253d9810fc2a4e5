"""The head of a request, with what real callers change from request to request."""

import numpy as np

HOST = "127.0.0.1"


def request_head(path: str, content_type: str, content_length: int, identity: bytes) -> bytes:
    """One HTTP/1.1 request head. identity: 40 bytes, of which request id, trace and span are made.

    With heads that never change, a server that remembers whole heads would win by what no real caller gives it.
    """
    request_id, trace_id, span_id = identity[:16].hex(), identity[16:32].hex(), identity[32:40].hex()
    return (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: {content_type}\r\n"
        f"x-request-id: {request_id}\r\ntraceparent: 00-{trace_id}-{span_id}-01\r\n"
        f"content-length: {content_length}\r\n\r\n"
    ).encode()


def request_identities(count: int, seed: int) -> list[bytes]:
    """Draw `count` identities of 40 bytes, all different."""
    # 160 bits each of request id and trace: two that are equal will not be met.
    drawn = np.random.default_rng(seed).bytes(40 * count)
    return [drawn[i : i + 40] for i in range(0, len(drawn), 40)]
