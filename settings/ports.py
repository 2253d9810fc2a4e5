"""Listening sockets, and an error that says by which flag to move a port that is taken."""

import errno
import socket
from pathlib import Path
from typing import Final

BACKLOG: Final = 2_048
"""Connections that may wait to be accepted: more than any load balancer opens at once after a restart."""


class PortTaken(OSError):
    """Another program listens on a port. Carries the flag that moves it."""

    def __init__(self, host: str, port: int, flag: str) -> None:
        super().__init__(f"port {port} on {host} is taken: choose another one with {flag}")
        self.host, self.port, self.flag = host, port, flag


def listen(host: str, port: int, flag: str, *, shared: bool = False) -> socket.socket:
    """Listen on a TCP port. Raises PortTaken with the flag by which to move it, OSError for a wrong address.

    shared: with SO_REUSEPORT, so that several processes of one user can listen, and the kernel spreads connections.
    """
    listener = reserve(host, port, flag, shared=shared)
    listener.listen(BACKLOG)
    return listener


def reserve(host: str, port: int, flag: str, *, shared: bool = False) -> socket.socket:
    """Bind a TCP port without listening: with `shared`, a process keeps a port that way for its children."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, flag) from error
        raise
    listener.setblocking(False)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """Listen on a Unix socket that only this user may open. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def refuse_taken_port(port: int, flag: str) -> None:
    """Raise PortTaken where a loopback port cannot be listened on now."""
    listen("127.0.0.1", port, flag).close()
