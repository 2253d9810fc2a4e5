import errno
import logging
import os
import socket

import pytest

from model_workers.__main__ import main
from tests.unit.model_workers.published_models import onnx_manifest, publish
from tests.unit.model_workers.running_worker import free_port


@pytest.fixture(autouse=True)
def _own_logging():
    """Take back the logging that `main` sets up: its stream ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def small_repository(tmp_path):
    publish(tmp_path, b"artifact", onnx_manifest("churn", "1", 3))
    return str(tmp_path)


def refused(capsys, *arguments):
    """Run with these arguments. Returns the exit code and what was said last."""
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    return leaving.value.code, capsys.readouterr().err.splitlines()[-1]


def test_help_shows_every_flag_with_an_example(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert leaving.value.code == 0
    assert "sekisho-worker --repository models --model diagnosis@2" in said
    assert "[SEKISHO_QUEUE_ROWS_MAX; default 16384]" in said


def test_without_a_repository_the_way_to_give_one_is_told(capsys):
    assert refused(capsys) == (2, "sekisho-worker: error: --repository is required (or set SEKISHO_REPOSITORY)")


def test_a_missing_repository_is_bad_usage(capsys, tmp_path):
    code, said = refused(capsys, "--repository", str(tmp_path / "nowhere"))
    assert code == 2
    assert "is not a directory; give --repository" in said


@pytest.mark.parametrize("polling", [(), ("--poll-s", "1")])
def test_a_repository_that_is_there_and_cannot_be_listed_is_one_line_without_usage(
    capsys, small_repository, monkeypatch, polling
):
    def denied(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SystemExit) as leaving:
        main(["--repository", small_repository, *polling])
    said = f"sekisho-worker: error: {small_repository}: cannot be listed: Permission denied\n"
    assert (leaving.value.code, capsys.readouterr().err) == (1, said)


def test_an_unknown_model_is_bad_usage(capsys, small_repository):
    code, said = refused(capsys, "--repository", small_repository, "--model", "fraud")
    assert code == 2
    assert said.endswith("has no model 'fraud'; it has churn")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--port", "65536"),
        ("--port", "web"),
        ("--admin-port", "0"),
        ("--latest", "0"),
        ("--latest", "1025"),
        ("--poll-s", "-1"),
        ("--poll-s", "0.01"),
        ("--poll-s", "often"),
        ("--threads", "0"),
        ("--queue-rows-max", "0"),
        ("--body-bytes-max", "-1"),
        ("--shutdown-grace-s", "soon"),
        ("--log-level", "loud"),
        ("--no-such-flag", "1"),
    ],
)
def test_a_value_out_of_range_is_bad_usage_that_names_the_flag(capsys, small_repository, flag, value):
    code, said = refused(capsys, "--repository", small_repository, flag, value)
    assert code == 2
    assert flag in said


def test_a_taken_port_is_told_with_the_flag_that_moves_it(capsys, small_repository):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(capsys, "--repository", small_repository, "--port", str(port))
    assert code == 1
    assert said.endswith(f"port {port} on 127.0.0.1 is taken: choose another one with --port")


def test_a_taken_admin_port_is_told_with_the_flag_that_moves_it(capsys, small_repository):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = ("--port", str(free_port()))
        code, said = refused(capsys, "--repository", small_repository, *free, "--admin-port", str(port))
    assert code == 1
    assert said.endswith(f"port {port} on 127.0.0.1 is taken: choose another one with --admin-port")


def test_with_polling_too_a_model_that_is_no_name_and_a_repository_that_is_missing_are_bad_usage(capsys, tmp_path):
    code, said = refused(capsys, "--repository", str(tmp_path), "--poll-s", "1", "--model", "../x")
    assert (code, "write NAME or NAME@VERSION" in said) == (2, True)
    code, said = refused(capsys, "--repository", str(tmp_path / "nowhere"), "--poll-s", "1")
    assert (code, "is not a directory" in said) == (2, True)


def test_models_given_by_flag_replace_those_of_the_variable(capsys, small_repository, monkeypatch):
    monkeypatch.setenv("SEKISHO_MODEL", "a b")
    code, said = refused(capsys, "--repository", small_repository)
    assert (code, "'a'" in said) == (2, True)
    code, said = refused(capsys, "--repository", small_repository, "--model", "c", "--model", "d")
    assert (code, "'c'" in said) == (2, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tls-cert", "c.pem"), "--tls-cert and --tls-key go together"),
        (("--tls-client-ca", "ca.pem"), "--tls-client-ca goes with --tls-cert and --tls-key"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem", "--grpc-port", "8092"), "there is no TLS over gRPC here"),
    ],
)
def test_tls_that_is_half_given_or_not_there_is_bad_usage(capsys, small_repository, flags, said):
    code, last = refused(capsys, "--repository", small_repository, *flags)
    assert code == 2
    assert said in last


def test_a_certificate_that_is_not_there_is_named(capsys, small_repository, tmp_path):
    missing = str(tmp_path / "none.pem")
    code, last = refused(
        capsys,
        "--repository",
        small_repository,
        "--port",
        str(free_port()),
        "--tls-cert",
        missing,
        "--tls-key",
        missing,
    )
    assert (code, last) == (2, f"sekisho-worker: error: {missing}:1: cannot be read: No such file or directory")
