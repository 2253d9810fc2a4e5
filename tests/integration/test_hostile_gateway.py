import json
import re
import socket

import numpy as np
import pytest

from tests.integration.gateway_client import Client, Reply, exchange_raw, until
from tests.integration.gateway_models import ITEMS, USERS, ranking_scores
from tests.integration.gateway_stack import Stack, lines_of_errors
from tests.integration.hostile_http import HOSTILE_NAMES, REPLY_TIMEOUT_S, first_status, hostile_bytes, statuses
from tests.integration.hostile_inference import HOSTILE_BODIES, HostileBody, request
from tests.integration.steady_client import Held, SteadyClient, infer_basket

pytestmark = pytest.mark.integration

PREDICT, GOOD = "/v1/models/ranking:predict", b'{"entities":{"user":"u1","item":"i1"}}'
INFER, INFER_LARGE = "/v2/models/basket/versions/1/infer", "/v2/models/ranking/versions/1/infer"
BASKET_BODY_BYTES_MAX = 65_536
LARGE_BODY_BYTES_MAX = 1 << 20
"""Of the routes of `basket` and `ranking`."""

HOSTILE_BYTES = hostile_bytes(PREDICT, GOOD)
REFUSALS = {400, 413, 415, 422}

ENDLESS_PARTS = 1_000
"""Of 60 KB: far more than anything may read on."""

DESCRIPTORS_SLACK, MEMORY_SLACK_MB = 3, 32.0


