import json
import os
import re
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.gateway_client import Client, exchange_raw, until
from tests.integration.gateway_stack import lines_of_errors

pytestmark = pytest.mark.integration

RANKING, BASKET = "/v1/models/ranking:predict", "/v1/models/basket:predict"
GOOD = {"entities": {"user": "u1", "item": "i1"}}
GOOD_BASKET = {"entities": {"user": "u1"}, "features": {"hour": 1}}
RAW_GOOD = (
    b"POST /v1/models/ranking:predict HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
    b"content-length: 38\r\n\r\n" + b'{"entities":{"user":"u1","item":"i1"}}'
)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong request, and the status, code and field of the answer to it."""

    claim: str
    status: int
    code: str
    field: str | None
    body: Any
    path: str = RANKING
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def basket(**changes: Any) -> dict[str, Any]:
    return {**GOOD_BASKET, **changes}


def hour(value: Any) -> dict[str, Any]:
    return basket(features={"hour": value})


def literal_hour(text: bytes) -> bytes:
    return b'{"entities": {"user": "u1"}, "features": {"hour": %b}}' % text


def user(value: Any) -> dict[str, Any]:
    return {"entities": {"user": value, "item": "i1"}}


MALFORMED, INVALID = "malformed_request", "invalid_request"
WRONG = [
    Wrong("broken JSON", 400, MALFORMED, None, b'{"entities": {'),
    Wrong("a body that is not UTF-8", 400, MALFORMED, None, b'{"unit": "\xff\xfe"}'),
    Wrong("an empty body", 400, MALFORMED, None, b""),
    Wrong("more after the document", 400, MALFORMED, None, b"{} {}"),
    Wrong("a JSON array", 422, INVALID, None, []),
    Wrong("a JSON number", 422, INVALID, None, 7),
    Wrong("an unknown model", 404, "unknown_model", "model", GOOD, "/v1/models/nothing:predict"),
    Wrong("a model name that climbs", 404, "unknown_model", "model", GOOD, "/v1/models/../ranking:predict"),
    Wrong("an unknown path", 404, "unknown_path", None, GOOD, "/v1/predict"),
    Wrong("a wrong method", 405, "method_not_allowed", None, GOOD, method="PUT"),
    Wrong("a wrong method of a page", 405, "method_not_allowed", None, GOOD, "/v1/models"),
    Wrong("an unknown field", 422, INVALID, None, {**GOOD, "entites": {}}),
    Wrong("an unknown entity kind", 422, "unknown_entity", "entities.shop", {"entities": {"user": "u1", "shop": "s"}}),
    Wrong(
        *("an unknown entity kind of an instance", 422, "unknown_entity", "instances[1].entities.shop"),
        {"entities": {"user": "u1"}, "instances": [{}, {"entities": {"shop": "s"}}]},
    ),
    Wrong("a missing entity", 422, "missing_entity", "entities.item", {"entities": {"user": "u1"}}),
    Wrong(
        *("a missing entity of an instance", 422, "missing_entity", "instances[1].entities.item"),
        {"entities": {"user": "u1"}, "instances": [{"entities": {"item": "i1"}}, {}]},
    ),
    Wrong("an entity that is a list", 422, INVALID, "entities.user", user(["u1"])),
    Wrong("an entity that is a float", 422, INVALID, "entities.user", user(1.5)),
    Wrong("an entity that is true", 422, INVALID, "entities.user", user(True)),
    Wrong("an entity that is null", 422, INVALID, "entities.user", user(None)),
    Wrong("a huge number as an entity", 422, INVALID, "entities.user", user(1 << 70)),
    Wrong("an empty entity id", 422, INVALID, "entities.user", user("")),
    Wrong("an entity id that is too long", 422, INVALID, "entities.user", user("é" * 129)),
    Wrong("an entity id with a lone surrogate", 400, MALFORMED, None, b'{"entities": {"user": "\\ud800"}}'),
    Wrong("entities that are a list", 422, INVALID, "entities", {"entities": []}),
    Wrong(
        *("a wrong entity of an instance", 422, INVALID, "instances[1].entities.item"),
        {"entities": {"user": "u1"}, "instances": [{"entities": {"item": "i1"}}, {"entities": {"item": {}}}]},
    ),
    Wrong("an unknown feature", 422, "unknown_feature", "features.f9", {**GOOD, "features": {"f9": 1}}),
    Wrong(
        *("a stored feature that the route does not let a request replace", 422, "unknown_feature"),
        *("features.user_profile:f1", basket(features={"hour": 1, "user_profile:f1": 2}), BASKET),
    ),
    Wrong("a missing request feature", 422, "missing_feature", "features.hour", {"entities": {"user": "u1"}}, BASKET),
    Wrong("a string for a number", 422, "wrong_feature_type", "features.hour", hour("13"), BASKET),
    Wrong("true for a number", 422, "wrong_feature_type", "features.hour", hour(True), BASKET),
    Wrong("null for a number", 422, "wrong_feature_type", "features.hour", hour(None), BASKET),
    Wrong("a number that float32 has no room for", 422, "wrong_feature_type", "features.hour", hour(1e39), BASKET),
    Wrong(
        *("a wrong replacement of a stored feature", 422, "wrong_feature_type", "features.user_profile:f0"),
        *(basket(features={"hour": 1, "user_profile:f0": "much"}), BASKET),
    ),
    Wrong(
        *("a wrong request feature of an instance", 422, "wrong_feature_type", "instances[1].features.hour"),
        *(basket(instances=[{}, {"features": {"hour": []}}]), BASKET),
    ),
    Wrong("NaN", 400, MALFORMED, None, literal_hour(b"NaN"), BASKET),
    Wrong("Infinity", 400, MALFORMED, None, literal_hour(b"Infinity"), BASKET),
    Wrong("1e999", 422, INVALID, "features", literal_hour(b"1e999"), BASKET),
    Wrong("too many instances", 413, "too_many_instances", "instances", basket(instances=[{}] * 21), BASKET),
    Wrong("no instances", 422, INVALID, "instances", basket(instances=[]), BASKET),
    Wrong("instances that are no list", 422, INVALID, "instances", {**GOOD, "instances": {}}),
    Wrong("an instance that is no object", 422, INVALID, "instances[0]", {**GOOD, "instances": [7]}),
    Wrong("a body that is too large", 413, "body_too_large", None, b" " * 65_537, BASKET),
    Wrong("nesting ten thousand deep", 400, MALFORMED, None, literal_hour(b"[" * 10_000), BASKET),
    Wrong("a missing unit", 422, "missing_unit", "unit", {"entities": {"item": "i1"}}),
    Wrong(
        *("several units", 422, "missing_unit", "unit"),
        {"entities": {"item": "i1"}, "instances": [{"entities": {"user": "u1"}}, {"entities": {"user": "u2"}}]},
    ),
    Wrong("a unit that is an object", 422, INVALID, "unit", {**GOOD, "unit": {}}),
    Wrong("a unit that is a float", 422, INVALID, "unit", {**GOOD, "unit": 0.5}),
    Wrong("an empty unit", 422, INVALID, "unit", {**GOOD, "unit": ""}),
    Wrong("a unit that is too long", 422, INVALID, "unit", {**GOOD, "unit": "u" * 257}),
    *(
        Wrong(
            *(f"a timeout of {value!r}", 400, MALFORMED, "x-request-timeout-ms", GOOD),
            headers={"x-request-timeout-ms": value},
        )
        for value in ("-1", "0", "9" * 40, "soon", "1.5", "", "1e3")
    ),
    Wrong("an unknown priority", 400, MALFORMED, "x-priority", GOOD, headers={"x-priority": "urgent"}),
    Wrong(
        *("a forced variant that the route refuses", 403, "forced_variant_refused", "x-sekisho-variant", GOOD),
        headers={"x-sekisho-variant": "treatment"},
    ),
    Wrong(
        *("a forced variant that does not exist", 422, "unknown_variant", "x-sekisho-variant", GOOD_BASKET, BASKET),
        headers={"x-sekisho-variant": "placebo"},
    ),
    Wrong(
        *("a body that is said to be a form", 415, "unsupported_media_type", "content-type", GOOD),
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Wrong(
        *("a compressed body", 415, "unsupported_media_type", "content-encoding", GOOD),
        headers={"content-encoding": "gzip"},
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.claim)
def test_a_wrong_request_is_refused_with_a_problem_that_names_the_fault(client, gateway, wrong):
    body = wrong.body if isinstance(wrong.body, bytes) else json.dumps(wrong.body).encode()
    headers = {"content-type": "application/json", "x-request-id": "mine", **wrong.headers}
    reply = client.ask(wrong.method, wrong.path, body, headers)
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json
    assert (reply.status, problem["status"], problem["code"]) == (wrong.status, wrong.status, wrong.code), problem
    assert problem.get("field") == wrong.field, problem
    assert problem["request_id"] == "mine"
    assert problem["detail"]
    assert "Traceback" not in reply.body.decode()
    with gateway.client() as after:
        assert after.predict("ranking", GOOD).status == 200


def test_refusals_leave_the_connection_open_for_the_next_request(client):
    for wrong in (b"{", json.dumps(user(1.5)).encode()):
        assert client.post(RANKING, wrong).status in {400, 422}
        assert client.predict("ranking", GOOD).status == 200


def test_a_chunked_body_that_grows_too_large_is_refused_before_it_ends(gateway):
    head = b"POST /v1/models/basket:predict HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    reply = exchange_raw(gateway.port, head, *[chunk] * 5)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in reply


def test_a_declared_body_that_is_too_large_is_refused_before_any_of_it_is_sent(gateway):
    head = b"POST /v1/models/basket:predict HTTP/1.1\r\nhost: g\r\ncontent-length: 99999999999\r\n\r\n"
    reply = exchange_raw(gateway.port, head)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in reply


def test_a_chunked_body_is_as_good_as_a_declared_one(gateway):
    body = json.dumps(GOOD).encode()
    head = b"POST /v1/models/ranking:predict HTTP/1.1\r\nhost: g\r\nconnection: close\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)]
    assert exchange_raw(gateway.port, head, *chunks, b"0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


NONSENSE = {
    "garbage": [os.urandom(2_000)],
    "a TLS hello": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)],
    "a content length that is no number": [RAW_GOOD.replace(b": 38", b": many")],
    "a negative content length": [RAW_GOOD.replace(b": 38", b": -38")],
    "two content lengths": [RAW_GOOD.replace(b"content-length: 38", b"content-length: 38\r\ncontent-length: 39")],
    "a content length beside chunks": [RAW_GOOD.replace(b"host: ", b"transfer-encoding: chunked\r\nhost: ")],
    "a chunk size that is no number": [
        b"POST /v1/models/ranking:predict HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n"
    ],
    "a header that is too long": [b"GET /v1/models HTTP/1.1\r\nx: " + b"a" * (1 << 20) + b"\r\n\r\n"],
    "too many headers": [
        b"GET /v1/models HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(100_000)) + b"\r\n"
    ],
    "an address that is too long": [b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: g\r\n\r\n"],
    "a method of its own": [b"BREW /v1/models HTTP/1.1\r\nhost: g\r\n\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("claim", NONSENSE)
def test_nonsense_on_the_wire_is_refused_or_cut_off_and_the_process_lives(gateway, claim):
    for port in (gateway.port, gateway.admin_port):
        reply = exchange_raw(port, *NONSENSE[claim], timeout_s=3, half_close=True)
        assert reply == b"" or reply.split(b" ", 2)[1].startswith(b"4"), reply[:200]
    with gateway.client() as after:
        assert after.predict("ranking", GOOD).status == 200


@pytest.mark.parametrize("sent", [RAW_GOOD[:20], RAW_GOOD[:-10]], ids=["in the headers", "in the body"])
def test_a_client_that_hangs_up_half_way_leaves_nothing_in_flight(gateway, sent):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(sent)
    until("nothing is in flight", lambda: gateway.admin("/admin/v1/status")["requests_in_flight"] == 0)
    with gateway.client() as after:
        assert after.predict("ranking", GOOD).status == 200


def test_pipelined_requests_are_answered_in_order(gateway):
    other = RAW_GOOD.replace(b"ranking", b"nothing")
    last = RAW_GOOD.replace(b"host: gateway", b"host: gateway\r\nconnection: close")
    reply = exchange_raw(gateway.port, RAW_GOOD + other + RAW_GOOD + last)
    assert re.findall(rb"HTTP/1.1 (\d+)", reply) == [b"200", b"404", b"200", b"200"]


def test_no_wrong_request_reached_the_gateways_last_resort(stack, gateway):
    with Client(gateway.admin_port) as admin:
        assert 'sekisho_errors_total{code="internal_error"}' not in admin.ask("GET", "/metrics").body.decode()
    assert lines_of_errors(stack.directory / "gateway-0.log") == []
