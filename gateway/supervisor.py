"""Several gateway processes on one data port: started, watched, restarted, stopped together."""

import asyncio
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.merged_metrics import MergedMetrics
from gateway.process_client import ProcessSilent, get
from gateway.settings import Settings
from http_server.server import HttpServer
from settings.child_process import ChildProcess
from settings.ports import listen, reserve

RESTART_DELAY_S: Final = 1.0
"""Between the end of a process and its successor's start: a process that cannot start must not spin."""

READ_METRICS_S: Final = 5.0
"""How often the processes' counters are read, so that little is lost of one that dies."""

LOOK_S: Final = 0.05
"""How often it is looked whether a process has ended."""

STOP_TIMEOUT_S: Final = 50.0
"""For all processes together; less than the minute that an orchestrator commonly gives this one."""

ADMIN_ANSWER_S: Final = 5.0
"""How long the admin port's last answers may take to write."""

logger = logging.getLogger(__name__)


async def _stop(children: Sequence[ChildProcess]) -> None:
    for child in children:
        child.ask_to_end()
    waited_s = 0.0
    while waited_s < STOP_TIMEOUT_S and not all(child.ended() for child in children):
        await asyncio.sleep(LOOK_S)
        waited_s += LOOK_S
    for child in children:
        await asyncio.to_thread(child.stop, 0.0)


class Supervisor:
    """Keeps `count` processes serving. open_admin: serves the admin port on a socket, over theirs and their metrics."""

    def __init__(
        self,
        settings: Settings,
        child_arguments: Sequence[str],
        open_admin: Callable[[socket.socket, dict[str, Path], MergedMetrics], Awaitable[HttpServer]],
    ) -> None:
        self._settings, self._child_arguments, self._open_admin = settings, tuple(child_arguments), open_admin
        self._children: dict[str, ChildProcess] = {}
        self._sockets: dict[str, Path] = {}
        self._metrics = MergedMetrics()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises PortTaken."""
        settings = self._settings
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        # Kept for as long as this process lives, so that no other program takes the port while all processes restart.
        with (
            reserve(settings.host, settings.port, "--port", shared=True),
            tempfile.TemporaryDirectory(prefix="sekisho-") as directory,
        ):
            admin_listener = listen(settings.admin_host, settings.admin_port, "--admin-port")
            server = await self._open_admin(admin_listener, self._sockets, self._metrics)
            keepers = [
                asyncio.create_task(self._keep(str(number), Path(directory) / f"{number}.sock"))
                for number in range(settings.processes)
            ]
            reading = asyncio.create_task(self._read_metrics())
            stopped = asyncio.create_task(stop.wait())
            running: list[asyncio.Task[Any]] = [stopped, reading, *keepers]
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in (*keepers, reading):
                task.cancel()
            await asyncio.gather(*keepers, reading, return_exceptions=True)
            await _stop(list(self._children.values()))
            await server.close(ADMIN_ANSWER_S)
            for task in done:
                task.result()  # a keeper ends by a fault only: let it be seen

    async def _keep(self, name: str, socket_path: Path) -> None:
        while True:
            child = ChildProcess(
                [sys.executable, "-m", "gateway", *self._child_arguments, "--process-socket", str(socket_path)],
                inherit_output=True,
            )
            child.start()
            self._children[name], self._sockets[name] = child, socket_path
            # Not by a thread each: there are only so many, and the end of this process needs some.
            while (ending := child.ended()) is None:  # noqa: ASYNC110 - there is no event to wait on
                await asyncio.sleep(LOOK_S)
            logger.error("a gateway process ended", extra={"number": name, "pid": child.pid, "ending": ending})
            self._sockets.pop(name, None)
            self._metrics.ended(name)
            socket_path.unlink(missing_ok=True)  # noqa: ASYNC240 - one call, once a process's life
            await asyncio.sleep(RESTART_DELAY_S)

    async def _read_metrics(self) -> None:
        while True:
            await asyncio.sleep(READ_METRICS_S)
            for name, socket_path in list(self._sockets.items()):
                try:
                    status, page = await get(socket_path, "/metrics")
                except ProcessSilent:
                    continue
                if status == 200:
                    self._metrics.read(name, page.decode())
