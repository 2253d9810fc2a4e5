"""What stands between a gateway and the network: its keys, its TLS, and the files that both are read from."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from gateway.access.gate import AccessGate
from gateway.access.keys_in_force import gate_of
from gateway.clock import monotonic, wall_s
from gateway.settings import Settings
from settings.followed_files import FollowedFiles
from settings.tls import ClientContext, ServerContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """The guards of one process."""

    gate: AccessGate | None
    """None where there are no keys: everything is open."""

    tls: Callable[[], ssl.SSLContext] | None
    """The context of each connection to a port; None: no TLS."""

    worker_tls: ssl.SSLContext
    """Of connections to workers whose URL is `https`."""

    files: tuple[FollowedFiles[Any], ...]
    """To be followed, so that keys and certificates change without a restart."""


def guards_of(settings: Settings, processes: int, count: Callable[[str, str], None]) -> Guards:
    """Read keys and certificates, for one of so many processes that share a key's rate. Raises ConfigurationError.

    count: told of each request of a key, by the key's name and what became of it.
    """
    files: list[FollowedFiles[Any]] = []
    gate = None
    if settings.keys is not None:
        gate, keys_file = gate_of(settings.keys, processes, monotonic, wall_s, count)
        files.append(keys_file)
    tls = None
    if settings.tls is not None:
        context = ServerContext(settings.tls)
        files.append(context.files)
        tls = lambda: context.current  # noqa: E731 - the one of the moment
    workers = ClientContext(settings.worker_tls)
    if settings.worker_tls.paths:
        files.append(workers.files)
    return Guards(gate=gate, tls=tls, worker_tls=workers.context, files=tuple(files))


def warn_of_open_ports(settings: Settings) -> None:
    """Log it where a port can be reached from other machines, and anyone may ask there."""
    if settings.keys is not None:
        return
    hosts = {"data": settings.host, "admin": settings.admin_host}
    opened = [port for port, host in hosts.items() if not _is_loopback(host)]
    if opened:
        logger.warning("ports are open to other machines, and nobody needs a key: give --keys", extra={"ports": opened})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
