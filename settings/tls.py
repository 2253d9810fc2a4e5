"""TLS contexts from PEM files, with errors that say which file is wrong.

TLS 1.2 or newer, no renegotiation, HTTP/1.1. Names and chains are always checked where a certificate is asked for.
"""

import re
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from settings.followed_files import FollowedFiles
from settings.yaml_file import ConfigurationError

PEM_BYTES_MAX: Final = 1024 * 1024
"""A file larger than this holds no certificate; a bundle of every public authority has a quarter of it."""

_PROTOCOLS: Final = ("http/1.1",)
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a port shows, and whose certificates it asks callers for: None, of nobody's."""

    certificate: Path
    """The chain, the port's own certificate first."""

    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """Whose certificates a caller trusts (None: the system's authorities), and what it shows of its own."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)


class ServerContext:
    """The context of a port: `current`, made anew when the files change. Raises ConfigurationError."""

    def __init__(self, tls: ServerTls) -> None:
        self.current: ssl.SSLContext
        self.files = FollowedFiles("tls", tls.paths, partial(server_context, tls), self._take)

    def _take(self, context: ssl.SSLContext) -> None:
        self.current = context


class ClientContext:
    """The context of outgoing connections, one object that stays and is refreshed when the files change.

    A new authority is trusted beside those before it: none is forgotten before a restart. Raises ConfigurationError.
    """

    def __init__(self, tls: ClientTls) -> None:
        self.context = client_context(tls)
        self.files = FollowedFiles("worker_tls", tls.paths, partial(_checked, tls), self._take)

    def _take(self, tls: ClientTls) -> None:
        _load(self.context, tls.ca, tls.certificate, tls.key)


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """Make the context of a port. Raises ConfigurationError with the file that is wrong."""
    context = _bounded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, tls.client_ca, tls.certificate, tls.key)
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the context of outgoing connections. Raises ConfigurationError with the file that is wrong."""
    context = _bounded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if tls.ca is None:
        context.load_default_certs()
    _load(context, tls.ca, tls.certificate, tls.key)
    return context


def _checked(tls: ClientTls) -> ClientTls:
    client_context(tls)
    return tls


def _bounded(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a handshake costs a server more than a caller
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def _load(context: ssl.SSLContext, ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    if ca is not None:
        _check_pem(ca, _CERTIFICATE, "certificate")
        try:
            context.load_verify_locations(ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(ca, 1, f"holds no certificate that can be read: {_reason(error)}") from error
    if certificate is not None and key is not None:
        _load_own(context, certificate, key)


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _check_pem(certificate, _CERTIFICATE, "certificate")
    _check_pem(key, _PRIVATE_KEY, "private key")
    try:
        # Alone first, so that a fault of the second loading is one of the key, or of the pair.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(certificate, 1, f"holds no certificate that can be read: {_reason(error)}") from error
    try:
        # A key under a password would have OpenSSL ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=partial(_refuse_password, key))
    except ConfigurationError:
        raise
    except (ssl.SSLError, OSError) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(key, 1, f"is not the key of the first certificate in {certificate}") from error
        raise ConfigurationError(key, 1, f"cannot be used with {certificate}: {_reason(error)}") from error


def _refuse_password(key: Path) -> NoReturn:
    raise ConfigurationError(key, 1, "is a private key under a password; give one without, readable to this user only")


def _check_pem(path: Path, expected: re.Pattern[str], what: str) -> None:
    try:
        with path.open("rb") as file:
            data = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(path, 1, f"cannot be read: {error.strerror}") from error
    if len(data) > PEM_BYTES_MAX:
        raise ConfigurationError(path, 1, f"more than the {PEM_BYTES_MAX} bytes that are read")
    if not expected.search(data.decode("latin-1")):
        raise ConfigurationError(path, 1, f"holds no {what} in PEM form")


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
