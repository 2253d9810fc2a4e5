from dataclasses import replace

import pytest

from tests.fault.drill import FAST, FULL, drill
from tests.fault.fault_proxy import Fault, FaultProxy
from tests.fault.paired_stack import PACED_DEADLINE_S, PACED_RATE_PER_S_MAX, paced_questions
from tests.unit.model_workers.admin_port import AdminPort

pytestmark = pytest.mark.fault

MODEL = "paced"
BRIEF = replace(FAST, during_s=0.4, after_s=0.4, recovered_for_s=0.3)
BRIEF_FULL = replace(FULL, during_s=3.0, after_s=2.0, rate_per_s=PACED_RATE_PER_S_MAX)


def refusing(status: int) -> Fault:
    """Answer every inference with this status; readiness checks go through."""

    def change(data: bytes) -> bytes:
        if b"inference-header-content-length" not in data.lower():
            return data
        body = b'{"error":"no"}'
        return b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)

    return Fault(change=change)


def test_a_worker_that_says_it_is_ready_and_refuses_what_it_is_sent_is_seen_by_no_caller(paired, timing, keep):
    # A gateway for each: what was refused once is left out for a while.
    brief, statuses = (BRIEF, (404,)) if timing.mode == "fast" else (BRIEF_FULL, (302, 404, 413))
    for status in statuses:
        with FaultProxy(paired.worker_ports["a"]) as proxy:
            routes = paired.write_models("refusing.yaml", proxy.port, paired.worker_ports["b"])
            with paired.further_gateway("--config", str(routes)) as gateway:
                with (
                    drill(gateway, paced_questions(paired), brief, deadline_s=PACED_DEADLINE_S) as running,
                    running.fault(proxy.heal),
                ):
                    proxy.set(refusing(status))
                keep(running.record(12, f"one of two workers answers every inference with {status}, and is ready"))
                assert set(running.load.kinds()) == {"whole"}
                running.held.assert_returned(gateway)


def test_a_model_that_is_unloaded_on_one_of_two_workers_and_loaded_again_costs_no_caller_an_answer(
    paired, timing, keep
):
    brief = BRIEF if timing.mode == "fast" else BRIEF_FULL
    control = AdminPort(paired.control_ports["a"])
    with (
        drill(paired.gateway, paced_questions(paired), brief, deadline_s=PACED_DEADLINE_S) as running,
        running.fault(lambda: control.done("load", MODEL)),
    ):
        control.done("unload", MODEL)
    keep(running.record(12, "a model is unloaded on one of two workers, and loaded again"))
    assert set(running.load.kinds()) == {"whole"}
    running.held.assert_returned(paired.gateway)
