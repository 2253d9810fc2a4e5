import http.client
import os
import signal
import socket
import threading
import time

import pytest

from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import Gateway

pytestmark = pytest.mark.fault

GOOD = {"entities": {"user": "u1", "item": "i1"}}
ENDS_WITHIN_S = 25.0
"""Grace, then the time that unfinished requests are given, then the log."""


class PoliteClients:
    """Keep-alive clients that ask without a pause, and go elsewhere when they are told `connection: close`."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self.told_to_leave = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        with Client(self._port) as client:
            try:
                while True:
                    reply = client.predict("ranking", GOOD)
                    self.statuses.append(reply.status)
                    if reply.headers.get("connection") == "close":
                        self.told_to_leave += 1
                        return
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))


def ended(gateway: Gateway) -> bool:
    return gateway.child.ended() is not None


def test_sigterm_under_keep_alive_load_costs_no_client_an_error(stack):
    gateway = stack.start_gateway("--shutdown-grace-s", "1")
    clients = PoliteClients(gateway.port, 8)
    clients.start()
    until("the load runs", lambda: len(clients.statuses) > 200)
    os.kill(gateway.child.pid, signal.SIGTERM)
    clients.join()
    until("the gateway has ended", lambda: ended(gateway), ENDS_WITHIN_S)
    assert gateway.child.ended() == "exit code 0"
    assert (set(clients.statuses), clients.failures, clients.told_to_leave) == ({200}, [], 8)


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/models/ranking:predict HT", None], ids=["silent", "in head", "in body"]
)
def test_a_client_that_never_finishes_its_request_does_not_keep_a_gateway_from_ending(stack, sent):
    gateway = stack.start_gateway("--shutdown-grace-s", "0")
    head = b"POST /v1/models/ranking:predict HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection, gateway.client() as client:
        connection.sendall(head if sent is None else sent)
        assert client.predict("ranking", GOOD).status == 200
        os.kill(gateway.child.pid, signal.SIGTERM)
        begun = time.monotonic()
        until("the gateway has ended", lambda: ended(gateway), ENDS_WITHIN_S)
    assert gateway.child.ended() == "exit code 0", time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_draining_does_no_harm(stack, number):
    gateway = stack.start_gateway("--shutdown-grace-s", "0.5")
    for _ in range(3):
        os.kill(gateway.child.pid, number)
    until("the gateway has ended", lambda: ended(gateway), ENDS_WITHIN_S)
    assert gateway.child.ended() == "exit code 0"
