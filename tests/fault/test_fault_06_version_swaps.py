import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fault.drill import drill
from tests.fault.load_records import Asked
from tests.fault.paced_runtime import publish_paced
from tests.fault.paired_stack import DEADLINE_S, PairedStack, paced_questions
from tests.integration.gateway_client import Client, until
from tests.integration.gateway_stack import Gateway
from tests.unit.model_workers.admin_port import AdminPort

pytestmark = pytest.mark.fault

MODEL = "swap"
HEADERS = {"x-sekisho-actor": "fault-tests", "x-sekisho-reason": "a swap under load"}


@dataclass(slots=True)
class Served:
    """When a version could answer without a name, in seconds of the monotonic clock."""

    from_s: float
    until_s: float = float("inf")


@pytest.fixture
def gateway(paired: PairedStack) -> Iterator[Gateway]:
    with paired.further_gateway() as own:
        yield own
    for port in paired.control_ports.values():
        AdminPort(port).done("load", MODEL, "1")  # other gateways' routes name it


def change(gateway: Gateway, method: str, path: str, document: Any = None) -> Any:
    """Write to the admin port, which must take it."""
    with Client(gateway.admin_port) as client:
        body = None if document is None else json.dumps(document).encode()
        reply = client.ask(
            method, f"/admin/v1/models/{MODEL}/{path}", body, {"content-type": "application/json", **HEADERS}
        )
    assert reply.status in {200, 201}, reply.body
    return reply.json


def swap(paired: PairedStack, gateway: Gateway, old: int, new: int, served: dict[str, Served]) -> None:
    """Publish, load, warm, flip, drain, unload."""
    publish_paced(paired.repository, MODEL, new, row_s=0.0, factor=float(new), feature="user_profile:f0")
    controls = [AdminPort(port) for port in paired.control_ports.values()]
    for control in controls:
        control.done("load", MODEL, str(new))
    workers = [f"http://127.0.0.1:{port}" for port in paired.worker_ports.values()]
    change(gateway, "PUT", f"versions/{new}", {"workers": workers})
    until(f"version {new} is ready", lambda: is_ready(gateway, new))
    served[str(new)] = Served(time.monotonic())
    change(gateway, "PUT", "default_version", {"version": str(new)})
    change(gateway, "DELETE", f"versions/{old}")
    served[str(old)].until_s = time.monotonic()
    for control in controls:
        control.done("unload", MODEL, str(old))


def is_ready(gateway: Gateway, version: int) -> bool:
    return bool(gateway.admin("/admin/v1/status")["models"][MODEL]["versions"][str(version)]["ready"])


def was_served(asked: Asked, served: dict[str, Served]) -> bool:
    """Whether its version could answer at some instant between question and answer."""
    version = served[asked.version]
    return version.from_s <= asked.done_s and version.until_s >= asked.due_s


def test_a_version_swap_every_second_under_load_costs_no_answer_and_none_is_of_a_version_that_was_gone(
    paired, gateway, timing, keep
):
    swaps, every_s = (4, 0.5) if timing.mode == "fast" else (20, 1.0)
    factors = {str(version): float(version) for version in range(1, swaps + 2)}
    questions = paced_questions(paired, model=MODEL, factors=factors)
    served = {"1": Served(0.0)}
    with drill(gateway, questions, timing, deadline_s=DEADLINE_S) as running, running.fault(during_s=0.0):
        for version in range(1, swaps + 1):
            begun_s = time.monotonic()
            swap(paired, gateway, version, version + 1, served)
            running.load.run_for(max(0.0, every_s - (time.monotonic() - begun_s)))
    running.figures["swaps"] = f"{swaps} in {running.ended_s - running.began_s:.0f} s"
    record = running.record(6, "a version is swapped for the next one, again and again")
    keep(record)
    assert set(running.load.kinds()) == {"whole"}
    assert {asked.version for asked in running.load.asked} == set(factors)
    assert [asked for asked in running.load.asked if not was_served(asked, served)] == []
    running.held.assert_returned(gateway)
