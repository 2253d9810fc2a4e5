import asyncio
import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest

from settings import ConfigurationError
from settings.tls import ClientContext, ClientTls, ServerContext, ServerTls, client_context, server_context
from tests.unit.settings.certificates import Certificate, authority, signed

CA, STRANGER = authority("ca"), authority("stranger")
PORT, OTHER = signed("port", CA, "localhost", "127.0.0.1"), signed("other", CA, "localhost")
CALLER = signed("caller", CA, "caller")

KEY_UNDER_A_PASSWORD = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAigEfeKEZqX9gICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMWtlzX31jPZpgZ6qYSj1bkEgZDU
7Ebf+91/t+vtNKPR3QorggdFh1LBGPaTBFJ+vX9chUyo42L+NbKURW8/CUT10qxA
mO8hyQHXnNpv4NaEi1WzBpW7lbUjKnuNahy6RrI+yu3Tr0VpG9+xAD1bgSSf35nG
pnAjLTZGzLXiCR8E75tEMB2NpKL8F/+Vxnytn1nUWy3ZrzJQXs2Q3xr5FCFE4A0=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for each in (CA, STRANGER, PORT, OTHER, CALLER):
        found[each.name], found[f"{each.name}.key"] = each.write(tmp_path)
    return found


def server_of(files: dict[str, Path], name: str = "port", client_ca: str | None = None) -> ssl.SSLContext:
    ca = None if client_ca is None else files[client_ca]
    return server_context(ServerTls(certificate=files[name], key=files[f"{name}.key"], client_ca=ca))


