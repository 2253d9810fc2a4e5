import os
import signal
from dataclasses import replace

import pytest

from tests.fault.drill import drill
from tests.fault.gateway_counters import second_attempts, second_attempts_since
from tests.fault.paired_stack import PACED_DEADLINE_S, PACED_RATE_PER_S_MAX, paced_questions

pytestmark = pytest.mark.fault

HELD_MAX = 2 * 8
"""Requests that one worker can hold: two batches of the model's eight rows."""


def test_a_worker_that_is_killed_in_mid_batch_costs_at_most_what_it_held(paired, timing, keep):
    def restart() -> None:
        paired.start_worker("a")
        paired.wait_until_ready(paired.gateway, paired.workers["a"])

    before = second_attempts(paired.gateway, "paced")
    slower = replace(timing, rate_per_s=min(timing.rate_per_s, PACED_RATE_PER_S_MAX))
    # Each batch takes its time, so that some are under way at any moment.
    with (
        drill(paired.gateway, paced_questions(paired), slower, deadline_s=PACED_DEADLINE_S) as running,
        running.fault(restart),
    ):
        os.kill(paired.workers["a"].pid, signal.SIGKILL)
    running.figures["dispatch"] = second_attempts_since(paired.gateway, "paced", before)
    record = running.record(2, "one of two workers is killed in mid-batch, and started again")
    keep(record)
    assert not [a for a in running.load.asked if a.kind == "wrong answer"]
    assert sum(record.failures.values()) <= HELD_MAX
    assert record.recovered_s is not None
    running.held.assert_returned(paired.gateway)
