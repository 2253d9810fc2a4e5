import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.access.guards import guards_of, warn_of_open_ports
from gateway.settings import Settings
from settings import ConfigurationError
from settings.tls import ClientTls, ServerTls
from tests.unit.settings.certificates import authority, signed


def settings_of(**fields: Any) -> Settings:
    """Make settings of which only access is looked at."""
    given = dict.fromkeys(Settings.__dataclass_fields__)
    return Settings(**{**given, "host": "127.0.0.1", "admin_host": "::1", "worker_tls": ClientTls(), **fields})


def uncounted(key: str, outcome: str) -> None:
    raise AssertionError("nothing was asked")


def test_without_files_there_is_no_gate_no_tls_and_nothing_to_follow():
    guards = guards_of(settings_of(), 1, uncounted)
    assert (guards.gate, guards.tls, guards.files) == (None, None, ())


def test_every_file_that_is_given_is_followed(tmp_path: Path):
    ca = authority("ca")
    certificate, key = signed("port", ca, "localhost").write(tmp_path)
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys: [{{name: a, sha256: {'ab' * 32}, scopes: [admin]}}]\n", encoding="utf-8")
    guards = guards_of(
        settings_of(
            keys=keys,
            tls=ServerTls(certificate=certificate, key=key),
            worker_tls=ClientTls(ca=ca.write(tmp_path)[0]),
        ),
        2,
        uncounted,
    )
    assert [files.name for files in guards.files] == ["keys", "tls", "worker_tls"]
    assert guards.gate is not None
    assert guards.tls is not None
    assert guards.tls().get_ca_certs() == []
    assert len(guards.worker_tls.get_ca_certs()) == 1


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        guards_of(settings_of(keys=tmp_path / "none.yaml"), 1, uncounted)


@pytest.mark.parametrize(
    ("host", "admin_host", "opened"),
    [
        ("127.0.0.1", "::1", []),
        ("localhost", "127.8.8.8", []),
        ("0.0.0.0", "127.0.0.1", ["data"]),
        ("127.0.0.1", "::", ["admin"]),
        ("gateway.example", "10.0.0.1", ["data", "admin"]),
    ],
)
def test_ports_that_anyone_may_ask_from_elsewhere_are_told_at_the_start(
    caplog: pytest.LogCaptureFixture, host: str, admin_host: str, opened: list[str]
):
    warn_of_open_ports(settings_of(host=host, admin_host=admin_host))
    assert [record.ports for record in caplog.records] == ([opened] if opened else [])  # type: ignore[attr-defined]
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


def test_ports_with_keys_are_not_told_of(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    warn_of_open_ports(settings_of(host="0.0.0.0", admin_host="0.0.0.0", keys=tmp_path))
    assert caplog.records == []
