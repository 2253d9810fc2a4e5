"""An event loop whose clock is virtual: when nothing is ready it jumps to the next timer. Minutes pass in seconds.

Nothing outside the program can happen in it: no sockets, threads or signals. `create_connection` goes to what `connect`
was given instead.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BEGINS_S = 1_000.0
"""The first time that a loop tells: code may take 0 for never."""

Connect = Callable[[asyncio.Protocol, str, int], asyncio.Transport]
"""Joins a protocol to whatever is simulated at a host and port. Raises OSError where nothing listens."""


class NothingWillHappen(RuntimeError):
    """Everything waits, and no timer is set: on a real loop this would be a hang."""


class _JumpingSelector:
    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise NothingWillHappen
        self._loop.now_s += timeout_s
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """connect: what `create_connection` joins protocols to; None: nothing listens anywhere."""

    def __init__(self, connect: Connect | None = None) -> None:
        super().__init__()
        self.now_s = BEGINS_S
        self._connect = connect
        self._selector = _JumpingSelector(self)

    def time(self) -> float:
        return self.now_s

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        if self._connect is None:
            raise ConnectionRefusedError(f"nothing listens at {host}:{port}")
        protocol = protocol_factory()
        transport = self._connect(protocol, host, port)
        protocol.connection_made(transport)
        return transport, protocol

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        pass  # only another thread would wake the loop


def run(main: Callable[[], Coroutine[Any, Any, T]], connect: Connect | None = None) -> T:
    """Run a coroutine to its end in a virtual loop of its own."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(connect)) as runner:
        return runner.run(main())
