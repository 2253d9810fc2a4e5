"""What a constant answer costs the lean HTTP server, and what it costs uvicorn: CPU of the server's process a request.

    python tests/benchmarks/http_server.py [--seconds 3] [--rounds 3]

Both servers answer the same request with the same bytes, alternately, over 64 keep-alive connections from one client.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil
import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from http_server.exchange import Exchange, Header  # noqa: E402 - the path is set above
from http_server.server import HttpServer  # noqa: E402

CONNECTIONS = 64
READY_S_MAX = 20
ANSWER = b'{"predictions":[0.12345678901234567],"model":"bench","version":"1","degraded":[]}'
REQUEST = b'POST /v1/models/bench:predict HTTP/1.1\r\nhost: h\r\ncontent-length: 27\r\n\r\n{"entities":{"user":"u42"}}'


class Constant:
    """Answers every request alike."""

    def body_bytes_max(self, target: bytes) -> int:
        """Return a bound that nothing here meets."""
        return 1 << 20

    def serve(self, exchange: Exchange) -> None:
        """Answer."""
        exchange.respond(200, b"content-type: application/json\r\n", ANSWER)

    def refusal(self, status: int, detail: str, target: bytes, headers: list[Header]) -> tuple[bytes, bytes]:
        """Say why."""
        return b"", detail.encode()


class Client(asyncio.Protocol):
    """Asks again whenever it has its answer, until told to stop."""

    def __init__(self, answered: list[int]) -> None:
        self._answered, self._transport = answered, None
        self.stopped = False

    def connection_made(self, transport) -> None:
        """Ask."""
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count an answer; uvicorn sends head and body apart."""
        if data.endswith(b"}"):
            self._answered[0] += 1
            if not self.stopped:
                self._transport.write(REQUEST)


async def lean(port: int) -> None:
    """Serve the constant answer on the lean server until killed."""
    server = HttpServer(Constant(), wall_s=time.time)
    await server.listen(socket.create_server(("127.0.0.1", port)))
    await asyncio.Event().wait()


async def measure(process: psutil.Process, port: int, seconds: float) -> float:
    """Return µs of CPU a request."""
    loop, answered = asyncio.get_running_loop(), [0]
    clients = [(await loop.create_connection(lambda: Client(answered), "127.0.0.1", port))[1] for _ in range(64)]
    await asyncio.sleep(0.5)
    before, begun = answered[0], sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    spent, served = sum(process.cpu_times()[:2]) - begun, answered[0] - before
    for client in clients:
        client.stopped = True
    await asyncio.sleep(0.1)
    return spent / served * 1e6


def main() -> None:
    """Start both servers, alternate, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(lean(given.serve))
        return
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    commands = {
        "lean server": [sys.executable, __file__, "--serve", str(ports[0])],
        "uvicorn": [sys.executable, "-m", "loadtests.baselines.bare_uvicorn", "--port", str(ports[1])],
    }
    processes = [subprocess.Popen(command, cwd=ROOT) for command in commands.values()]
    try:
        for port in ports:
            wait_for(port)
        found: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(given.rounds):
            for name, process, port in zip(commands, processes, ports, strict=True):
                found[name].append(uvloop.run(measure(psutil.Process(process.pid), port, given.seconds)))
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    for name, figures in found.items():
        print(f"{name:12} {median(figures):6.1f} µs of CPU a request ({min(figures):.1f} to {max(figures):.1f})")


def wait_for(port: int) -> None:
    """Wait until something listens."""
    until = time.monotonic() + READY_S_MAX
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main()
