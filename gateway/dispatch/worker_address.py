"""Where one worker is: what is connected to, and what it is called."""

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """One worker's address."""

    url: str
    """As people and metrics know it: `scheme://address:port`."""

    host: str
    """What is connected to: an address, or a name that the system resolves."""

    port: int
    host_header: bytes
    server_name: str | None = None
    """The name that the worker's certificate must have; None: no TLS."""


def address_of(url: str) -> WorkerAddress:
    """Take a checked worker URL at its word: its host is connected to as it stands."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    name = parts.hostname if parts.scheme == "https" else None
    return WorkerAddress(url, parts.hostname, parts.port, parts.netloc.encode(), name)
