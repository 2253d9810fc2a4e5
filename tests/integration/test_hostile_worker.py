import json
import re
import socket
import sys
from pathlib import Path

import pytest

from settings.child_process import ChildProcess
from tests.integration.gateway_client import Client, exchange_raw, until
from tests.integration.gateway_models import make_features, publish_models
from tests.integration.gateway_stack import ROOT, free_ports, lines_of_errors
from tests.integration.hostile_http import HOSTILE_NAMES, first_status, hostile_bytes, statuses
from tests.integration.hostile_inference import HOSTILE_BODIES, INFER, request
from tests.integration.steady_client import Held, SteadyClient, infer_basket

pytestmark = pytest.mark.integration

HOSTILE_BYTES = hostile_bytes(INFER, request())
DESCRIPTORS_SLACK, MEMORY_SLACK_MB = 3, 24.0


class Worker:
    """A worker that serves the models of the whole system, and who else asks it."""

    def __init__(self, directory: Path) -> None:
        (self.port, self.admin_port), self.log_file = free_ports(2), directory / "log"
        publish_models(directory / "repository", make_features())
        command = [sys.executable, "-m", "model_workers", "--repository", str(directory / "repository")]
        command += ["--port", str(self.port), "--admin-port", str(self.admin_port), "--shutdown-grace-s", "0"]
        self.child = ChildProcess(command, log_file=self.log_file, directory=ROOT)
        self.child.start()
        until("the worker is ready", self._is_ready, 60)
        self.steady = SteadyClient(self.port, infer_basket)

    def _is_ready(self) -> bool:
        assert self.child.ended() is None, self.child.last_lines(20)
        try:
            with Client(self.port) as client:
                return client.ask("GET", "/v2/health/ready").status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    running = Worker(tmp_path_factory.mktemp("worker"))
    with running.steady:
        yield running
    running.child.stop()


@pytest.fixture(autouse=True)
def _nobody_else_is_harmed(worker):
    yield
    worker.steady.check()
    assert worker.child.ended() is None
    assert lines_of_errors(worker.log_file) == []


@pytest.mark.parametrize("hostile", HOSTILE_BODIES, ids=lambda hostile: hostile.claim)
def test_a_hostile_body_is_refused_with_an_error_that_names_the_fault(worker, hostile):
    with Client(worker.port) as client:
        reply = client.ask("POST", INFER, hostile.body, hostile.headers)
        assert (reply.status, list(reply.json)) == (hostile.status, ["error"]), reply.body[:500]
        assert re.search(hostile.says, reply.json["error"]), reply.json["error"][:500]
        assert len(reply.body) < 2_000
        assert infer_basket(client, 7) is None  # on the same connection


@pytest.mark.parametrize("claim", HOSTILE_BYTES)
def test_bytes_that_are_no_http_are_refused_or_cut_off(worker, claim):
    for port in (worker.port, worker.admin_port):
        status = first_status(port, *HOSTILE_BYTES[claim])
        assert status is None or 400 <= status < 500 or status == 505


@pytest.mark.parametrize("action", ["", "/ready", "/manifest", "/infer"])
def test_a_name_that_climbs_or_is_no_text_is_not_served(worker, action):
    method = "POST" if action == "/infer" else "GET"
    for name in HOSTILE_NAMES:
        for path in (f"/v2/models/{name}{action}", f"/v2/models/basket/versions/{name}{action}"):
            with Client(worker.port) as client:
                reply = client.ask(method, path, request() if action == "/infer" else None)
            assert reply.status in {400, 404, 405}, (path, reply.body[:300])
            assert len(reply.body) < 2_000, path


@pytest.mark.parametrize("operation", ["load", "unload"])
def test_a_name_that_climbs_or_is_no_text_is_neither_loaded_nor_unloaded(worker, operation):
    with Client(worker.admin_port) as admin:
        before = admin.ask("POST", "/v2/repository/index").json
        for name in HOSTILE_NAMES:
            for path in (f"/v2/repository/models/{name}/", f"/v2/repository/models/basket/versions/{name}/"):
                reply = admin.ask("POST", path + operation)
                assert reply.status in {400, 404, 405}, (path, reply.body[:300])
                assert len(reply.body) < 2_000, path
        assert admin.ask("POST", "/v2/repository/index").json == before


HOSTILE_ADMIN_BODIES = {
    "broken JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "bytes that are not UTF-8": (b'{"parameters": {"version": "\xff"}}', 400),
    "nesting ten thousand deep": (b'{"parameters":' * 1_000 + b"[" * 10_000, 400),
    "a version that climbs": (b'{"parameters": {"version": "../1"}}', 404),
    "a version of another kind": (b'{"parameters": {"version": 1}}', 400),
    "a version of 60,000 characters": (b'{"parameters": {"version": "%b"}}' % (b"9" * 60_000), 404),
    "a version with a NUL": (b'{"parameters": {"version": "1\\u0000"}}', 404),
    "a version that is a lone surrogate": (b'{"parameters": {"version": "\\ud800"}}', 400),
    "a configuration of its own": (b'{"parameters": {"config": "{}"}}', 400),
    "a file of its own": (b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400),
    "more than 64 KiB": (b" " * 65_537, 413),
}


