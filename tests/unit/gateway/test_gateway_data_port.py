"""What the data port says of a request by its head alone, while its body is still to come."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.access.gate import AccessGate
from gateway.access.key_ring import key_ring
from gateway.access.keys_file import KeyEntry, Scope
from gateway.access.new_key import digest_of
from gateway.edge.control_api import admin_api, data_api
from gateway.edge.data_port import BODY_BYTES_UNREAD, DataPort
from gateway.edge.inference_route import InferenceRoute
from gateway.edge.outcomes_route import BODY_BYTES_MAX, OutcomesRoute
from gateway.edge.predict_route import PredictRoute
from gateway.metrics import GatewayMetrics
from gateway.routes_file import BODY_BYTES_DEFAULT
from http_server.asgi import answer_of
from http_server.exchange import Exchange

PREDICT, INFER, OUTCOMES = "/v1/models/churn:predict", "/v2/models/churn/infer", "/v1/outcomes"
VERSION, OFREP = "/v2/models/churn/versions/1/infer", "/ofrep/v1/evaluate/flags/f"
MODEL_BYTES_MAX = 12_345
KEY = f"sk_{'k' * 43}"


class Port:
    """A port with one model and one key, on a clock that stands."""

    def __init__(self, *, keys: bool = True, **fields: Any) -> None:
        self.counted: list[tuple[str, str]] = []
        entry = KeyEntry(name="k", sha256=digest_of(KEY.encode()).hex(), **{"scopes": (Scope.PREDICT,), **fields})
        gate = AccessGate(
            key_ring([entry], 1, 0.0),
            lambda: 0.0,
            lambda: 0.0,
            lambda name, outcome: self.counted.append((name, outcome)),
        )
        self.gate = gate if keys else None
        limits = SimpleNamespace(body_bytes_max=MODEL_BYTES_MAX)
        models: Any = {"churn": SimpleNamespace(name="churn", route=SimpleNamespace(limits=limits))}
        metrics = GatewayMetrics(CollectorRegistry())
        common = (metrics, lambda: "made", lambda: 0)
        none: Any = None
        predict = PredictRoute(models, none, none, *common, self.gate)
        inference = InferenceRoute(models, none, *common, "1", self.gate)
        outcomes = OutcomesRoute(none, *common, self.gate)

        async def port() -> DataPort:
            return DataPort(models, predict, inference, outcomes, none, metrics, lambda: "made")

        self.port = asyncio.run(port())

    def refused(self, path: str, method: str = "POST", *, key: str | None = None, **headers: str) -> tuple[int, str]:
        """Status and code, or the protocol's error; 0 where the body is read."""
        fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        if key is not None:
            fields[b"authorization"] = f"Bearer {key}".encode()
        refusal = self.port.before_body(method, path.encode(), fields)
        if refusal is None:
            return 0, ""
        document = json.loads(refusal[2])
        assert b"x-request-id: made" in refusal[1]
        return refusal[0], document.get("code") or document["error"]


@pytest.mark.parametrize("path", [PREDICT, INFER, VERSION, OUTCOMES, OFREP, "/v1/models/nobody:predict"])
def test_without_a_key_no_body_is_read(path: str):
    status, told = Port().refused(path)
    assert (status, told == "unauthenticated" or "API key" in told) == (401, True)


@pytest.mark.parametrize("path", [PREDICT, INFER, VERSION, OFREP])
def test_with_a_key_it_is_read_and_nothing_is_counted_or_taken_of_its_rate_yet(path: str):
    port = Port(requests_per_s=1.0, burst=1)
    assert [port.refused(path, key=KEY) for _ in range(3)] == [(0, "")] * 3
    assert port.counted == []
    assert port.gate is not None
    port.gate.admit({b"authorization": f"Bearer {KEY}".encode()}, (Scope.PREDICT,))
    assert port.refused(path, key=KEY)[0] == 429
    assert port.counted == [("k", "admitted"), ("k", "rate_limited")]


@pytest.mark.parametrize("path", [PREDICT, INFER, OUTCOMES, OFREP])
def test_a_key_without_the_scope_may_not_send(path: str):
    assert Port(scopes=(Scope.ADMIN,)).refused(path, key=KEY)[0] == 403


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_a_key_of_other_models_may_not_send(path: str):
    assert Port(models=("fraud",)).refused(path, key=KEY)[0] == 403


def test_what_the_route_would_refuse_whatever_is_sent_is_not_read():
    port = Port(keys=False)
    assert port.refused("/v1/models/nobody:predict") == (404, "unknown_model")
    assert port.refused("/v2/models/nobody/infer")[0] == 404
    assert port.refused(PREDICT, "PUT") == (405, "method_not_allowed")
    assert port.refused(INFER, "GET")[0] == 405
    assert port.refused(OUTCOMES, content_type="text/plain") == (415, "unsupported_media_type")
    assert port.refused(INFER, content_type="application/octet-stream") == (0, "")
    assert port.refused("/v1/models", "PUT") == (0, "")  # little is taken there, and read


@pytest.mark.parametrize(
    ("path", "bytes_max"),
    [
        (PREDICT, MODEL_BYTES_MAX),
        ("/v1/models/%63hurn:predict", MODEL_BYTES_MAX),
        (INFER, MODEL_BYTES_MAX),
        (VERSION, MODEL_BYTES_MAX),
        ("/v1/models/nobody:predict", BODY_BYTES_DEFAULT),
        (OUTCOMES, BODY_BYTES_MAX),
        (OFREP, BODY_BYTES_DEFAULT),
        ("/v2/models/churn", BODY_BYTES_UNREAD),
        ("/v2/models/churn/ready", BODY_BYTES_UNREAD),
        ("/openapi.json", BODY_BYTES_UNREAD),
        ("/nothing", BODY_BYTES_UNREAD),
    ],
)
def test_how_large_a_body_may_be_follows_from_who_reads_it(path: str, bytes_max: int):
    assert Port().port.body_bytes_max(path.encode()) == bytes_max


@pytest.mark.parametrize("which", ["data", "admin"])
def test_the_document_of_a_port_is_made_once(which: str, monkeypatch: pytest.MonkeyPatch):
    part: Any = SimpleNamespace(register=None, stored=None)
    app = data_api(part, lambda: "made", part, None) if which == "data" else admin_api(*[part] * 10)
    monkeypatch.setattr(type(app), "openapi", None)
    monkeypatch.setattr(app, "openapi", None)

    async def document() -> tuple[int, bytes, bytes]:
        return await answer_of(app, Exchange("GET", b"/openapi.json", [], {}, b"", True, lambda *_: None))

    status, head, body = asyncio.run(document())
    assert (status, b"content-type: application/json\r\n" in head) == (200, True)
    paths = json.loads(body)["paths"]
    assert {"data": "/v1/models/{model}:predict", "admin": "/readyz"}[which] in paths
