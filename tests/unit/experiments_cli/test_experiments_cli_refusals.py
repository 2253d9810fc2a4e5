import socket
from contextlib import closing
from pathlib import Path

import pytest

from experiments_cli.admin_http import parse_address
from settings.tls import ServerTls, server_context
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin, serving
from tests.unit.settings.certificates import authority, signed


def test_a_gateway_that_is_not_there_is_told_with_its_address_and_the_flag(program: Program):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    done = program("list", "--url", f"http://127.0.0.1:{port}")
    assert done.code == 1
    assert done.err == (
        f"sekisho-experiments: http://127.0.0.1:{port} cannot be reached: Connection refused; give the address of the "
        "gateway's admin port with --url\n"
    )


def test_a_name_that_nobody_knows_is_told(program: Program):
    done = program("list", "--url", "http://gateway.invalid:8081")
    assert done.code == 1
    assert "http://gateway.invalid:8081 cannot be reached" in done.err


def test_a_key_is_sent_and_where_it_is_wrong_or_missing_that_is_told(admin: FakeAdmin, program: Program):
    admin.keys = {"sk_good": ("ci", {"experiment"}), "sk_other": ("checkout", {"predict"})}
    assert program("list", "--key", "sk_good").code == 0
    missing, wrong, scope = (program("list", *key) for key in ([], ["--key", "sk_bad"], ["--key", "sk_other"]))
    assert {done.code for done in (missing, wrong, scope)} == {1}
    assert "this needs an API key; give a key of this gateway with --key, or in SEKISHO_KEY" in missing.err
    assert "the key is not known here" in wrong.err
    assert "key 'checkout' may not do this: it needs the scope admin or experiment" in scope.err
    assert "give a key with the scope `experiment` or `admin`" in scope.err
    assert "sk_" not in missing.err + wrong.err + scope.err


@pytest.mark.parametrize("key", ["sk a", "sk_\u00e9", "sk_\r\nx-evil: 1", "k" * 300])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(program: Program, key: str):
    done = program("list", "--key", key)
    assert done.code == 2
    assert key not in done.err


def test_a_store_that_is_away_is_told_with_what_to_do(admin: FakeAdmin, program: Program):
    admin.unavailable = True
    done = program("list")
    assert done.code == 1
    assert (
        "Redis does not answer (wait 1 s); the gateway cannot reach Redis; what is in force stays in force" in done.err
    )


def test_the_wrong_port_is_told(admin: FakeAdmin, program: Program):
    done = program("list", "--url", f"{admin.url}/elsewhere")
    assert done.code == 1
    assert "is --url the admin port" in done.err


def test_a_refused_document_of_a_command_names_the_key(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("stop", "churn-q4", "--winner", "nobody")
    assert done.err == "sekisho-experiments: winner: 'nobody' is not one of the variants: control, treatment\n"


def test_a_change_of_what_changed_meanwhile_says_by_whom(admin: FakeAdmin, program: Program):
    admin.put(document())
    admin.before_write = lambda: admin.put(document(enrol_bp=1), actor="zoe", reason="hotfix")
    done = program("ramp", "churn-q4", "5%")
    assert done.code == 1
    assert "was revision 1 and is now revision 2, by zoe at" in done.err
    assert "plan again" in done.err


def test_with_json_an_error_is_json_on_standard_output_too(admin: FakeAdmin, program: Program):
    done = program("show", "nope", "--json")
    assert done.code == 1
    assert done.json["error"]["code"] == "unknown_experiment"
    admin.put(document())
    admin.before_write = lambda: admin.put(document(enrol_bp=1))
    error = program("ramp", "churn-q4", "5%", "--json").json["error"]
    assert (error["experiment"], error["revision_read"], error["revision"]) == ("churn-q4", 1, 2)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8081", "http://localhost:8081"),
        ("https://gateway.internal", "https://gateway.internal:443"),
        ("http://gateway/", "http://gateway:80"),
        ("https://proxy:8443/sekisho/", "https://proxy:8443/sekisho"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_an_address_is_read(url: str, address: str):
    assert str(parse_address(url)) == address


WRONG_ADDRESSES = """localhost:8081 ftp://g http:// http://g:0 http://g:99999 http://g:x http://a:b@g http://g/?q=1 http://g/#f
http://[::1 http://\u00e9 file:///etc/passwd"""


@pytest.mark.parametrize("url", ["", "http://g h", "http://g/\r\nx: 1", *WRONG_ADDRESSES.split()])
def test_what_is_no_address_is_refused_with_how_one_is_written(program: Program, url: str):
    done = program("list", f"--url={url}")
    assert done.code == 2
    assert "http://HOST:PORT" in done.err


@pytest.mark.parametrize(
    ("option", "text"), [("--reason", "a\nb"), ("--reason", "x" * 257), ("--actor", "\x1b[1m"), ("--reason", " ")]
)
def test_what_no_audit_line_can_hold_is_refused(program: Program, option: str, text: str):
    done = program("ramp", "e", "5%", option, text)
    assert done.code == 2
    assert "1 to 256 printable characters" in done.err


def test_a_certificate_file_that_is_none_is_told(program: Program, tmp_path: Path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing\n")
    done = program("list", "--url", "https://127.0.0.1:1", "--ca", str(path))
    assert done.code == 2
    assert "holds no certificate in PEM form" in done.err


def test_a_reason_in_any_script_is_sent_as_utf_8(admin: FakeAdmin, program: Program):
    admin.put(document())
    assert program("ramp", "churn-q4", "5%", "--reason", "試験 é").code == 0
    assert admin.trail[-1]["reason"].encode("latin-1").decode() == "試験 é"  # http.server reads headers as Latin-1


def test_what_comes_from_elsewhere_moves_no_cursor(admin: FakeAdmin, program: Program):
    admin.put(document(overrides={"\x1b[2J[red]": "control"}), actor="\x1b[31mana", reason="[bold]x[/] \u202e")
    admin.put(document(overrides={}))
    for arguments in (["audit"], ["show", "churn-q4"], ["list"], ["explain", "\x1b[2J"], ["show", "\x1b[2J"]):
        done = program(*arguments)
        assert "\x1b" not in done.out + done.err
        assert "\u202e" not in done.out + done.err
    assert "[bold]x[/] \\u202e" in program("audit").out


def test_a_private_authority_is_trusted_where_it_is_named(program: Program, tmp_path: Path):
    issuer = authority("a private authority")
    ca, _ = issuer.write(tmp_path / "ca")
    certificate, key = signed("gateway", issuer, "127.0.0.1").write(tmp_path / "gateway")
    with serving(FakeAdmin(), server_context(ServerTls(certificate=certificate, key=key))) as admin:
        assert program("list", "--url", admin.url, "--ca", str(ca)).code == 0
        done = program("list", "--url", admin.url)
        assert done.code == 1
        assert "its certificate is not trusted" in done.err
        assert "name its authority with --ca" in done.err
        assert program("list", "--url", admin.url.replace("https", "http"), "--timeout-s", "1").code == 1
