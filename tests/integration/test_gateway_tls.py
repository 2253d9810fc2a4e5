"""TLS on both ports of a running gateway, and mutual TLS between a gateway and its worker."""

import http.client
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settings.child_process import ChildProcess
from settings.tls import ClientTls, client_context
from tests.integration.gateway_client import CLIENT_TIMEOUT_S, exchange_raw, until
from tests.integration.gateway_stack import ROOT, Gateway, Stack, free_ports, lines_of_errors
from tests.unit.settings.certificates import Certificate, authority, signed

pytestmark = pytest.mark.integration

CA, STRANGER = authority("ca"), authority("stranger")
READY_TIMEOUT_S = 60.0
RANKING = json.dumps({"entities": {"user": "u1", "item": "i1"}})
JSON = {"content-type": "application/json"}


class Caller:
    """One keep-alive connection over TLS that trusts `ca`."""

    def __init__(self, port: int, directory: Path, ca: Certificate = CA, own: Certificate | None = None) -> None:
        certificate, key = own.write(directory) if own else (None, None)
        tls = ClientTls(ca=ca.write(directory)[0], certificate=certificate, key=key)
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=CLIENT_TIMEOUT_S, context=client_context(tls)
        )

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        self._connection.request(method, path, body, JSON)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content[:1] in {b"{", b"["} else content

    def serial(self) -> str:
        """Say which certificate the port showed this connection."""
        certificate = self._connection.sock.getpeercert()  # type: ignore[attr-defined] # it is a TLS socket
        return certificate["serialNumber"]

    def close(self) -> None:
        self._connection.close()


