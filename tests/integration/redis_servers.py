"""Real Redis servers of every kind, started by tests: single ones, a cluster, a master with its sentinels, with TLS."""

import shutil
import subprocess
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
    options += ("--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no")
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


def sentinel(directory: Path, master: RedisServer, *lines: str, **client: Any) -> RedisServer:
    """A sentinel that watches `master` under the name `rows`, alone, and gives it up after half a second."""
    config = directory / f"sentinel-{master.port}.conf"
    watched = (
        f"sentinel monitor rows 127.0.0.1 {master.port} 1",
        "sentinel down-after-milliseconds rows 500",
        "sentinel failover-timeout rows 3000",
        *lines,
    )
    config.write_text("\n".join(watched) + "\n", encoding="utf-8")
    return RedisServer(directory, "--sentinel", config=config, **client)


class Certificates:
    """A certificate authority of its own, with a server's certificate for 127.0.0.1 and a client's."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("openssl")
        if program is None:
            pytest.skip("there is no openssl on the PATH")
        self._program, self._directory = program, directory
        self._run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority", "ca")
        self._issue("server", "subjectAltName=IP:127.0.0.1")
        self._issue("client", "extendedKeyUsage=clientAuth,serverAuth")

    def file(self, name: str) -> str:
        """A file by its name: ca.crt, server.key, client.crt and so on."""
        return str(self._directory / name)

    @property
    def server_options(self) -> tuple[str, ...]:
        """What makes a server speak TLS, and take only clients with a certificate."""
        files = (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt"))
        named = [(f"--tls-{option}-file", self.file(name)) for option, name in files]
        return tuple(part for pair in named for part in pair)

    @property
    def client_options(self) -> dict[str, Any]:
        """What makes redis-py speak it."""
        certificate = {"ssl_certfile": self.file("client.crt"), "ssl_keyfile": self.file("client.key")}
        return {"ssl": True, "ssl_ca_certs": self.file("ca.crt"), **certificate}

    @property
    def url_options(self) -> str:
        """The same, behind a Redis URL."""
        certificate = f"ssl_certfile={self.file('client.crt')}&ssl_keyfile={self.file('client.key')}"
        return f"?ssl_ca_certs={self.file('ca.crt')}&{certificate}"

    def _issue(self, name: str, extension: str) -> None:
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(extension + "\n", encoding="utf-8")
        self._run("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", name, suffix="csr")
        authority = ("-CA", self.file("ca.crt"), "-CAkey", self.file("ca.key"), "-CAcreateserial", "-days", "2")
        request = ("x509", "-req", "-in", self.file(f"{name}.csr"), *authority, "-extfile", str(extensions))
        subprocess.run([self._program, *request, "-out", self.file(f"{name}.crt")], check=True, capture_output=True)

    def _run(self, *arguments: str, suffix: str = "crt") -> None:
        *options, name = arguments
        files = ("-keyout", self.file(f"{name}.key"), "-out", self.file(f"{name}.{suffix}"))
        subprocess.run([self._program, *options, *files], check=True, capture_output=True)
