import secrets

import pytest

from gateway.__main__ import main
from gateway.access.gate import AccessGate
from gateway.access.key_ring import key_ring
from gateway.access.keys_file import Scope, read_keys
from gateway.access.new_key import KeyNameError, new_key


def test_a_new_key_is_let_in_by_its_entry(tmp_path, capsys):
    assert main(["--new-key", "checkout", "--scopes", "predict", "admin"]) == 0
    printed = capsys.readouterr().out
    (key,) = [line for line in printed.splitlines() if line.startswith("sk_")]
    file = tmp_path / "keys.yaml"
    file.write_text(printed[printed.index("keys:\n") :], encoding="utf-8")
    gate = AccessGate(key_ring(read_keys(file), 1, 0.0), lambda: 0.0, lambda: 0.0, lambda _name, _outcome: None)
    found = gate.admit({b"authorization": f"Bearer {key}".encode()}, (Scope.ADMIN,))
    assert (found.name, found.scopes) == ("checkout", (Scope.PREDICT, Scope.ADMIN))


def test_a_key_is_256_random_bits_and_no_two_are_alike():
    keys = {new_key("a", [Scope.PREDICT], secrets.token_urlsafe)[0] for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len("sk_") + 43}


@pytest.mark.parametrize("name", ["", "with space", "a" * 65, 'quote"', "line\nbreak", "-dash"])
def test_a_name_that_the_file_would_not_take_is_refused(name):
    with pytest.raises(KeyNameError):
        new_key(name, [Scope.PREDICT], secrets.token_urlsafe)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--new-key", "a b"], "no name for a key"),
        (["--new-key", "a", "--scopes", "root"], "invalid choice"),
        ([], "--config is required"),
        (["--config", "m.yaml", "--tls-cert", "c.pem"], "--tls-cert and --tls-key go together"),
        (["--config", "m.yaml", "--worker-key", "k.pem"], "--worker-cert and --worker-key go together"),
    ],
)
def test_wrong_usage_is_told_in_a_line_with_exit_code_2(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("SEKISHO_CONFIG", raising=False)
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2
    assert said in capsys.readouterr().err
