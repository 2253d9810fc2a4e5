"""A TCP proxy between two parts of the system, whose faults a test chooses while it runs."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 65_536
READY_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the bytes that come back from the server; the way there is clean. The default: nothing."""

    latency_s: float = 0.0
    stalls: bool = False
    """Nothing goes through, on old connections and new ones, until another fault is set."""

    piece_bytes: int = 0
    """Send in pieces of this size, each by itself; 0: as it comes."""

    cut_after_bytes: int | None = None
    """Of each connection from when the fault was set: then nothing more, and the connection ends."""

    cut_slowly_s: float = 0.0
    """How long a cut connection stays open and silent before it is closed."""

    resets: bool = False
    """A cut connection ends with a reset."""

    change: Callable[[bytes], bytes] = field(default=lambda data: data)
    """What becomes of a chunk from the server."""

    answer: Callable[[bytes], bytes] | None = None
    """Answer a chunk from the client in the server's place."""


class FaultProxy:
    """Listens on a free port of loopback and passes everything on. upstream: a port, or the path of a Unix socket."""

    def __init__(self, upstream: int | str) -> None:
        self._upstream = upstream
        self._fault = Fault()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self.port = 0
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, fault: Fault) -> None:
        """Begin a fault in the place of the one before, on connections that are open and on new ones."""
        self._call(self._set(fault))

    def heal(self) -> None:
        """Pass everything on again."""
        self.set(Fault())

    def reset_all(self) -> None:
        """End every connection by a reset."""
        self._call(self._reset_all())

    def refuse(self) -> None:
        """End every connection and take no new one."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(READY_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset_all()

    async def _close(self) -> None:
        await self._refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        self._writers.add(writer)
        server_writer = None
        try:
            server_reader, server_writer = await self._connect()
            self._writers.add(server_writer)
            there = asyncio.create_task(_ending(self._there(reader, writer, server_writer)))
            back = asyncio.create_task(_ending(self._back(server_reader, writer)))
            _, pending = await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            for pump in pending:
                pump.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        except OSError:
            pass  # there is no server: its client sees the connection end
        finally:
            for each in (writer, server_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, str):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection("127.0.0.1", self._upstream)

    async def _there(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            answer = self._fault.answer
            if answer is None:
                writer.write(data)
                await writer.drain()
            else:
                back.write(answer(data))
                await back.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault, sent = self._fault, 0
        while data := await reader.read(CHUNK_BYTES):
            while self._fault.stalls:
                await self._changed.wait()
            if fault is not self._fault:
                fault, sent = self._fault, 0
            if fault.latency_s:
                await asyncio.sleep(fault.latency_s)
            data = fault.change(data)
            if fault.cut_after_bytes is not None and sent + len(data) > fault.cut_after_bytes:
                writer.write(data[: fault.cut_after_bytes - sent])
                await writer.drain()
                await asyncio.sleep(fault.cut_slowly_s)
                if fault.resets:
                    _reset(writer)
                return
            sent += len(data)
            size = fault.piece_bytes or len(data) or 1
            for at in range(0, len(data), size):
                writer.write(data[at : at + size])
                await writer.drain()
                if fault.piece_bytes:
                    await asyncio.sleep(0.000_2)  # or the kernel would put them together again


async def _ending(pump: Awaitable[None]) -> None:
    with contextlib.suppress(OSError):
        await pump


def _reset(writer: asyncio.StreamWriter) -> None:
    made = writer.get_extra_info("socket")
    if made is not None:
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
