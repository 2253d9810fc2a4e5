"""Experiments behind API keys: who may look, who may change, whose name is written down, and who may evaluate flags."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from tests.integration.experiments_admin import EXPERIMENTS, NEW, WHO, Admin, document, experimenting
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

PATH = f"{EXPERIMENTS}/halves"
SCOPES = {
    "analyst": {"scopes": ["experiment"]},
    "root": {"scopes": ["admin"]},
    "checkout": {"scopes": ["predict"]},
    "basket": {"scopes": ["predict"], "models": ["basket"]},
    "events": {"scopes": ["outcome"]},
    "slow": {"scopes": ["predict"], "requests_per_s": 0.05, "burst": 1},
}


def key_of(name: str) -> str:
    return "sk_" + name.ljust(43, "0")


def bearer(name: str | None) -> dict[str, str]:
    return {} if name is None else {"authorization": f"Bearer {key_of(name)}"}


def admin_as(gateway: Gateway, name: str | None) -> Admin:
    return Admin(gateway.admin_port, {**WHO, **bearer(name)})


@pytest.fixture(scope="module")
def locked(stack: Stack, tmp_path_factory) -> Iterator[Gateway]:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    keys = [{"name": n, "sha256": sha256(key_of(n).encode()).hexdigest(), **fields} for n, fields in SCOPES.items()]
    file.write_text(json.dumps({"keys": keys}), encoding="utf-8")  # JSON is YAML
    flags = ("--keys", str(file), "--shutdown-grace-s", "0")
    gateway = stack.start_gateway(*flags, wait=False, stored_experiments=True)
    stack.gateways.remove(gateway)

    def ready() -> bool:
        assert gateway.child.ended() is None, gateway.child.last_lines(20)
        try:
            return gateway.admin("/readyz")["status"] == "ok"
        except OSError:
            return False

    until("it is ready", ready)
    yield gateway
    gateway.child.stop()


@pytest.fixture
def open_admin(stack: Stack) -> Iterator[Admin]:
    """The admin port of a gateway without keys, on the same store."""
    with experimenting(stack.gateway_with_stored_experiments.admin_port) as admin:
        yield admin


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [(None, 401, "unauthenticated"), ("nobody", 401, "unauthenticated"), ("checkout", 403, "forbidden")],
)
def test_who_has_no_key_for_it_neither_reads_nor_changes_experiments(locked, open_admin, who, status, code):
    stranger = admin_as(locked, who)
    for method, path, content in (
        ("PUT", PATH, document("halves")),
        ("DELETE", PATH, None),
        ("PUT", "/admin/v1/kill-switch", {"model": "*", "on": True}),
        ("PUT", f"{PATH}/results", {}),
        ("GET", EXPERIMENTS, None),
        ("GET", f"{PATH}/explain?unit=u1", None),
        ("GET", "/admin/v1/explain?unit=u1", None),
        ("GET", f"{PATH}/guardrails", None),
        ("GET", "/admin/v1/audit", None),
    ):
        reply = stranger.ask(method, path, content, NEW)
        assert (reply.status, reply.json["code"]) == (status, code), path
    assert open_admin.get(EXPERIMENTS) == {}


@pytest.mark.parametrize("who", ["analyst", "root"])
def test_who_has_one_changes_them_under_the_keys_name_whatever_the_request_says(locked, open_admin, who):
    admin = admin_as(locked, who)
    etag = admin.create(document("halves")).headers["etag"]
    assert admin.ask("PUT", PATH, document("halves", enrol_bp=5), {"if-match": etag}).status == 200
    assert admin.ask("PUT", f"{PATH}/results", {}).json["actor"] == who
    entries = admin.get("/admin/v1/audit?limit=2")["entries"]
    assert [(entry["actor"], entry["reason"]) for entry in entries] == [(who, "a test")] * 2


def test_a_reason_is_asked_for_where_the_key_has_the_name(locked, open_admin):
    nameless = Admin(locked.admin_port, bearer("analyst"))
    reply = nameless.ask("PUT", PATH, document("halves"), NEW)
    assert (reply.status, reply.json["field"]) == (422, "x-sekisho-reason")
    assert nameless.ask("PUT", PATH, document("halves"), {**NEW, "x-sekisho-reason": "why not"}).status == 201
    assert open_admin.get("/admin/v1/audit?limit=1")["entries"][0]["actor"] == "analyst"


def test_an_experimenters_key_opens_nothing_else_of_the_admin_port(locked):
    for path in ("/admin/v1/status", "/admin/v1/models/ranking/default_version", "/openapi.json"):
        assert admin_as(locked, "analyst").ask("GET", path).status == 403


@pytest.mark.parametrize(
    ("who", "error", "message"),
    [
        ("checkout", None, None),
        ("analyst", None, None),
        (None, ErrorCode.GENERAL, "unauthorized"),
        ("events", ErrorCode.GENERAL, "forbidden"),
        ("basket", ErrorCode.GENERAL, "forbidden"),
    ],
)
def test_flags_are_evaluated_for_a_key_that_may_predict_or_experiment(locked, open_admin, who, error, message):
    revision = int(open_admin.create(document("halves", overrides={"u1": "treatment"})).json["revision"])
    until("the other gateway has it", lambda: admin_as(locked, "root").has(revision), 5)
    provider = OFREPProvider(f"http://127.0.0.1:{locked.port}", headers_factory=lambda: bearer(who))
    api.set_provider(provider, "locked")
    details = api.get_client("locked").get_string_details("halves", "in code", EvaluationContext("u1"))
    api.clear_providers()
    provider.session.close()
    assert (details.error_code, details.error_message) == (error, message)
    assert details.value == ("2" if error is None else "in code")


def test_flags_are_evaluated_as_often_as_the_key_may_ask(locked, open_admin):
    admin_as(locked, "analyst").create(document("halves"))
    provider = OFREPProvider(f"http://127.0.0.1:{locked.port}", headers_factory=lambda: bearer("slow"))
    api.set_provider(provider, "slow")
    flags = api.get_client("slow")
    assert flags.get_string_details("halves", "in code", EvaluationContext("u1")).error_code is None
    limited = flags.get_string_details("halves", "in code", EvaluationContext("u1"))
    assert (limited.value, limited.error_code) == ("in code", ErrorCode.GENERAL)
    assert "Rate limited, retry after: " in limited.error_message
    assert provider.retry_after is not None, "the client waits for as long as it is told"
    api.clear_providers()
    provider.session.close()
