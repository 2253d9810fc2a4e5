import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.fault.drill import FAST, FULL, Drill, drill
from tests.fault.fault_proxy import Fault, FaultProxy
from tests.fault.fault_record import FaultRecord
from tests.fault.paired_stack import DEADLINE_S, PairedStack, ranking_questions
from tests.integration.gateway_stack import Gateway

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

LIE = b"99999999999"
SECOND_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

OF_ANY_PEER = {
    "is slow": Fault(latency_s=0.03),
    "stalls": Fault(stalls=True),
    "sends every answer in pieces": Fault(piece_bytes=97),
    "cuts every answer short, and closes slowly": Fault(cut_after_bytes=40, cut_slowly_s=0.5),
    "resets in the middle of every answer": Fault(cut_after_bytes=40, resets=True),
    "answers with garbage": Fault(change=lambda data: b"\0" * len(data)),
}
OF_WORKERS = {
    **OF_ANY_PEER,
    "gives two answers to one request": Fault(change=lambda data: data + SECOND_ANSWER),
    "says that its answer has 99999999999 bytes": Fault(
        change=lambda data: re.sub(rb"(?i)\r\ncontent-length: \d+", b"\r\ncontent-length: " + LIE, data)
    ),
    "says that its JSON has 99999999999 bytes": Fault(
        change=lambda data: re.sub(rb"(?i)(header-content-length): \d+", rb"\1: " + LIE, data)
    ),
}
OF_REDIS = {
    **OF_ANY_PEER,
    "says that a row has 99999999999 bytes": Fault(
        change=lambda data: re.sub(rb"\$\d+\r\n", b"$" + LIE + b"\r\n", data)
    ),
    "sends the rows twice": Fault(change=lambda data: data + data),
}

REFUSES = Fault()
"""Stands for a proxy that ends every connection and takes no new one."""

FAST_EACH = replace(FAST, during_s=0.35, after_s=0.55)
FULL_EACH = replace(FULL, during_s=3.0, after_s=2.0)
"""There are many of these: they come one after the other, with a time to recover after each."""


@contextmanager
def proxied_worker(paired: PairedStack) -> Iterator[tuple[Gateway, FaultProxy]]:
    """Start a gateway that reaches worker `a` through a proxy, and worker `b` and Redis directly."""
    with FaultProxy(paired.worker_ports["a"]) as proxy:
        routes = paired.write_models("proxied.yaml", proxy.port, paired.worker_ports["b"])
        with paired.further_gateway("--config", str(routes)) as gateway:
            yield gateway, proxy


@contextmanager
def proxied_redis(paired: PairedStack) -> Iterator[tuple[Gateway, FaultProxy]]:
    """Start a gateway that reaches Redis through a proxy, and its workers directly."""
    with (
        FaultProxy(paired.redis_socket) as proxy,
        paired.further_gateway("--redis", f"redis://127.0.0.1:{proxy.port}") as gateway,
    ):
        yield gateway, proxy


def one_after_the_other(
    running: Drill, peer: str, proxy: FaultProxy, faults: dict[str, Fault]
) -> Iterator[FaultRecord]:
    """Have each fault for a while, with some quiet after it."""
    for what, fault in faults.items():
        with running.fault(proxy.accept if fault is REFUSES else proxy.heal):
            proxy.refuse() if fault is REFUSES else proxy.set(fault)
        running.run_after()
        yield running.record(3, f"{peer} {what}")


def assert_harmless(running: Drill, records: list[FaultRecord]) -> None:
    """No answer was wrong, every refusal was a 503 or 504, every fault was recovered from, and nothing is left."""
    assert not [asked for asked in running.load.asked if asked.kind == "wrong answer"]
    assert {kind[:3] for record in records for kind in record.failures} <= {"503", "504"}
    assert [record.fault for record in records if record.recovered_s is None] == []
    running.held.assert_returned(running.gateway)


@pytest.mark.parametrize(
    ("peer", "proxied", "faults"),
    [("one of two workers", proxied_worker, OF_WORKERS), ("Redis", proxied_redis, OF_REDIS)],
    ids=["to a worker", "to Redis"],
)
def test_a_bad_network_never_makes_a_wrong_answer_and_is_recovered_from(paired, timing, keep, peer, proxied, faults):
    brief = FAST_EACH if timing.mode == "fast" else FULL_EACH
    with proxied(paired) as (gateway, proxy):
        with drill(gateway, ranking_questions(paired), brief, deadline_s=DEADLINE_S) as running:
            records = list(one_after_the_other(running, peer, proxy, {**faults, "refuses connections": REFUSES}))
        for record in records:
            keep(record)
        assert_harmless(running, records)
