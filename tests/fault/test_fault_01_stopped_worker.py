import os
import signal

import pytest

from tests.fault.drill import drill
from tests.fault.gateway_counters import (
    second_attempts,
    second_attempts_since,
    wait_until_ejected,
    wait_until_readmitted,
)
from tests.fault.paired_stack import DEADLINE_S, ranking_questions
from tests.integration.gateway_client import until

pytestmark = pytest.mark.fault

GOOD_SHARE_MIN = 0.9
"""Of requests that were due while one of two workers was stopped; what it held at that moment may be late."""


def test_one_of_two_workers_that_stops_costs_callers_at_most_what_it_held_and_is_ejected(paired, timing, keep):
    pid, gateway = paired.workers["a"].pid, paired.gateway
    before = second_attempts(gateway, "ranking")
    with drill(gateway, ranking_questions(paired), timing, deadline_s=DEADLINE_S) as running:
        with running.fault(lambda: os.kill(pid, signal.SIGCONT)):
            os.kill(pid, signal.SIGSTOP)
            running.figures["ejected after s"] = f"{wait_until_ejected(gateway, 'ranking'):.2f}"
        wait_until_readmitted(gateway, "ranking")
        running.figures["given work again after s"] = f"{running.healed_for_s:.1f}"
    running.figures["dispatch"] = second_attempts_since(gateway, "ranking", before)
    record = running.record(1, "one of two workers is stopped (SIGSTOP), and goes on")
    keep(record)
    assert not [a for a in running.load.asked if a.kind == "wrong answer"]
    assert record.during.good >= GOOD_SHARE_MIN
    assert record.recovered_s is not None
    until("both workers answer again", gateway.all_ready)
    running.held.assert_returned(gateway)
