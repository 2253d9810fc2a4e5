"""What a process holds of the machine and of its event loop, before and after a fault."""

import re
from dataclasses import dataclass
from typing import Self

import psutil
from psutil import CONN_ESTABLISHED

from tests.integration.gateway_client import until
from tests.integration.gateway_stack import Gateway

DESCRIPTORS_SLACK = 10
"""The readiness checks of eight replicas have a connection each, which is made anew within a second."""

TASKS_SLACK = 2
MEMORY_SLACK_MB = 48.0
"""Of what an allocator keeps after a burst of concurrent requests; a leak grows beyond it in the full mode."""

RETURN_S = 15.0


@dataclass(frozen=True, slots=True)
class HeldResources:
    """Of one gateway. descriptors: but those of connections whose client is still there. tasks: of its event loop."""

    descriptors: int
    memory_mb: float
    tasks: int

    @classmethod
    def of(cls, gateway: Gateway) -> Self:
        """Look now."""
        process = psutil.Process(gateway.child.pid)
        ports = {gateway.port, gateway.admin_port}
        connected = sum(c.status == CONN_ESTABLISHED and c.laddr.port in ports for c in process.net_connections("tcp"))
        tasks = re.search(r"^sekisho_event_loop_tasks(?:\{[^}]*\})? (\S+)", gateway.metrics(), re.MULTILINE)
        return cls(process.num_fds() - connected, process.memory_info().rss / 1e6, int(float(tasks[1])) if tasks else 0)

    @classmethod
    def settled(cls, gateway: Gateway) -> Self:
        """Look once the gateway has connected to every worker again, after whatever was before."""
        until("every worker is connected", lambda: every_worker_is_connected(gateway), RETURN_S)
        return cls.of(gateway)

    def returned(self, gateway: Gateway) -> bool:
        """Whether the gateway holds no more than this, give or take the named slack."""
        now = HeldResources.of(gateway)
        return (
            now.descriptors <= self.descriptors + DESCRIPTORS_SLACK
            and now.tasks <= self.tasks + TASKS_SLACK
            and now.memory_mb <= self.memory_mb + MEMORY_SLACK_MB
        )

    def assert_returned(self, gateway: Gateway) -> None:
        """Wait until descriptors, tasks and memory are back, and nothing is in flight. Fails after RETURN_S."""
        until("nothing is in flight", lambda: nothing_is_in_flight(gateway), RETURN_S)
        try:
            until("descriptors, tasks and memory are back", lambda: self.returned(gateway), RETURN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: before {self}, now {HeldResources.of(gateway)}") from None


def every_worker_is_connected(gateway: Gateway) -> bool:
    """Whether there are as many connections to each worker as to any other, and some."""
    connections = re.findall(r"^sekisho_worker_connections\{.*\} (\S+)", gateway.metrics(), re.MULTILINE)
    return len(set(connections)) == 1 and float(connections[0]) > 0


def nothing_is_in_flight(gateway: Gateway) -> bool:
    """Whether no request is in flight, no row waits, and no worker owes one."""
    status = gateway.admin("/admin/v1/status")
    versions = [version for model in status["models"].values() for version in model["versions"].values()]
    owed = sum(worker["outstanding_rows"] for version in versions for worker in version["workers"].values())
    waiting = re.findall(r"^sekisho_dispatch_rows_waiting\{.*\} (\S+)", gateway.metrics(), re.MULTILINE)
    return status["requests_in_flight"] == 0 and owed == 0 and not any(float(rows) for rows in waiting)
