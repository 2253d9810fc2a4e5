"""One gRPC port: what it takes at most, how it keeps connections, and how it leaves."""

from collections.abc import Sequence
from typing import Any, Final

import grpc.aio

from model_workers.grpc_edge.address import GrpcAddress
from settings.ports import PortTaken

CALLS_MAX: Final = 1_024
"""Calls in flight, over all connections; beyond: RESOURCE_EXHAUSTED. The library holds their messages while they come
in, so that they and `message_bytes_max` are the most that callers can fill."""

CONNECTIONS_MAX: Final = 4_096
STREAMS_OF_A_CONNECTION_MAX: Final = CALLS_MAX
MESSAGE_HEADROOM_BYTES: Final = 64 * 1024
"""The library cuts a message that is larger by more than this; a smaller one is refused here, in words and counted."""

METADATA_BYTES_MAX: Final = 16 * 1024

KEEPALIVE_MS: Final = 60_000
KEEPALIVE_ANSWER_MS: Final = 20_000
"""A peer that does not answer a ping for so long is gone, and its calls are cancelled."""

CLIENT_PINGS_MS_MIN: Final = 10_000
"""Clients may ping an idle connection so often. The library's default is 5 minutes, and cuts those who ping sooner."""


class GrpcServer:
    """Serves `services` at one address, on the running event loop."""

    def __init__(self, address: GrpcAddress, services: Sequence[Any], *, message_bytes_max: int) -> None:
        self._address = address
        self._server = grpc.aio.server(maximum_concurrent_rpcs=CALLS_MAX, options=_options(message_bytes_max))
        self._server.add_generic_rpc_handlers(tuple(services))

    async def start(self) -> None:
        """Listen and serve. Raises PortTaken."""
        host, port, flag = self._address.host, self._address.port, self._address.flag
        try:
            self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise PortTaken(host, port, flag) from error
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and cancel those that have no answer after the grace."""
        await self._server.stop(grace_s)


def _options(message_bytes_max: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", message_bytes_max + MESSAGE_HEADROOM_BYTES),
        ("grpc.max_send_message_length", -1),  # an answer's size follows from its rows, which are bounded
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_OF_A_CONNECTION_MAX),
        ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PINGS_MS_MIN),
        ("grpc.so_reuseport", 0),  # else two workers would share a port unawares
    ]
