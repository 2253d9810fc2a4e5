"""However a stream of requests is cut into chunks, the same requests come out, in order."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from http_server.connection import Connection
from http_server.exchange import Exchange, Header
from http_server.server import HttpServer, Limits

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
BODIES = st.binary(max_size=40)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass


class Echo:
    """Answers with the body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, list[Header], bytes]] = []

    def body_bytes_max(self, target: bytes) -> int:
        return 1_000

    def serve(self, exchange: Exchange) -> None:
        self.seen.append((exchange.method, exchange.path, exchange.headers, exchange.body))
        exchange.respond(200, b"", exchange.body)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        raise AssertionError(detail)


@st.composite
def requests(draw) -> tuple[bytes, tuple]:
    method = draw(st.sampled_from(["GET", "POST", "PUT"]))
    target = "/" + draw(TOKENS)
    headers = [("host", "h"), *draw(st.lists(st.tuples(TOKENS.map("x-{}".format), TOKENS), max_size=4))]
    body = b"" if method == "GET" else draw(BODIES)
    chunked = method != "GET" and draw(st.booleans())
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))
    if method != "GET":
        lines.append(f"{framing[0]}: {framing[1]}")
        headers = [*headers, framing]
    head = "\r\n".join([*lines, "", ""]).encode()
    sent = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" if chunked else body
    expected = (method, target, [(name.encode(), value.encode()) for name, value in headers], body)
    empty_lines = b"\r\n" * draw(st.integers(0, 2))  # they say nothing before a request
    return empty_lines + head + sent, expected


@given(st.lists(requests(), min_size=1, max_size=6), st.data())
def test_chunks_do_not_matter(sent, data):
    stream = b"".join(raw for raw, _ in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    application, wire = Echo(), Wire()

    async def run() -> None:
        connection = Connection(HttpServer(application, Limits()))
        connection.connection_made(wire)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            connection.data_received(stream[start:end])
        for _ in range(len(sent) + 1):
            await asyncio.sleep(0)
        connection.connection_lost(None)

    asyncio.run(run())
    assert application.seen == [expected for _, expected in sent]
    assert wire.written.count(b"HTTP/1.1 200 OK") == len(sent)