class System:
    """A whole system, and a client that asks its gateway all the time."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.gateway = stack, stack.gateway
        pairs = [(n % USERS, n % ITEMS) for n in range(1_000)]
        rows = stack.stored.rows(pairs)
        self._scores = {version: ranking_scores(stack.repository, version, rows) for version in "12"}
        self.steady = SteadyClient(self.gateway.port, self._ask)

    def _ask(self, client: Client, number: int) -> str | None:
        if number % 2:
            return infer_basket(client, number, INFER)
        entities = {"user": f"u{number % USERS}", "item": f"i{number % ITEMS}"}
        reply = client.predict("ranking", {"entities": entities})
        if reply.status != 200 or reply.json["degraded"]:
            return f"{number}: {reply.status} {reply.body[:200]!r}"
        expected = self._scores[reply.json["version"]][number]
        return (
            None if np.isclose(reply.json["predictions"][0], expected, rtol=0, atol=1e-6) else f"{number}: {reply.json}"
        )

    def held(self) -> Held:
        return Held.by(self.gateway.child.pid)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start()
        running = System(stack)
        with running.steady:
            yield running
    finally:
        stack.stop()


@pytest.fixture(autouse=True)
def _nobody_else_is_harmed(system):
    yield
    system.steady.check()
    assert system.gateway.child.ended() is None
    assert lines_of_errors(system.stack.directory / "gateway-0.log") == []
    for name, worker in system.stack.workers.items():
        assert worker.ended() is None
        assert lines_of_errors(system.stack.directory / f"worker-{name}.log") == []


def path_for(hostile: HostileBody) -> str:
    return INFER if len(hostile.body) < BASKET_BODY_BYTES_MAX else INFER_LARGE


def answer_to(system: System, hostile: HostileBody) -> Reply | None:
    """Send a hostile body; None where the connection was cut while there was still more than is taken to send."""
    try:
        with Client(system.gateway.port) as client:
            return client.ask("POST", path_for(hostile), hostile.body, hostile.headers)
    except ConnectionError:
        if len(hostile.body) > LARGE_BODY_BYTES_MAX:
            return None
        raise


@pytest.mark.parametrize("hostile", HOSTILE_BODIES, ids=lambda hostile: hostile.claim)
def test_a_hostile_inference_is_refused_with_an_error_that_names_the_fault(system, hostile):
    reply = answer_to(system, hostile)
    if reply is None:
        return
    assert reply.status in REFUSALS, reply.body[:500]
    assert list(reply.json) == ["error"]
    assert len(reply.body) < 2_000
    if reply.status in {400, 422} and path_for(hostile) == INFER:
        assert re.search(hostile.says, reply.json["error"]), reply.json["error"][:500]


@pytest.mark.parametrize("claim", HOSTILE_BYTES)
def test_bytes_that_are_no_http_are_refused_or_cut_off_on_either_port(system, claim):
    for port in (system.gateway.port, system.gateway.admin_port):
        status = first_status(port, *HOSTILE_BYTES[claim])
        assert status is None or 400 <= status < 500 or status == 505


@pytest.mark.parametrize("endless", [b"x: " + b"a" * 65_000, b"a: b\r\n" * 10_000], ids=["trailer", "trailers"])
def test_trailers_without_end_are_cut_off_on_either_port(system, endless):
    chunked = b"POST /v1/nothing HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    for port in (system.gateway.port, system.gateway.admin_port):
        with socket.create_connection(("127.0.0.1", port), timeout=REPLY_TIMEOUT_S) as connection:
            connection.sendall(chunked)
            with pytest.raises(ConnectionError):
                connection.sendall(endless * ENDLESS_PARTS)


def test_an_encoded_path_has_the_limits_of_the_route_that_it_names(system):
    body = b'{"entities":{"user":"u1"}}'.ljust(BASKET_BODY_BYTES_MAX + 1)
    for path in ("/v1/models/basket:predict", "/v1/models/bask%65t:predict", "/v2/models/bask%65t/infer"):
        with Client(system.gateway.port) as client:
            assert client.post(path, body).status == 413
    counted = re.search(r'sekisho_errors_total\{code="body_too_large"\} (\S+)', system.gateway.metrics())
    assert counted is not None
    assert float(counted[1]) >= 3


DATA_PATHS = [
    ("POST", "/v1/models/{name}:predict"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/ready"),
    ("POST", "/v2/models/{name}/infer"),
    ("POST", "/v2/models/basket/versions/{name}/infer"),
]
ADMIN_PATHS = [
    ("GET", "/admin/v1/experiments/{name}"),
    ("GET", "/admin/v1/experiments/{name}/explain?unit=u1"),
    ("GET", "/admin/v1/experiments/ranking-lightgbm/explain?unit={name}"),
]


@pytest.mark.parametrize(("method", "path"), DATA_PATHS)
def test_a_name_that_climbs_or_is_no_text_is_not_served(system, method, path):
    for name in HOSTILE_NAMES:
        with Client(system.gateway.port) as client:
            reply = client.ask(method, path.format(name=name), request() if method == "POST" else None)
        assert reply.status in {400, 404, 405}, (name, reply.body[:300])
        assert len(reply.body) < 2_000, name


@pytest.mark.parametrize(("method", "path"), ADMIN_PATHS)
def test_a_name_that_climbs_or_is_no_text_harms_no_administration(system, method, path):
    for name in HOSTILE_NAMES:
        with Client(system.gateway.admin_port) as client:
            reply = client.ask(method, path.format(name=name))
        assert reply.status < 500, (name, reply.body[:300])
        assert "/{name}" not in path or reply.status in {400, 404, 405}, (name, reply.body[:300])


def test_rows_that_only_a_worker_refuses_touch_nobody_who_shares_their_batch(system):
    (poison,) = (hostile for hostile in HOSTILE_BODIES if hostile.claim == "a string that is not UTF-8")
    headers = "".join(f"{name}: {value}\r\n" for name, value in poison.headers.items())
    head = f"POST {INFER} HTTP/1.1\r\nhost: h\r\n{headers}content-length: {len(poison.body)}\r\n"
    one, last = ((head + end).encode() + poison.body for end in ("\r\n", "connection: close\r\n\r\n"))
    answered = system.steady.answers
    while system.steady.answers < answered + 20:
        assert 200 not in statuses(system.gateway.port, one * 10 + last)


def test_500_requests_at_once_on_one_connection_are_answered_in_their_order(system):
    def ask(name: str, last: bool) -> bytes:
        closes = "connection: close\r\n" if last else ""
        head = (
            f"POST {PREDICT} HTTP/1.1\r\nhost: h\r\nx-request-id: {name}\r\n{closes}content-length: {len(GOOD)}\r\n\r\n"
        )
        return head.encode() + GOOD

    sent = b"".join(ask(f"r{i}", i == 499) for i in range(500))
    reply = exchange_raw(system.gateway.port, sent, timeout_s=30)
    assert re.findall(rb"x-request-id: (r\d+)", reply) == [b"r%d" % i for i in range(500)]
    assert set(re.findall(rb"HTTP/1\.1 (\d+)", reply)) == {b"200"}


def test_a_request_of_http_0_9_is_told_which_versions_are_spoken_and_its_connection_closed(system):
    assert statuses(system.gateway.port, b"GET /v2/health/live\r\n\r\n") == [505]


def test_callers_that_hang_up_half_way_leave_no_connection_and_nothing_in_flight(system):
    good = f"POST {PREDICT} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    before = system.held()
    for port in (system.gateway.port, system.gateway.admin_port):
        for sent in (good[:10], good[:60], good[:-1], good):
            for _ in range(15):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(sent)
    until("connections are closed", lambda: system.held().descriptors <= before.descriptors + DESCRIPTORS_SLACK)
    # The steady client's own may be under way.
    until("nothing else is in flight", lambda: system.gateway.admin("/admin/v1/status")["requests_in_flight"] <= 1)


def test_all_of_it_once_more_takes_no_descriptor_and_no_memory(system):
    def everything() -> None:
        for hostile in HOSTILE_BODIES:
            answer_to(system, hostile)
        for parts in HOSTILE_BYTES.values():
            for port in (system.gateway.port, system.gateway.admin_port):
                first_status(port, *parts)

    everything()
    before = system.held()
    everything()
    until("connections are closed", lambda: system.held().descriptors <= before.descriptors + DESCRIPTORS_SLACK)
    assert system.held().memory_mb < before.memory_mb + MEMORY_SLACK_MB


def test_no_hostile_request_was_taken_for_a_fault_of_the_gateway(system):
    assert 'sekisho_errors_total{code="internal_error"}' not in system.gateway.metrics()
    with Client(system.gateway.port) as client:
        assert json.loads(client.ask("GET", "/v2").body)["name"] == "sekisho-gateway"
