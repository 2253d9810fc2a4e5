"""Whatever answers at the address, a command ends with an exit code and a line that says what was wrong."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments_cli import admin_http
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document

COMMANDS = (
    ["list"],
    ["list", "--json"],
    ["show", "churn-q4"],
    ["show", "churn-q4", "--json"],
    ["ramp", "churn-q4", "5%"],
    ["ramp", "churn-q4", "5%", "--json"],
    ["stop", "churn-q4"],
    ["start", "churn-q4", "--new-salt", "--no-wait"],
    ["kill", "--yes"],
    ["explain", "p7"],
    ["explain", "p7", "--json"],
    ["audit"],
    ["audit", "--export", "-"],
)


@contextmanager
def answering(answer: bytes, *, repeat: bool = False) -> Iterator[str]:
    """Answer every connection with these bytes and close it; repeat: without an end."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    while not ended.is_set():
                        connection.sendall(answer)
                        if not repeat:
                            break
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def http(status: Any, body: bytes, content_type: str = "application/json") -> bytes:
    return b"HTTP/1.1 %b x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        str(status).encode(),
        content_type.encode(),
        len(body),
        body,
    )


HELD = {"revision": 1, "epoch": 1, "units_moved_bp": 0, "warnings": [], "document": document()}
ENTRY = {"id": "1-0", "at": "x", "actor": "a", "reason": "r", "action": "put", "experiment": "e"}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=6)
    | st.sampled_from(["running", "churn-q4", "\x1b[2J", HELD, ENTRY, {"experiments": {"acknowledged": {}}}])
)
WORDS = """revision epoch document warnings entries next killed unit decisions serves churn-q4 code detail status field
current processes experiments experiment variants before"""
KEYS = st.sampled_from(WORDS.split())
SHAPES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)


@st.composite
def near_right(draw: st.DrawFn) -> Any:
    """An answer that is right but for one place."""
    whole: Any = draw(
        st.sampled_from(
            [
                {"churn-q4": HELD},
                HELD,
                {"entries": [ENTRY], "next": None},
                {"revision": 1, "killed": [], "warnings": []},
                {"unit": "p7", "decisions": [{"experiment": "e", "model": "m", "reason": "split"}], "serves": {}},
                {"code": "precondition_failed", "detail": "d", "current": HELD},
            ]
        )
    )
    whole = json.loads(json.dumps(whole))
    inside, depth = whole, draw(st.integers(0, 4))
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        if not keys:
            return whole
        key = draw(st.sampled_from(keys))
        if depth == 0 or not isinstance(inside[key], dict | list):
            inside[key] = draw(SHAPES)
            return whole
        inside, depth = inside[key], depth - 1


ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        http,
        st.sampled_from([200, 201, 204, 301, 400, 401, 404, 412, 422, 500, 503, 999, "1e3", ""]),
        st.binary(max_size=60),
    ),
    st.builds(
        http,
        st.sampled_from([200, 200, 200, 404, 409, 412, 422, 500]),
        (SHAPES | near_right() | near_right()).map(lambda value: json.dumps(value).encode()),
    ),
    st.builds(lambda body, cut: http(200, json.dumps(body).encode())[:cut], SHAPES, st.integers(0, 120)),
)


def ends_well(program: Program, command: list[str], url: str) -> None:
    waiting = ["--wait-s", "0"] if command[0] in {"ramp", "stop", "start", "kill"} else []
    done = program(*command, *waiting, "--url", url, "--timeout-s", "5")
    assert done.code in {0, 1, 2, 3}
    assert "Traceback" not in done.err
    assert "\x1b" not in done.out + done.err
    if done.code:
        assert done.err.startswith("sekisho-experiments: ") or "is stored, but was not acknowledged" in done.err


@given(ANSWERS, st.sampled_from(COMMANDS))
@example(http(200, b"[" * 100_000), ["list"])
@example(http(200, b'{"a": ' * 100_000), ["show", "churn-q4"])
@example(http(200, b'{"revision": ' + b"9" * 10_000 + b"}"), ["kill", "--yes"])
@example(http(200, b'{"e": {"revision": 1, "document": {"a": 1' + b"0" * 5_000 + b"}}}"), ["list"])
@example(http(200, b'{"e": {"revision": 1, "document": {"a": "\\ud800"}}}'), ["list"])
@example(http(200, json.dumps({"e": {"revision": 1, "document": {"experiment": "e"}}}).encode()), ["list"])
@example(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", ["list"])
@example(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nhello", ["list"])
@example(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", ["list"])
@example(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000 + b"\r\n", ["list"])
@example(b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n", ["list"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_is_a_traceback(program: Program, answer: bytes, command: list[str]):
    with answering(answer) as url:
        ends_well(program, list(command), url)


def test_a_page_of_a_web_server_is_told_as_what_it_is(program: Program):
    with answering(http(200, b"<html>\n <h1>It works!</h1></html>", "text/html")) as url:
        done = program("list", "--url", url)
    assert done.code == 1
    assert (
        f"{url}/admin/v1/experiments answered with text/html: '<html> <h1>It works!</h1></html>', not with JSON"
        in done.err
    )
    assert "is --url the admin port" in done.err


def test_an_error_page_is_told_with_its_status(program: Program):
    with answering(http(502, b"<h1>Bad Gateway</h1>", "text/html")) as url:
        done = program("list", "--url", url)
    assert "answered 502 with text/html: '<h1>Bad Gateway</h1>'" in done.err


def test_a_redirection_is_not_followed(program: Program):
    with answering(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n") as url:
        done = program("list", "--url", url, "--key", "sk_secret")
    assert done.code == 1
    assert "answered 302" in done.err


def test_a_connection_that_is_closed_is_told_and_of_a_write_that_nobody_knows(program: Program, monkeypatch):
    with answering(b"") as url:
        read, write = program("list", "--url", url), program("kill", "--yes", "--url", url)
    assert "no whole answer: the connection was closed" in read.err
    assert "whether the change was made is not known" in write.err
    assert (read.code, write.code) == (1, 1)


def test_a_server_of_another_protocol_is_told(program: Program):
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        done = program("list", "--url", url)
    assert "it does not begin as HTTP does: SSH-2.0-OpenSSH_9.2" in done.err


def test_an_answer_that_ends_early_is_no_answer(program: Program):
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}") as url:
        done = program("list", "--url", url)
    assert "no whole answer: it ended early" in done.err


def test_an_answer_without_an_end_is_cut_at_its_bound(program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_http, "ANSWER_BYTES_MAX", 1_000_000)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 65_536, repeat=True) as url:
        done = program("list", "--url", url)
    assert done.code == 1
    assert "more than the 1000000 bytes that are read" in done.err


def test_an_answer_that_never_begins_takes_no_longer_than_its_time(program: Program):
    # http.client reads any number of these, each within the time of a single read.
    with answering(b"HTTP/1.1 100 Continue\r\n\r\n", repeat=True) as url:
        done = program("list", "--url", url, "--timeout-s", "0.3")
    assert done.code == 1
    assert "no answer within 0.3 s (--timeout-s)" in done.err


def test_a_server_that_says_nothing_takes_no_longer_than_its_time(program: Program):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = program("list", "--url", url, "--timeout-s", "0.2")
    assert done.code == 1
    assert "no answer within 0.2 s (--timeout-s)" in done.err
