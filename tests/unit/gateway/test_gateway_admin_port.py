import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request

from gateway.access.gate import AccessGate
from gateway.access.key_ring import key_ring
from gateway.access.keys_file import KeyEntry, Scope
from gateway.access.new_key import digest_of
from gateway.edge.admin_access import guarded
from gateway.edge.admin_port import AdminPort
from http_server.exchange import Exchange

KEYS = {scope: f"sk_{scope.value.ljust(43, '0')}" for scope in Scope}


def application() -> FastAPI:
    app = FastAPI(redoc_url=None)

    @app.get("/healthz")
    @app.get("/readyz")
    @app.get("/metrics")
    @app.get("/admin/v1/status")
    @app.get("/admin/v1/experiments")
    @app.put("/admin/v1/experiments/{name}")
    @app.get("/admin/v1/experimentsx")
    @app.get("/boom")
    async def seen(request: Request) -> dict[str, Any]:
        if request.url.path == "/boom":
            raise ValueError("boom")
        return {
            "actor": getattr(request.state, "actor", None),
            "headers": request.headers.getlist("x-sekisho-actor"),
        }

    return app


def gate(**fields: Any) -> AccessGate:
    entries = [
        KeyEntry(name=scope.value, sha256=digest_of(key.encode()).hex(), scopes=(scope,), **fields)
        for scope, key in KEYS.items()
    ]
    return AccessGate(key_ring(entries, 1, 0.0), lambda: 0.0, lambda: 0.0, lambda _key, _outcome: None)


def ask(
    path: str, scope: Scope | None = None, *, locked: AccessGate | None, method: str = "GET", actor: bytes | None = None
) -> tuple[int, dict[bytes, bytes], Any]:
    headers = [] if scope is None else [(b"authorization", f"Bearer {KEYS[scope]}".encode())]
    if actor is not None:
        headers += [(b"x-sekisho-actor", actor)] * 2

    async def run() -> tuple[bytes, bytes]:
        port = AdminPort(guarded(application(), locked, lambda: "made"), lambda: "made")
        answered: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        port.serve(
            Exchange(
                method, path.encode(), headers, dict(headers), b"", True,
                lambda _exchange, head, body: answered.set_result((head, body)),
            )
        )  # fmt: skip
        return await answered

    head, body = asyncio.run(run())
    first, *lines = head.split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines if line)
    return int(first.split()[1]), fields, json.loads(body)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_health_and_metrics_need_no_key(path: str):
    assert ask(path, locked=gate())[0] == 200


@pytest.mark.parametrize(
    "path", ["/admin/v1/status", "/admin/v1/experiments", "/openapi.json", "/docs", "/nothing", "/healthz/", "/Metrics"]
)
def test_everything_else_needs_a_key_even_what_is_not_there(path: str):
    status, headers, body = ask(path, locked=gate())
    assert (status, headers[b"www-authenticate"], body["code"]) == (401, b"Bearer", "unauthenticated")
    assert (headers[b"content-type"], headers[b"x-request-id"]) == (b"application/problem+json", b"made")


ALLOWED = {
    ("/admin/v1/status", Scope.ADMIN): 200,
    ("/admin/v1/status", Scope.EXPERIMENT): 403,
    ("/admin/v1/status", Scope.PREDICT): 403,
    ("/admin/v1/experiments", Scope.ADMIN): 200,
    ("/admin/v1/experiments", Scope.EXPERIMENT): 200,
    ("/admin/v1/experiments", Scope.OUTCOME): 403,
    ("/admin/v1/experimentsx", Scope.EXPERIMENT): 403,
    ("/admin/v1/experiments/../status", Scope.EXPERIMENT): 404,
    ("/admin/v1/%65xperiments", Scope.EXPERIMENT): 200,
}


@pytest.mark.parametrize(("path", "scope"), ALLOWED, ids=str)
def test_a_key_opens_what_its_scope_names(path: str, scope: Scope):
    assert ask(path, scope, locked=gate())[0] == ALLOWED[path, scope]


def test_the_actor_of_a_change_is_the_key_whatever_the_request_says():
    _, _, body = ask("/admin/v1/experiments/a", Scope.EXPERIMENT, locked=gate(), method="PUT", actor=b"someone else")
    assert body == {"actor": "experiment", "headers": ["experiment"]}


def test_without_keys_everything_is_open_and_the_actor_is_who_the_request_says():
    status, _, body = ask("/admin/v1/experiments/a", locked=None, method="PUT", actor=b"ann")
    assert (status, body) == (200, {"actor": None, "headers": ["ann", "ann"]})


def test_the_rate_of_a_key_holds_on_the_admin_port_too():
    locked = gate(requests_per_s=0.1, burst=1)
    assert ask("/admin/v1/status", Scope.ADMIN, locked=locked)[0] == 200
    status, headers, body = ask("/admin/v1/status", Scope.ADMIN, locked=locked)
    assert (status, headers[b"retry-after"], body["code"]) == (429, b"10", "rate_limited")


def test_a_fault_of_the_application_is_told_as_no_more_than_that():
    status, _, body = ask("/boom", locked=None)
    assert (status, body["code"]) == (500, "internal_error")
    assert "boom" not in json.dumps(body)


def test_what_never_became_a_request_is_refused_as_a_problem_document():
    async def run() -> tuple[bytes, bytes]:
        return AdminPort(application(), lambda: "made").refusal(503, "full", b"/", [])

    head, body = asyncio.run(run())
    assert b"retry-after: 1\r\n" in head
    assert json.loads(body)["code"] == "overloaded"
