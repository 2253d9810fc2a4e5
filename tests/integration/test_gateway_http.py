import re
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import Gateway

pytestmark = pytest.mark.integration

GOOD = {"entities": {"user": "u1", "item": "i1"}}
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

FAMILIES = {
    "http_server_request_duration_seconds": "histogram",
    "sekisho_stage_duration_seconds": "histogram",
    "sekisho_predictions": "counter",
    "sekisho_degraded": "counter",
    "sekisho_errors": "counter",
    "sekisho_requests_in_flight": "gauge",
    "sekisho_shed": "counter",
    "sekisho_log_rows_offered": "counter",
    "sekisho_log_rows_written": "counter",
    "sekisho_log_rows_dropped": "counter",
    "sekisho_log_rows_pending": "gauge",
    "sekisho_worker_connections": "gauge",
    "sekisho_worker_outstanding_rows": "gauge",
    "sekisho_dispatch_rows_waiting": "gauge",
    "sekisho_dispatch_batches": "counter",
    "sekisho_dispatch_rows": "counter",
    "sekisho_version_ready": "gauge",
    "sekisho_variant_weight": "gauge",
}


def test_a_request_id_is_echoed_on_success_and_refusal(client):
    assert client.predict("ranking", GOOD, {"x-request-id": "abc-123"}).headers["x-request-id"] == "abc-123"
    refused = client.predict("ranking", {}, {"x-request-id": "abc-124"})
    assert refused.headers["x-request-id"] == refused.json["request_id"] == "abc-124"


@pytest.mark.parametrize("given", [None, "", "a" * 129, "a b", "<script>"])
def test_a_request_id_is_made_where_none_or_no_plain_one_is_given(client, given):
    reply = client.predict("ranking", GOOD, {} if given is None else {"x-request-id": given})
    assert UUID7.fullmatch(reply.headers["x-request-id"])


