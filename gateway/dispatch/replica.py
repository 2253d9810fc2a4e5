"""One worker of a version, as the gateway sees it: its connections, what it holds, how well it does."""

from gateway.dispatch.outlier_ejection import ReplicaHealth
from gateway.dispatch.worker_address import WorkerAddress
from gateway.dispatch.worker_connection import WorkerConnection


class Replica:
    """One worker: where it is, what is connected, how many rows it holds."""

    __slots__ = (
        "address",
        "answered",
        "connections",
        "health",
        "host_header",
        "outstanding_rows",
        "rests_until_s",
        "retiring",
        "silent_since_s",
        "url",
        "weight",
    )

    def __init__(self, address: WorkerAddress) -> None:
        self.address, self.url, self.host_header = address, address.url, address.host_header
        self.connections: list[WorkerConnection] = []
        self.outstanding_rows = 0
        self.health = ReplicaHealth()
        self.weight = 1.0
        """Its share of what it would be given: below 1 in slow start."""

        self.answered = False
        """Whether the last attempt to connect succeeded."""

        self.retiring = False
        """Whether its address is gone: it finishes what it holds and is given nothing more."""

        self.rests_until_s = 0.0
        """It asked to be left alone until then."""

        self.silent_since_s: float | None = None
        """Since when it holds rows and has answered nothing at all; None: it has answered since, or holds none."""

    @property
    def reachable(self) -> bool:
        """Whether there is a connection, or one that ended is about to be replaced."""
        return self.answered or bool(self.connections)

    @property
    def has_idle_connection(self) -> bool:
        """Whether an exchange may begin now."""
        return self.idle_connection() is not None

    def idle_connection(self) -> WorkerConnection | None:
        """Return a connection on which an exchange may begin."""
        for connection in self.connections:
            if connection.idle:
                return connection
        return None