@pytest.mark.parametrize("claim", HOSTILE_ADMIN_BODIES)
def test_a_hostile_body_to_the_admin_port_is_refused_and_changes_nothing(worker, claim):
    body, status = HOSTILE_ADMIN_BODIES[claim]
    with Client(worker.admin_port) as admin:
        before = admin.ask("POST", "/v2/repository/index").json
        reply = admin.ask("POST", "/v2/repository/models/basket/load", body)
        assert (reply.status, list(reply.json)) == (status, ["error"]), reply.body[:500]
        assert len(reply.body) < 2_000
    with Client(worker.admin_port) as admin:
        assert admin.ask("POST", "/v2/repository/index").json == before


def test_a_body_beyond_what_is_taken_is_refused_before_any_of_it_is_sent(worker):
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n"
    reply = exchange_raw(worker.port, head.encode())
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"99999999999 bytes" in reply


def test_a_header_length_given_twice_is_refused_where_the_two_differ(worker):
    body = request()
    same = b"inference-header-content-length: %d\r\n" % len(body)
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len(body)}\r\n".encode()
    other = b"inference-header-content-length: 1\r\n"
    assert b"must be one whole number" in exchange_raw(worker.port, head + same + other + b"\r\n" + body)
    assert statuses(worker.port, head + same + same + b"\r\n" + body) == [200]


def test_an_encoding_given_twice_is_refused(worker):
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 2\r\n".encode()
    for first, second in (("gzip", "gzip"), ("gzip", "identity"), ("identity", "br")):
        twice = f"content-encoding: {first}\r\ncontent-encoding: {second}\r\n\r\n".encode()
        assert exchange_raw(worker.port, head + twice + b"{}").startswith(b"HTTP/1.1 415 ")


def test_chunks_of_any_size_are_as_good_as_a_whole_body(worker):
    body = request()
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    for size in (1, 7, len(body)):
        parts = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x;extension=1\r\n%b\r\n" % (len(part), part) for part in parts)
        assert statuses(worker.port, head, chunks, b"0\r\ntrailer: x\r\n\r\n") == [200]


def test_a_request_of_http_0_9_is_told_which_versions_are_spoken_and_its_connection_closed(worker):
    assert statuses(worker.port, b"GET /v2/health/live\r\n\r\n") == [505]


def test_500_requests_at_once_on_one_connection_are_answered_in_their_order(worker):
    def ask(name: str, last: bool) -> bytes:
        body = request(id=name)
        closes = "connection: close\r\n" if last else ""
        return f"POST {INFER} HTTP/1.1\r\nhost: h\r\n{closes}content-length: {len(body)}\r\n\r\n".encode() + body

    reply = exchange_raw(worker.port, b"".join(ask(f"r{i}", i == 499) for i in range(500)), timeout_s=30)
    assert re.findall(rb'"id":"(r\d+)"', reply) == [b"r%d" % i for i in range(500)]


def test_callers_that_hang_up_half_way_leave_no_connection_behind(worker):
    body = request()
    good = f"POST {INFER} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    before = Held.by(worker.child.pid)
    chunks = good.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")[: -len(body)] + b"ff\r\n{"
    for sent in (good[:10], good[:60], good[:-1], good, chunks):
        for _ in range(25):
            with socket.create_connection(("127.0.0.1", worker.port)) as connection:
                connection.sendall(sent)
    until(
        "connections are closed",
        lambda: Held.by(worker.child.pid).descriptors <= before.descriptors + DESCRIPTORS_SLACK,
    )


def test_all_of_it_once_more_takes_no_descriptor_and_no_memory(worker):
    def everything() -> None:
        for hostile in HOSTILE_BODIES:
            with Client(worker.port) as client:
                client.ask("POST", INFER, hostile.body, hostile.headers)
        for parts in HOSTILE_BYTES.values():
            for port in (worker.port, worker.admin_port):
                first_status(port, *parts)

    everything()
    before = Held.by(worker.child.pid)
    everything()
    until(
        "connections are closed",
        lambda: Held.by(worker.child.pid).descriptors <= before.descriptors + DESCRIPTORS_SLACK,
    )
    assert Held.by(worker.child.pid).memory_mb < before.memory_mb + MEMORY_SLACK_MB


def test_no_hostile_request_was_taken_for_a_fault_of_the_worker(worker):
    with Client(worker.port) as client:
        metrics = client.ask("GET", "/metrics").body.decode()
        document = client.ask("GET", "/v2").body
    assert 'reason="malformed"' in metrics
    assert 'reason="internal"' not in metrics
    assert 'reason="execution_failed"' not in metrics
    assert json.loads(document)["name"] == "sekisho-worker"
