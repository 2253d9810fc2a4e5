import os
import signal

import pytest

from tests.fault.drill import drill
from tests.fault.held_resources import HeldResources
from tests.fault.paired_stack import DEADLINE_S, ranking_questions
from tests.integration.gateway_client import until

pytestmark = pytest.mark.fault

GRACE_S = 1.0


def test_no_client_with_pooled_connections_sees_an_error_when_one_of_two_gateways_is_ended(paired, timing, keep):
    leaving = paired.start_gateway("--shutdown-grace-s", str(GRACE_S))
    held = HeldResources.settled(paired.gateway)
    # Clients hear `connection: close` from the gateway that leaves, and connect to the other, as behind any balancer.
    ports = (leaving.port, paired.gateway.port)
    with (
        drill(leaving, ranking_questions(paired), timing, deadline_s=DEADLINE_S, ports=ports) as running,
        running.fault(during_s=GRACE_S + 0.5),
    ):
        os.kill(leaving.child.pid, signal.SIGTERM)
    until("the gateway has ended", lambda: leaving.child.ended() == "exit code 0")
    record = running.record(5, "one of two gateways is ended (SIGTERM)")
    keep(record)
    assert set(running.load.kinds()) == {"whole"}
    held.assert_returned(paired.gateway)


def test_no_client_sees_an_error_when_one_of_two_workers_is_ended_and_comes_back(paired, timing, keep):
    def restart() -> None:
        paired.workers["a"].stop(timeout_s=30.0)
        paired.start_worker("a")
        paired.wait_until_ready(paired.gateway, paired.workers["a"])

    with (
        drill(paired.gateway, ranking_questions(paired), timing, deadline_s=DEADLINE_S) as running,
        running.fault(restart),
    ):
        os.kill(paired.workers["a"].pid, signal.SIGTERM)
    record = running.record(5, "one of two workers is ended (SIGTERM), and comes back")
    keep(record)
    assert set(running.load.kinds()) == {"whole"}
    running.held.assert_returned(paired.gateway)
