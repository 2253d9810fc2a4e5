import os
import signal
from dataclasses import replace

import pytest

from tests.fault.drill import drill
from tests.fault.fault_proxy import Fault, FaultProxy
from tests.fault.paired_stack import DEADLINE_S, FALLBACKS, ranking_questions

pytestmark = pytest.mark.fault

ANSWERED = {"whole", *FALLBACKS, "+".join(FALLBACKS)}
"""Every kind of answer that there may be: with stored features, or with defaults of one view or both."""

REFUSALS = {
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
}


def refuse_each(refusal: bytes):
    """Answer each command of a chunk; a read of rows is one command."""
    return lambda chunk: refusal * max(1, chunk.count(b"\r\nMGET\r\n"))


def test_while_redis_is_gone_defaults_stand_in_even_for_a_gateway_that_starts(paired, timing, keep):
    seen = ("--state-dir", str(paired.directory / "state-of" / "gateway-0"))
    with drill(paired.gateway, ranking_questions(paired), timing, deadline_s=DEADLINE_S) as running:
        with running.fault(paired.bring_redis_back):
            os.kill(paired.redis.pid, signal.SIGKILL)
            with paired.further_gateway(*seen) as starting, starting.client() as client:
                reply = client.predict("ranking", {"entities": {"user": "u1", "item": "i1"}})
        running.wait_until_whole()
    record = running.record(4, "Redis is killed, and comes back with its rows")
    keep(record)
    assert (reply.status, reply.json["degraded"]) == (200, list(FALLBACKS))
    assert set(running.load.kinds()) <= ANSWERED
    assert record.recovered_s is not None
    running.held.assert_returned(paired.gateway)


def test_while_redis_refuses_every_read_defaults_stand_in(paired, timing, keep):
    brief = replace(timing, during_s=timing.during_s / 3, after_s=max(0.55, timing.after_s / 3))
    records = []
    with (
        FaultProxy(paired.redis_socket) as proxy,
        paired.further_gateway("--redis", f"redis://127.0.0.1:{proxy.port}") as gateway,
    ):
        with drill(gateway, ranking_questions(paired), brief, deadline_s=DEADLINE_S) as running:
            for code, refusal in REFUSALS.items():
                with running.fault(proxy.heal):
                    proxy.set(Fault(answer=refuse_each(refusal)))
                running.run_after()
                running.wait_until_whole()
                records.append(running.record(4, f"Redis refuses every read with {code}"))
        running.held.assert_returned(gateway)
    for record in records:
        keep(record)
    assert set(running.load.kinds()) <= ANSWERED
    assert [record.fault for record in records if record.recovered_s is None or not record.fallbacks] == []
