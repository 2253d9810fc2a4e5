"""Listening sockets, and an error that says by which flag to move a port that is taken."""

import errno
import socket
from typing import Final

BACKLOG: Final = 2_048
"""Connections that may wait to be accepted: more than any load balancer opens at once after a restart."""


class PortTaken(OSError):
    """Another program listens on a port. Carries the flag that moves it."""

    def __init__(self, host: str, port: int, flag: str) -> None:
        super().__init__(f"port {port} on {host} is taken: choose another one with {flag}")
        self.host, self.port, self.flag = host, port, flag


def listen(host: str, port: int, flag: str) -> socket.socket:
    """Listen on a TCP port. Raises PortTaken with the flag by which to move it, OSError for a wrong address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, flag) from error
        raise
    listener.setblocking(False)
    return listener


def refuse_taken_port(port: int, flag: str) -> None:
    """Raise PortTaken where a loopback port cannot be listened on now."""
    listen("127.0.0.1", port, flag).close()
