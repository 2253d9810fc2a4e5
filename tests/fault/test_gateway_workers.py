import os
import signal
import socket
import time
from collections import Counter

import duckdb
import pytest

from tests.fault.gateway_load import Asked, load, requests_by_variant
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway, Stack, lines_of_errors

pytestmark = pytest.mark.fault

DEADLINE_S = 2.0
TOLERANCE_S = 1.0


def kinds(asked: list[Asked]) -> Counter[str]:
    return Counter(a.kind for a in asked)


def restart(stack: Stack, name: str) -> None:
    stack.workers[name].stop()
    stack.start_worker(name)
    stack.wait_until_ready(stack.gateway)


def wait_until_whole(gateway: Gateway, requests: list[dict], model: str = "ranking") -> None:
    def whole() -> bool:
        with gateway.client() as client:
            replies = [client.predict(model, request) for request in requests]
        return all(reply.status == 200 and reply.json["degraded"] == [] for reply in replies)

    until("answers are whole again", whole)


def assert_nothing_is_left(gateway: Gateway) -> None:
    until("nothing is in flight", lambda: gateway.admin("/admin/v1/status")["requests_in_flight"] == 0)
    workers = [
        worker
        for model in gateway.admin("/admin/v1/status")["models"].values()
        for version in model["versions"].values()
        for worker in version["workers"].values()
    ]
    assert [worker["outstanding_rows"] for worker in workers] == [0] * len(workers)


def test_when_a_variants_worker_is_killed_the_default_version_answers_until_it_is_back(stack, gateway):
    treatment = requests_by_variant(stack)["treatment"]
    with load(gateway.port, treatment) as asking:
        asking.wait_for(100)
        os.kill(stack.workers["b"].pid, signal.SIGKILL)
        killed_at = time.monotonic()
        asking.wait_for(400)
    assert max(a.took_s for a in asking.asked) < DEADLINE_S + TOLERANCE_S
    assert set(kinds(asking.asked)) <= {"whole", "variant_fallback"}
    until_noticed_s = 1.0
    late = [a for a in asking.asked if a.begun > killed_at + until_noticed_s]
    assert set(kinds(late)) <= {"variant_fallback"}
    degraded = next(a.reply.json for a in asking.asked if a.kind == "variant_fallback")
    assert (degraded["version"], degraded["variant"], degraded["experiment"]) == ("1", None, "ranking-lightgbm")
    restart(stack, "b")
    wait_until_whole(gateway, treatment)
    assert_nothing_is_left(gateway)


def test_when_the_default_versions_worker_is_killed_the_static_score_answers_until_it_is_back(stack, gateway):
    control = requests_by_variant(stack)["control"]
    with load(gateway.port, control) as asking:
        asking.wait_for(100)
        os.kill(stack.workers["a"].pid, signal.SIGKILL)
        asking.wait_for(400)
    assert max(a.took_s for a in asking.asked) < DEADLINE_S + TOLERANCE_S
    assert set(kinds(asking.asked)) == {"whole", "static_score"}
    degraded = next(a.reply.json for a in asking.asked if a.kind == "static_score")
    assert (degraded["predictions"], degraded["version"], degraded["variant"]) == ([0.25], "static", None)
    restart(stack, "a")
    wait_until_whole(gateway, control)
    assert_nothing_is_left(gateway)


def test_when_nothing_is_left_to_fall_back_on_callers_are_told_when_to_come_again(stack, gateway):
    requests = [{"entities": {"user": f"u{n}"}, "features": {"hour": 1}} for n in range(16)]
    with load(gateway.port, requests, model="basket") as asking:
        asking.wait_for(100)
        os.kill(stack.workers["a"].pid, signal.SIGKILL)
        asking.wait_for(200)
    assert max(a.took_s for a in asking.asked) < DEADLINE_S + TOLERANCE_S
    assert set(kinds(asking.asked)) == {"whole", "503 worker_unavailable"}
    refused = next(a.reply for a in asking.asked if a.reply.status == 503)
    assert int(refused.headers["retry-after"]) >= 1
    restart(stack, "a")
    wait_until_whole(gateway, requests, "basket")
    assert_nothing_is_left(gateway)


def test_fallback_answers_are_logged_with_the_variant_as_drawn_and_the_fault(stack):
    gateway = stack.start_gateway("--shutdown-grace-s", "0")
    by_variant = requests_by_variant(stack, 5)
    try:
        for name in "ab":
            stack.workers[name].stop()
        until("both are noticed", lambda: _answers_statically(gateway, by_variant["treatment"][0]))
        stack.start_worker("a")
        wait_until_whole(gateway, by_variant["control"])
        with gateway.client() as client:
            replies = [client.predict("ranking", request).json for request in by_variant["treatment"]]
        assert [reply["degraded"] for reply in replies] == [["variant_fallback"]] * 5
    finally:
        restart(stack, "b")
        gateway.child.stop()
    rows = duckdb.sql(
        f"SELECT version, variant_served, error_code, degraded, count(*) FROM "
        f"read_parquet('{gateway.log_directory}/predictions/**/*.parquet', union_by_name=true) "
        f"WHERE variant_assigned = 'treatment' GROUP BY ALL"
    ).fetchall()
    by_version = {row[0]: row[1:] for row in rows}
    assert by_version["1"] == (None, "worker_unavailable", ["variant_fallback"], 5)
    assert by_version["static"][:3] == (None, "worker_unavailable", ["static_score"])


def test_a_stopped_worker_costs_its_own_callers_their_deadline_and_nobody_else_anything(stack, gateway):
    by_variant = requests_by_variant(stack)
    budget_s = 0.4
    headers = {"x-request-timeout-ms": str(int(budget_s * 1000))}
    os.kill(stack.workers["b"].pid, signal.SIGSTOP)
    try:
        with (
            load(gateway.port, by_variant["treatment"], headers=headers) as stalled,
            load(gateway.port, by_variant["control"]) as others,
        ):
            stalled.wait_for(24)
            others.wait_for(100)
    finally:
        os.kill(stack.workers["b"].pid, signal.SIGCONT)
    assert set(kinds(stalled.asked)) <= {"504 deadline_exceeded", "variant_fallback"}
    assert max(a.took_s for a in stalled.asked) < budget_s + TOLERANCE_S
    assert kinds(others.asked).keys() == {"whole"}
    assert max(a.took_s for a in others.asked) < DEADLINE_S
    wait_until_whole(gateway, by_variant["treatment"])
    assert_nothing_is_left(gateway)


def test_clients_that_hang_up_in_mid_request_harm_nobody(stack, gateway):
    body = b'{"entities":{"user":"u1","item":"i1"}}'
    whole = b"POST /v1/models/ranking:predict HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with load(gateway.port, requests_by_variant(stack)["control"]) as asking:
        for n in range(200):
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                connection.sendall(whole if n % 2 else whole[:-5])
        asking.wait_for(100)
    assert kinds(asking.asked).keys() == {"whole"}
    assert_nothing_is_left(gateway)


def test_no_fault_of_a_worker_made_the_gateway_log_an_error(stack):
    assert lines_of_errors(stack.directory / "gateway-0.log") == []


def _answers_statically(gateway: Gateway, request: dict) -> bool:
    with gateway.client() as client:
        return client.predict("ranking", request).json["degraded"] == ["static_score"]
