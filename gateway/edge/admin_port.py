"""The admin port: an ASGI application on the same server as the data port, within the same bounds."""

from collections.abc import Callable
from typing import Final

from gateway.edge import problem
from gateway.edge.http_exchange import request_id_of
from http_server.asgi import AsgiApplication, AsgiBridge
from http_server.exchange import Exchange, Header
from http_server.server import Limits

BODY_BYTES_MAX: Final = 1024 * 1024
"""An experiment is a page; a megabyte of one is a mistake."""

LIMITS: Final = Limits(
    connections_max=1_024,
    descriptors_share=1 / 8,
    held_bytes_max=64 * 1024 * 1024,
    unsent_bytes_max=256 * 1024 * 1024,
)
"""Fewer than on the data port: probes, scrapers and people."""

PROBED: Final = frozenset({"/healthz", "/readyz"})
"""Answered however many other requests there are: who gets no answer here takes the gateway for dead."""


class AdminPort:
    """An `http_server.Application`."""

    def __init__(self, application: AsgiApplication, new_id: Callable[[], str]) -> None:
        self._bridge, self._new_id = AsgiBridge(application, self.refusal, self._fault, PROBED), new_id

    def body_bytes_max(self, target: bytes) -> int:  # noqa: ARG002 - the server asks by target
        """Return the limit, which is that of every path."""
        return BODY_BYTES_MAX

    def serve(self, exchange: Exchange) -> None:
        """Pass the request on."""
        self._bridge.serve(exchange)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:  # noqa: ARG002 - one form, whatever it was meant for
        """Write the answer to what never became a request."""
        return problem.refusal(status, detail, request_id_of(dict(headers), self._new_id))

    def _fault(self) -> tuple[bytes, bytes]:
        return problem.fault(self._new_id())