def asked(port: int, directory: Path, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    caller = Caller(port, directory)
    try:
        return caller.ask(method, path, body)
    finally:
        caller.close()


def secured(stack: Stack, directory: Path, *flags: str) -> Iterator[Gateway]:
    """Start a gateway with a certificate, and wait until it can answer."""
    certificate, key = signed("gateway", CA, "127.0.0.1").write(directory)
    tls = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    gateway = stack.start_gateway("--shutdown-grace-s", "0", *tls, *flags, wait=False)
    try:
        until("the gateway is ready", lambda: ready(gateway.child, gateway.admin_port, directory), READY_TIMEOUT_S)
        yield gateway
    finally:
        gateway.child.stop()


def ready(child: ChildProcess, port: int, directory: Path, path: str = "/readyz") -> bool:
    assert child.ended() is None, child.last_lines(20)
    try:
        return asked(port, directory, "GET", path)[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def gateway(stack: Stack, directory: Path) -> Iterator[Gateway]:
    yield from secured(stack, directory)


def test_both_ports_answer_over_tls_and_only_to_tls(gateway: Gateway, directory: Path):
    status, answer = asked(gateway.port, directory, "POST", "/v1/models/ranking:predict", RANKING)
    assert (status, answer["model"]) == (200, "ranking")
    assert asked(gateway.admin_port, directory, "GET", "/admin/v1/status")[1]["files"]["tls"]["in_force"] is True
    for port in (gateway.port, gateway.admin_port):
        assert b"HTTP/1.1" not in exchange_raw(port, b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")


def test_a_caller_that_does_not_trust_the_authority_turns_away(gateway: Gateway, directory: Path):
    stranger = Caller(gateway.port, directory, STRANGER)
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger.ask("GET", "/v2")
    stranger.close()


def test_a_new_certificate_is_shown_without_a_restart_and_no_connection_is_lost(gateway: Gateway, directory: Path):
    kept = Caller(gateway.port, directory)
    assert kept.ask("GET", "/v2/health/live")[0] == 200
    before = kept.serial()
    signed("gateway", CA, "127.0.0.1").write(directory)

    def shown(port: int) -> str:
        caller = Caller(port, directory)
        assert caller.ask("GET", "/openapi.json")[0] == 200
        serial = caller.serial()
        caller.close()
        return serial

    for port in (gateway.port, gateway.admin_port):
        until("the new one is shown", lambda port=port: shown(port) != before)
    assert kept.ask("GET", "/v2/health/live")[0] == 200
    kept.close()


def test_a_certificate_that_is_broken_is_told_and_the_one_before_it_is_shown_on(gateway: Gateway, directory: Path):
    certificate = directory / "gateway.pem"
    good = certificate.read_text(encoding="utf-8")

    def told() -> dict[str, Any]:
        return asked(gateway.admin_port, directory, "GET", "/admin/v1/status")[1]["files"]["tls"]

    try:
        certificate.write_text("nothing", encoding="utf-8")
        until("it is told", lambda: not told()["in_force"])
        assert "gateway.pem:1: holds no certificate" in told()["problem"]
    finally:
        certificate.write_text(good, encoding="utf-8")
    until("it is mended", lambda: told()["in_force"])


def test_handshakes_that_do_not_go_on_keep_nobody_out(gateway: Gateway, directory: Path):
    silent = [Caller(gateway.port, directory) for _ in range(50)]
    for caller in silent:
        caller._connection.sock = None
        http.client.HTTPConnection.connect(caller._connection)  # without the TLS that it would begin with
    assert asked(gateway.port, directory, "GET", "/v2/health/live")[0] == 200
    for caller in silent:
        caller.close()


def test_several_processes_answer_over_tls_on_both_ports(stack: Stack, directory: Path):
    for pair in secured(stack, directory / "pair", "--processes", "2"):
        for _ in range(6):
            assert asked(pair.port, directory / "pair", "POST", "/v1/models/ranking:predict", RANKING)[0] == 200
        told = asked(pair.admin_port, directory / "pair", "GET", "/admin/v1/status")[1]
        assert len(told["processes"]) == 2


ROUTES = """\
models:
  ranking:
    unit: user
    deadline_ms: 2000
    default_version: "1"
    versions:
      "1": {{workers: ["https://127.0.0.1:{port}"]}}
"""


@pytest.fixture(scope="module")
def mutual(stack: Stack, directory: Path) -> Iterator[tuple[Gateway, int]]:
    """A worker that serves callers with a certificate only, and a gateway that has one."""
    (port,) = free_ports(1)
    own = directory / "mutual"
    ca = CA.write(own)[0]
    certificate, key = signed("worker", CA, "127.0.0.1").write(own)
    shown, shown_key = signed("gateway", CA, "gateway").write(own)
    worker = ChildProcess(
        [
            sys.executable, "-m", "model_workers", "--repository", str(stack.repository), "--model", "ranking@1",
            "--port", str(port), "--shutdown-grace-s", "0",
            "--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca),
        ],
        log_file=directory / "worker.log",
        directory=ROOT,
    )  # fmt: skip
    (own / "models.yaml").write_text(ROUTES.format(port=port), encoding="utf-8")
    ports = free_ports(2)
    child = ChildProcess(
        [
            sys.executable, "-m", "gateway", "--config", str(own / "models.yaml"), "--redis", stack.redis.url,
            "--port", str(ports[0]), "--admin-port", str(ports[1]), "--log-dir", str(own / "log"),
            "--shutdown-grace-s", "0",
            "--worker-ca", str(ca), "--worker-cert", str(shown), "--worker-key", str(shown_key),
        ],
        log_file=directory / "mutual.log",
        directory=own,
    )  # fmt: skip
    gateway = Gateway(child, *ports, own / "log")
    try:
        worker.start()
        child.start()
        stack.wait_until_ready(gateway, worker)
        yield gateway, port
    finally:
        child.stop()
        worker.stop()


def test_a_gateway_with_a_certificate_is_served_by_a_worker_that_asks_for_one(mutual: tuple[Gateway, int]):
    with mutual[0].client() as client:
        answer = client.predict("ranking", json.loads(RANKING))
    assert (answer.status, answer.json["degraded"]) == (200, [])


def test_a_worker_that_asks_for_a_certificate_serves_nobody_without_a_good_one(
    mutual: tuple[Gateway, int], directory: Path
):
    for own in (None, STRANGER):
        caller = Caller(mutual[1], directory, own=own)
        with pytest.raises(OSError):  # noqa: PT011 - a TLS alert, or the connection's end: whichever comes first
            caller.ask("GET", "/v2/health/live")
        caller.close()
    served = Caller(mutual[1], directory, own=signed("someone", CA, "someone"))
    assert served.ask("GET", "/v2/health/live")[0] == 200
    served.close()


def test_nothing_of_all_this_was_logged_as_an_error_but_the_broken_certificate(gateway: Gateway, directory: Path):
    assert gateway.child.log_file is not None
    errors = [
        line
        for log in (gateway.child.log_file, directory / "worker.log", directory / "mutual.log")
        for line in lines_of_errors(log)
    ]
    assert all("files were not taken" in line for line in errors), errors[:3]
