"""Real Redis servers of every kind, started by tests: single ones, a cluster, a master with its sentinels, with TLS."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest
import redis

from settings.child_process import ChildProcess
from tests.integration.gateway_client import until
from tests.integration.gateway_stack import free_ports

READY_TIMEOUT_S: Final = 10.0
SLOTS: Final = 16_384


def server_program() -> Path:
    """The redis-server of the PATH; the test is skipped where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("there is no redis-server on the PATH")
    return Path(found)


class RedisServer:
    """One server on a loopback port. arguments: its options, as on its command line; client: how tests log in."""

    def __init__(
        self, directory: Path, *arguments: str, port: int | None = None, config: Path | None = None, **client: Any
    ) -> None:
        self.port = free_ports(1)[0] if port is None else port
        self.bus_port = 0
        """For the other nodes of a cluster."""
        self.log_file = directory / f"{self.port}.log"
        self._client: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "socket_timeout": 2.0, **client}
        program = [str(server_program()), *(() if config is None else (str(config),))]
        listen = ("--port", "0", "--tls-port") if client.get("ssl") else ("--port",)
        files = ("--bind", "127.0.0.1", "--dir", str(directory), "--logfile", str(self.log_file))
        self._child = ChildProcess([*program, *listen, str(self.port), *files, *arguments], directory=directory)

    @property
    def pid(self) -> int:
        """Its process id, for signals."""
        return self._child.pid

    def __enter__(self) -> Self:
        self._child.start()
        try:
            until(f"Redis answers on {self.port}", self._answers, READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it. Harmless where it has ended."""
        self._child.stop()

    def ask(self, *command: Any) -> Any:
        """Send one command with a client of its own, which says `CLUSTER SLOTS` and the like as they come."""
        with redis.Redis(**self._client) as client:
            return client.execute_command(*command)

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Set values by key, one by one, as a node of a cluster wants it."""
        with redis.Redis(**self._client) as client, client.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(key, value)
            pipeline.execute()

    def _answers(self) -> bool:
        assert self._child.ended() is None, f"{self._child.ended()}:\n{self.log_file.read_text()[-2_000:]}"
        try:
            self.ask("INFO", "server")
        except redis.BusyLoadingError:
            return True
        except (redis.RedisError, OSError):
            return False
        return True


@contextmanager
def cluster(directory: Path, *arguments: str, nodes: int = 3, **client: Any) -> Iterator[list[RedisServer]]:
    """Start masters that share all slots evenly, each knowing the others."""
    with ExitStack() as started:
        servers = [started.enter_context(cluster_node(directory, *arguments, **client)) for _node in range(nodes)]
        for index, server in enumerate(servers):
            first, last = index * SLOTS // nodes, (index + 1) * SLOTS // nodes - 1
            server.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for server in servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus_port)
        for server in servers:
            until("the cluster is whole", lambda server=server: knows_cluster(server, nodes), READY_TIMEOUT_S)
        yield servers


def cluster_node(directory: Path, *arguments: str, **client: Any) -> RedisServer:
    """A server that is ready to be met by a cluster."""
    port, bus = free_ports(2)
    # The default bus port is 10,000 above, which may be no port at all.
    options = ("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf", "--cluster-port", str(bus))
    quick = ("--save", "", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
    options += ("--cluster-require-full-coverage", "no")
    server = RedisServer(directory, *options, *quick, *arguments, port=port, **client)
    server.bus_port = bus
    return server


def knows_cluster(server: RedisServer, nodes: int) -> bool:
    """Whether a node sees a working cluster of so many masters."""
    ports = {entry[2][1] for entry in server.ask("CLUSTER", "SLOTS")}
    return b"cluster_state:ok" in server.ask("CLUSTER", "INFO") and len(ports) == nodes


def move_slot(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Begin to move a slot: from now on the source asks for what it has not, and the target takes what is asked."""
    source_id, target_id = (server.ask("CLUSTER", "MYID").decode() for server in (source, target))
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)


def end_move(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Let the target have the slot."""
    target_id = target.ask("CLUSTER", "MYID").decode()
    for server in (target, source):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
