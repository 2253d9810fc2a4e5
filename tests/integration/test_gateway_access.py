"""Keys on both ports of a running gateway: who is let in, to what, how often, and how keys change while it serves."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway_client import Client, Reply, exchange_raw, until
from tests.integration.gateway_stack import ROOT, Gateway, Stack, lines_of_errors

pytestmark = pytest.mark.integration

RANKING = {"entities": {"user": "u1", "item": "i1"}}
BASKET = {"entities": {"user": "u9"}, "features": {"hour": 1}}
TENSORS = {"inputs": []}


def key_of(name: str) -> str:
    return "sk_" + name.replace(" ", "_").ljust(43, "0")


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key_of(name)}"}


@dataclass
class KeysFile:
    """A keys file that the test writes; each key is named for its entry."""

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, **entries: dict[str, Any]) -> None:
        self.entries = entries
        listed = [
            {"name": name, "sha256": sha256(key_of(name).encode()).hexdigest(), **fields}
            for name, fields in entries.items()
        ]
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"keys": listed}), encoding="utf-8")  # JSON is YAML
        new.replace(self.path)


EVERYONE: Mapping[str, dict[str, Any]] = {
    "checkout": {"scopes": ["predict", "outcome"]},
    "shop": {"scopes": ["predict"], "models": ["basket"]},
    "lab": {"scopes": ["predict"], "force_variant": True},
    "slow": {"scopes": ["predict"], "requests_per_s": 0.05, "burst": 2},
    "gone": {"scopes": ["predict"], "expires": "2020-01-01T00:00:00Z"},
    "events": {"scopes": ["outcome"]},
    "analyst": {"scopes": ["experiment"]},
    "root": {"scopes": ["admin"]},
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> KeysFile:
    file = KeysFile(tmp_path_factory.mktemp("keys") / "keys.yaml")
    file.write(**EVERYONE)
    return file


@pytest.fixture(scope="module")
def locked(stack: Stack, keys: KeysFile) -> Iterator[Gateway]:
    yield from started(stack, keys)


def started(stack: Stack, keys: KeysFile, *flags: str) -> Iterator[Gateway]:
    gateway = stack.start_gateway("--keys", str(keys.path), "--shutdown-grace-s", "0", *flags, wait=False)

    def ready() -> bool:
        assert gateway.child.ended() is None, gateway.child.last_lines(20)
        try:
            return asked(gateway.admin_port, "GET", "/readyz").status == 200
        except OSError:
            return False

    try:
        until("the gateway is ready", ready, 60)
        yield gateway
    finally:
        gateway.child.stop()


def asked(port: int, method: str, path: str, who: str | None = None, content: Any = None, **headers: str) -> Reply:
    with Client(port) as client:
        body = None if content is None else json.dumps(content).encode()
        given = {"content-type": "application/json", **(bearer(who) if who else {})}
        return client.ask(method, path, body, given | {name.replace("_", "-"): v for name, v in headers.items()})


def predicted(gateway: Gateway, who: str | None, model: str = "ranking", **headers: str) -> Reply:
    content = RANKING if model == "ranking" else BASKET
    return asked(gateway.port, "POST", f"/v1/models/{model}:predict", who, content, **headers)


def outcome(gateway: Gateway, who: str | None) -> Reply:
    return asked(gateway.port, "POST", "/v1/outcomes", who, {"unit": "u1", "metric": "bought", "value": 1})


@pytest.mark.parametrize("who", [None, "nobody", "gone"])
def test_who_has_no_key_in_force_is_not_authenticated(locked: Gateway, who: str | None):
    for reply in (predicted(locked, who), outcome(locked, who)):
        assert (reply.status, reply.json["code"]) == (401, "unauthenticated")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["content-type"] == "application/problem+json"


def test_a_key_opens_what_its_scopes_name(locked: Gateway):
    assert predicted(locked, "checkout").status == 200
    assert outcome(locked, "checkout").status == 202
    assert outcome(locked, "events").status == 202
    for refused in (predicted(locked, "events"), outcome(locked, "shop"), predicted(locked, "root")):
        assert (refused.status, refused.json["code"]) == (403, "forbidden")


def test_a_key_of_some_models_may_not_ask_others(locked: Gateway):
    assert predicted(locked, "shop", "basket").status == 200
    refused = predicted(locked, "shop", "ranking")
    assert (refused.status, refused.json["code"], refused.json["field"]) == (403, "forbidden", "model")


def test_the_inference_protocol_is_locked_in_its_own_form(locked: Gateway):
    for path in ("/v2/models/ranking/infer", "/v2/models/ranking/versions/1/infer"):
        refused = asked(locked.port, "POST", path, None, TENSORS)
        assert (refused.status, list(refused.json)) == (401, ["error"])
        assert refused.headers["www-authenticate"] == "Bearer"
        assert asked(locked.port, "POST", path, "shop", TENSORS).status == 403
        assert asked(locked.port, "POST", path, "checkout", TENSORS).status in {400, 422}  # it is read


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/ranking", "/openapi.json", "/v2", "/v2/health/live", "/v2/models/ranking"]
)
def test_documents_and_health_of_the_data_port_are_open(locked: Gateway, path: str):
    assert asked(locked.port, "GET", path).status == 200


def test_a_forced_variant_needs_leave_of_key_and_route(locked: Gateway):
    forced = {"x_sekisho_variant": "treatment"}
    refused = predicted(locked, "checkout", "basket", **forced)
    assert (refused.status, refused.json["code"]) == (403, "forced_variant_refused")
    assert predicted(locked, "lab", "basket", **forced).json["variant"] == "treatment"
    assert predicted(locked, "lab", "ranking", **forced).status == 403  # by its route


def test_a_key_that_asks_too_often_is_told_when_to_come_again(locked: Gateway):
    assert [predicted(locked, "slow").status for _ in range(2)] == [200, 200]
    limited = predicted(locked, "slow")
    assert (limited.status, limited.json["code"]) == (429, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 20
    assert predicted(locked, "checkout").status == 200


def test_two_authorizations_are_neither(locked: Gateway):
    lines = "".join(f"authorization: Bearer {key_of(who)}\r\n" for who in ("root", "checkout"))
    for port, path in ((locked.port, "/v1/models"), (locked.admin_port, "/admin/v1/status")):
        reply = exchange_raw(port, f"GET {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n".encode())
        assert reply.startswith(b"HTTP/1.1 400 "), reply[:100]


def test_the_admin_port_opens_experiments_to_analysts_and_the_rest_to_administrators(locked: Gateway):
    def status(path: str, who: str | None) -> int:
        return asked(locked.admin_port, "GET", path, who).status

    assert {status(path, None) for path in ("/healthz", "/readyz", "/metrics")} == {200}
    for path in ("/admin/v1/status", "/admin/v1/experiments", "/openapi.json"):
        assert (status(path, None), status(path, "checkout"), status(path, "root")) == (401, 403, 200)
    assert status("/admin/v1/experiments", "analyst") == 200
    assert status("/admin/v1/experiments/ranking-lightgbm", "analyst") == 200
    assert status("/admin/v1/status", "analyst") == 403


def test_requests_are_counted_by_key_and_no_key_is_in_the_log_or_the_metrics(locked: Gateway, stack: Stack):
    predicted(locked, "checkout")
    predicted(locked, "events")
    page = locked.metrics()
    for name, what in (("checkout", "admitted"), ("events", "forbidden"), ("slow", "rate_limited")):
        if name == "slow":
            [predicted(locked, name) for _ in range(3)]
            page = locked.metrics()
        assert re.search(rf'sekisho_key_requests_total{{key="{name}",outcome="{what}"}} [1-9]', page), (name, what)
    assert locked.child.log_file is not None
    assert "sk_" not in locked.child.log_file.read_text(encoding="utf-8") + page


def test_a_key_is_rotated_without_a_restart_and_without_a_refusal(locked: Gateway, keys: KeysFile):
    replies: list[int] = []
    try:
        keys.write(**EVERYONE, checkout_2={"scopes": ["predict"]})

        def successor_is_known() -> bool:
            replies.append(predicted(locked, "checkout").status)
            return predicted(locked, "checkout_2").status == 200

        until("the successor is let in", successor_is_known)
        rest = {name: fields for name, fields in EVERYONE.items() if name != "checkout"}
        keys.write(**rest, checkout_2={"scopes": ["predict"]})

        def predecessor_is_gone() -> bool:
            replies.append(predicted(locked, "checkout_2").status)
            return predicted(locked, "checkout").status == 401

        until("the predecessor is refused", predecessor_is_gone)
        assert set(replies) == {200}
    finally:
        keys.write(**EVERYONE)
        until("all is as before", lambda: predicted(locked, "checkout").status == 200)


def test_a_wrong_file_is_told_and_the_keys_before_it_stay(locked: Gateway, keys: KeysFile):
    def told() -> dict[str, Any]:
        return asked(locked.admin_port, "GET", "/admin/v1/status", "root").json["files"]["keys"]

    def in_force() -> float:
        found = re.search(r'sekisho_file_in_force{file="keys"} (\S+)', locked.metrics())
        assert found is not None
        return float(found[1])

    assert told() == {"in_force": True, "problem": None}
    until("the metric says so", lambda: in_force() == 1.0)
    try:
        keys.path.write_text("keys:\n  - name: x\n", encoding="utf-8")
        until("it is told", lambda: not told()["in_force"])
        assert re.search(r"keys\.yaml:2: .*sha256", told()["problem"])
        assert predicted(locked, "checkout").status == 200
        until("the metric says so", lambda: in_force() == 0.0)
    finally:
        keys.write(**EVERYONE)
    until("it is in force again", lambda: told()["in_force"])


def test_several_processes_ask_for_keys_on_both_ports_and_share_a_rate(stack: Stack, keys: KeysFile):
    for gateway in started(stack, keys, "--processes", "2"):
        assert asked(gateway.admin_port, "GET", "/metrics").status == 200
        assert asked(gateway.admin_port, "GET", "/admin/v1/status").status == 401
        assert asked(gateway.admin_port, "GET", "/admin/v1/status", "checkout").status == 403
        told = asked(gateway.admin_port, "GET", "/admin/v1/status", "root").json["processes"]
        assert len(told) == 2
        assert asked(gateway.admin_port, "GET", "/admin/v1/experiments", "analyst").status == 200
        for _ in range(8):  # a connection each: both processes are asked
            assert predicted(gateway, None).status == 401
            assert predicted(gateway, "checkout").status == 200
        begun = time.monotonic()
        statuses = [predicted(gateway, "slow").status for _ in range(12)]
        assert statuses.count(200) <= 2 + 0.05 * (time.monotonic() - begun)


def test_a_wrong_keys_file_at_the_start_is_told_with_its_line(stack: Stack, tmp_path: Path):
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n  - name: x\n    sha256: nonsense\n    scopes: [predict]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", stack.directory / "models.yaml", "--keys", file],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{file}:3: " in done.stderr


@pytest.mark.parametrize("port", ["port", "admin_port"])
def test_json_nested_ten_thousand_deep_is_refused_on_either_port(locked: Gateway, port: str):
    deep = b"[" * 10_000 + b"]" * 10_000
    for method, path in (("POST", "/v1/models/ranking:predict"), ("PUT", "/admin/v1/models/ranking/versions/1")):
        with Client(getattr(locked, port)) as client:
            who = "checkout" if port == "port" else "root"
            reply = client.ask(method, path, deep, {"content-type": "application/json", **bearer(who)})
        assert 400 <= reply.status < 500, reply.body[:300]
    assert locked.child.ended() is None


def test_a_json_key_that_comes_twice_counts_as_it_came_last(locked: Gateway):
    def score(body: bytes) -> list[float]:
        with Client(locked.port) as client:
            reply = client.post("/v1/models/ranking:predict", body, bearer("checkout"))
        assert reply.status == 200, reply.body
        return reply.json["predictions"]

    twice = b'{"entities": {"user": "u2", "item": "i2"}, "entities": {"user": "u1", "item": "i2", "item": "i1"}}'
    assert score(twice) == score(json.dumps(RANKING).encode())


def test_no_refusal_was_logged_as_an_error_but_that_of_the_wrong_file(locked: Gateway):
    assert locked.child.log_file is not None
    errors = lines_of_errors(locked.child.log_file)
    assert all("files were not taken" in line for line in errors), errors[:3]