def test_prediction_ids_are_unique_uuids_of_version_7_that_rise_with_time(client):
    ids = []
    for _ in range(5):
        ids.append(client.predict("ranking", GOOD).json["prediction_id"])
        now_ms = time.time_ns() // 1_000_000
        until("the next millisecond", lambda now_ms=now_ms: time.time_ns() // 1_000_000 > now_ms)
    assert all(UUID7.fullmatch(prediction_id) for prediction_id in ids)
    assert ids == sorted(set(ids))


def test_server_timing_names_every_stage_and_adds_up(client):
    begun = time.perf_counter()
    timing = client.predict("ranking", GOOD).headers["server-timing"]
    seen_ms = (time.perf_counter() - begun) * 1000
    stages = {name: float(value) for name, value in re.findall(r"(\w+);dur=([0-9.]+)", timing)}
    assert set(stages) == {"features", "queue", "infer", "total"}
    parts = stages["features"] + stages["queue"] + stages["infer"]
    assert parts == pytest.approx(stages["total"], abs=0.01)
    assert 0 < stages["total"] <= seen_ms


def test_a_timeout_that_is_shorter_than_the_answer_takes_is_answered_504(client):
    many = {"entities": {"user": "u1"}, "instances": [{"entities": {"item": f"i{n}"}} for n in range(1_000)]}
    reply = client.predict("ranking", many, {"x-request-timeout-ms": "1"})
    assert (reply.status, reply.json["code"]) == (504, "deadline_exceeded")
    assert client.predict("ranking", many, {"x-request-timeout-ms": "1500"}).status == 200


def test_the_content_type_is_json_with_or_without_parameters_or_left_out(client):
    body = b'{"entities": {"user": "u1", "item": "i1"}}'
    for headers in ({}, {"content-type": "application/json; charset=utf-8"}, {"content-type": "Application/JSON"}):
        reply = client.ask("POST", "/v1/models/ranking:predict", body, headers)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


def test_metrics_parse_and_have_the_documented_families(client, gateway):
    client.predict("ranking", GOOD)
    client.predict("ranking", {})
    client.predict("ranking", {"entities": {"user": "nobody", "item": "i1"}})
    families = {family.name: family for family in text_string_to_metric_families(gateway.metrics())}
    assert {name: families[name].type for name in FAMILIES} == FAMILIES
    for name, family in families.items():
        if family.type == "histogram":
            assert any(sample.name == f"{name}_bucket" and sample.labels["le"] == "+Inf" for sample in family.samples)


def test_metrics_count_what_was_asked(client, gateway):
    def counts() -> tuple[float, float]:
        families = list(text_string_to_metric_families(gateway.metrics()))
        samples = [sample for family in families for sample in family.samples]
        scored = sum(
            s.value for s in samples if s.name == "sekisho_predictions_total" and s.labels["model"] == "basket"
        )
        route = {"http_route": "/v1/models/{model}:predict", "http_response_status_code": "422"}
        refused = sum(
            s.value
            for s in samples
            if s.name == "http_server_request_duration_seconds_count" and route.items() <= s.labels.items()
        )
        return scored, refused

    scored, refused = counts()
    request = {"entities": {"user": "u1"}, "features": {"hour": 1}, "instances": [{}] * 3}
    assert client.predict("basket", request).status == 200
    assert client.predict("basket", {}).status == 422
    assert counts() == (scored + 3, refused + 1)


def test_callers_cannot_make_new_metric_series(client, gateway):
    for n in range(20):
        client.predict(f"made-up-{n}", GOOD)
        client.predict("ranking", {"entities": {"user": "u1", f"kind-{n}": "x"}})
    assert not re.search(r"made-up|kind-", gateway.metrics())


def test_the_openapi_document_lists_the_bare_routes(client):
    document = client.ask("GET", "/openapi.json").json
    assert {"/v1/models/{model}:predict", "/v1/outcomes", "/v1/models"} <= set(document["paths"])
    predict = document["paths"]["/v1/models/{model}:predict"]["post"]
    assert {"200", "404", "413", "422", "503", "504"} <= set(predict["responses"])
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', client.ask("GET", "/openapi.json").body.decode()))
    assert references <= set(document["components"]["schemas"])


def test_the_admin_pages_are_not_served_on_the_data_port(client):
    for path in ("/metrics", "/admin/v1/status", "/admin/v1/experiments", "/readyz", "/healthz"):
        assert client.ask("GET", path).status == 404


def test_the_model_pages_describe_what_is_served(client):
    assert [model["name"] for model in client.ask("GET", "/v1/models").json] == ["ranking", "basket"]
    expected = {"name": "ranking", "ready": True, "default_version": "1", "versions": ["1", "2"]}
    assert client.ask("GET", "/v1/models/ranking").json == expected


def test_a_gateway_whose_worker_is_away_is_not_ready_and_says_so_with_retry_after(stack, tmp_path):
    models = tmp_path / "models.yaml"
    models.write_text(
        'models: {ranking: {unit: user, default_version: "1", versions: {"1": {workers: ["http://127.0.0.1:9"]}}}}'
    )
    (tmp_path / "experiments").mkdir()
    flags = ["--config", str(models), "--experiments", str(tmp_path / "experiments")]
    gateway = stack.start_gateway(*flags, wait=False)
    try:
        with Client(gateway.admin_port) as admin, gateway.client() as client:
            until("it answers", lambda: _listens(gateway.admin_port))
            not_ready = admin.ask("GET", "/readyz")
            assert (not_ready.status, not_ready.json["status"]) == (503, "not ready")
            assert "ranking@1" in not_ready.json["detail"]
            assert admin.ask("GET", "/healthz").status == 200
            refused = client.predict("ranking", GOOD)
            assert (refused.status, refused.json["code"]) == (503, "model_not_ready")
            assert int(refused.headers["retry-after"]) >= 1
    finally:
        gateway.child.stop()


def test_a_draining_gateway_is_not_ready_yet_answers_and_asks_clients_to_leave(stack):
    gateway = stack.start_gateway("--shutdown-grace-s", "3")
    with Client(gateway.admin_port) as admin, gateway.client() as client:
        stopping = threading.Thread(target=gateway.child.stop)
        stopping.start()
        reply = until("it drains", lambda: _status(admin, "/readyz", 503))
        assert reply.json["status"] == "draining"
        answered = client.predict("ranking", GOOD)
        assert (answered.status, answered.headers["connection"]) == (200, "close")
        outcome = {"unit": "u1", "metric": "purchase", "value": 1}
        accepted = client.post("/v1/outcomes", outcome)
        assert (accepted.status, accepted.headers.get("connection")) == (202, "close")
    stopping.join()
    assert gateway.child.ended() == "exit code 0"


def _status(client: Client, path: str, status: int):
    reply = client.ask("GET", path)
    return reply if reply.status == status else None


def _listens(port: int) -> bool:
    try:
        with Client(port) as client:
            return client.ask("GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(gateway: Gateway, protocol: str, name: str):
    headers = {"connection": "Upgrade, HTTP2-Settings", name: protocol, "http2-settings": "AAMAAABk"}
    with gateway.client() as client:
        assert client.predict("ranking", {"entities": {"user": "u1", "item": "i1"}}, headers).status == 200