def client_of(files: dict[str, Path], ca: str = "ca", own: str | None = None) -> ssl.SSLContext:
    certificate, key = (files[own], files[f"{own}.key"]) if own else (None, None)
    return client_context(ClientTls(ca=files[ca], certificate=certificate, key=key))


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> ssl.SSLObject:
    """Let a client and a server meet in memory; returns the client's side. Raises SSLError of whichever refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    asked = server.wrap_bio(to_server, to_client, server_side=True)
    open_sides = [asking, asked]
    for _ in range(20):
        for side in list(open_sides):
            try:
                side.do_handshake()
                open_sides.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not open_sides:
            asked.write(b"x")  # a certificate that the server refuses is told after the client is done (TLS 1.3)
            assert asking.read(1) == b"x"
            return asking
    raise AssertionError("no end of the handshake")


def test_a_caller_that_trusts_the_authority_is_served_http_1_1_over_tls_1_3(files):
    client = client_of(files)
    client.set_alpn_protocols(["h2", "http/1.1"])
    met = shake_hands(server_of(files), client)
    assert (met.version(), met.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")


def test_a_caller_of_another_authority_or_with_another_name_in_mind_turns_away(files):
    for ca, name in (("stranger", "localhost"), ("ca", "elsewhere")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(server_of(files), client_of(files, ca), name)


def test_nobody_is_served_over_less_than_tls_1_2(files):
    old = client_of(files)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of so old a TLS, which is the point
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(server_of(files), old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake_hands(server_of(files), old).version() == "TLSv1.2"


def test_mutual_tls_serves_callers_of_the_authority_and_no_others(files):
    server = server_of(files, client_ca="ca")
    assert shake_hands(server, client_of(files, own="caller")).version() == "TLSv1.3"
    for own in (None, "stranger"):
        with pytest.raises(ssl.SSLError):
            shake_hands(server, client_of(files, own=own))


def wrong_files(directory: Path) -> dict[str, tuple[ServerTls, str, str]]:
    """What is wrong, the settings, the file that is to blame, and what is to be said of it."""
    certificate, key = PORT.write(directory)
    other_key = OTHER.write(directory)[1]
    text = directory / "notes.pem"
    text.write_text("no PEM at all", encoding="utf-8")
    broken = directory / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", encoding="utf-8")
    broken_key = directory / "broken.key.pem"
    broken_key.write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", encoding="utf-8")
    locked = directory / "locked.pem"
    locked.write_text(KEY_UNDER_A_PASSWORD, encoding="utf-8")
    large = directory / "large.pem"
    large.write_bytes(b"\n" * (1024 * 1024 + 1))

    def tls(certificate: Path = certificate, key: Path = key, client_ca: Path | None = None) -> ServerTls:
        return ServerTls(certificate=certificate, key=key, client_ca=client_ca)

    return {
        "a certificate that is not there": (tls(directory / "none"), "none", "cannot be read: No such file"),
        "a certificate that is none": (tls(text), "notes.pem", "holds no certificate in PEM form"),
        "a certificate that is broken": (tls(broken), "broken.pem", "no certificate that can be read"),
        "a file of any size": (tls(large), "large.pem", "more than the 1048576 bytes"),
        "a key that is not there": (tls(key=directory / "none"), "none", "cannot be read: No such file"),
        "a key that is a certificate": (tls(key=certificate), "port.pem", "holds no private key in PEM form"),
        "a key that is broken": (tls(key=broken_key), "broken.key.pem", "cannot be used with"),
        "a key of another certificate": (
            tls(key=other_key),
            "other.key.pem",
            "is not the key of the first certificate",
        ),
        "a key under a password": (tls(key=locked), "locked.pem", "under a password"),
        "an authority that is none": (tls(client_ca=text), "notes.pem", "holds no certificate in PEM form"),
        "an authority that is broken": (tls(client_ca=broken), "broken.pem", "no certificate that can be read"),
    }


def test_a_wrong_file_is_named(tmp_path: Path):
    for claim, (tls, file, said) in wrong_files(tmp_path).items():
        with pytest.raises(ConfigurationError) as refusal:
            server_context(tls)
        assert (refusal.value.path.name, said in refusal.value.problem) == (file, True), (claim, refusal.value.problem)


def serial_of(met: ssl.SSLObject) -> Any:
    return (met.getpeercert() or {})["serialNumber"]


def replaced(files: dict[str, Path], name: str, by: Certificate) -> None:
    files[name].write_text(by.certificate_pem, encoding="utf-8")
    files[f"{name}.key"].write_text(by.key_pem, encoding="utf-8")


def test_a_port_shows_its_new_certificate_from_the_next_connection_on(files):
    context = ServerContext(ServerTls(certificate=files["port"], key=files["port.key"]))
    before = serial_of(shake_hands(context.current, client_of(files)))
    replaced(files, "port", signed("port", CA, "localhost"))
    asyncio.run(context.files.look_again())
    assert serial_of(shake_hands(context.current, client_of(files))) != before


def test_a_certificate_whose_key_has_not_come_yet_is_not_shown(files):
    context = ServerContext(ServerTls(certificate=files["port"], key=files["port.key"]))
    before = serial_of(shake_hands(context.current, client_of(files)))
    new = signed("port", CA, "localhost")
    files["port"].write_text(new.certificate_pem, encoding="utf-8")
    asyncio.run(context.files.look_again())
    assert "is not the key" in (context.files.problem or "")
    assert serial_of(shake_hands(context.current, client_of(files))) == before
    files["port.key"].write_text(new.key_pem, encoding="utf-8")
    asyncio.run(context.files.look_again())
    assert context.files.problem is None
    assert serial_of(shake_hands(context.current, client_of(files))) != before


def test_a_callers_context_takes_a_new_certificate_and_a_new_authority_without_being_another_object(files):
    tls = ClientTls(ca=files["ca"], certificate=files["stranger"], key=files["stranger.key"])
    calling = ClientContext(tls)
    server = server_of(files, client_ca="ca")
    with pytest.raises(ssl.SSLError):
        shake_hands(server, calling.context)
    replaced(files, "stranger", CALLER)
    asyncio.run(calling.files.look_again())
    shake_hands(server, calling.context)
    successor = authority("successor")
    files["ca"].write_text(successor.certificate_pem, encoding="utf-8")
    asyncio.run(calling.files.look_again())
    replaced(files, "port", signed("port", successor, "localhost"))
    shake_hands(server_of(files), calling.context)
