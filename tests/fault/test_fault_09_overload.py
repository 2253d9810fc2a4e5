from dataclasses import replace

import pytest

from tests.fault.drill import Timing, drill
from tests.fault.fault_record import FaultRecord, failures, fallbacks, noticed_s, recovered_s, span, whole_s
from tests.fault.gateway_counters import second_attempts, second_attempts_since
from tests.fault.held_resources import HeldResources
from tests.fault.load_records import Asked, LoadSpec, Phase
from tests.fault.paired_stack import PACED_CAPACITY_PER_S, PACED_DEADLINE_S, paced_questions
from tests.fault.running_load import running_load

pytestmark = pytest.mark.fault

BELOW, OVER = 0.6, 3.0
"""Load by capacity: before and after the step, and during it."""

BUSY = 0.8
BUSY_SHARE_MIN = 0.9
"""Of a load that the workers can do; what was measured is in the report."""

SETTLED_S = 1.0
"""How long the limit may look for its place after a step."""

GOODPUT_SHARE_MIN = 0.7
CRITICAL_SHARE_MIN = 0.75
"""What is asserted, on however busy a machine; what was measured is in the report."""


def test_a_step_to_three_times_capacity_leaves_goodput_and_critical_callers_as_they_were(paired, timing, keep):
    seconds = (1.2, 2.5, 2.5) if timing.mode == "fast" else (4.0, 15.0, 8.0)
    rates = (BELOW, OVER, BELOW)
    # One in ten is critical: three tenths of the capacity during the step.
    questions = paced_questions(paired, priority="critical") + paced_questions(paired) * 9
    critical = {n for n, question in enumerate(questions) if question.headers}
    held = HeldResources.settled(paired.gateway)
    spec = LoadSpec(
        ports=(paired.gateway.port,),
        questions=questions,
        phases=tuple(Phase(s, r * PACED_CAPACITY_PER_S) for s, r in zip(seconds, rates, strict=True)),
        connections_max=1_500,
    )
    with running_load(spec) as load:
        load.finish()
    asked = load.asked
    step_s = min(a.due_s for a in asked) + seconds[0]
    record = summed_up(asked, step_s, step_s + seconds[1], timing)
    settled = [a for a in asked if step_s + SETTLED_S <= a.due_s < step_s + seconds[1]]
    critical_share = sum(a.right for a in settled if a.question in critical) / sum(
        a.question in critical for a in settled
    )
    goodput_per_s = span(asked, step_s + SETTLED_S, step_s + seconds[1], PACED_DEADLINE_S).goodput_per_s
    record.figures["goodput over capacity"] = f"{goodput_per_s / PACED_CAPACITY_PER_S:.0%}"
    record.figures["critical answered"] = f"{critical_share:.1%}"
    keep(record)
    assert set(record.failures) <= {"503 overloaded", "504 deadline_exceeded"}
    assert goodput_per_s >= GOODPUT_SHARE_MIN * PACED_CAPACITY_PER_S
    assert critical_share >= CRITICAL_SHARE_MIN
    assert record.recovered_s is not None
    assert record.recovered_s <= 5.0
    held.assert_returned(paired.gateway)


def test_a_load_of_four_fifths_of_capacity_is_no_overload(paired, timing, keep):
    busy = replace(timing, rate_per_s=BUSY * PACED_CAPACITY_PER_S)
    before = second_attempts(paired.gateway, "paced")
    with (
        drill(paired.gateway, paced_questions(paired), busy, deadline_s=PACED_DEADLINE_S) as running,
        running.fault(),
    ):
        pass
    running.figures["dispatch"] = second_attempts_since(paired.gateway, "paced", before)
    record = running.record(9, "none: load is 0.8 of capacity")
    keep(record)
    assert set(record.failures) <= {"503 overloaded"}
    assert record.during.good >= BUSY_SHARE_MIN
    running.held.assert_returned(paired.gateway)


def summed_up(asked: list[Asked], from_s: float, until_s: float, timing: Timing) -> FaultRecord:
    """Sum up a step of load. Its time after begins when it ends."""
    begun_s, over_s = min(a.due_s for a in asked), max(a.due_s for a in asked)
    before = span(asked, begun_s, from_s, PACED_DEADLINE_S)
    return FaultRecord(
        number=9,
        fault="load steps from 0.6 to 3 times capacity, and back",
        mode=timing.mode,
        before=before,
        during=span(asked, from_s, until_s, PACED_DEADLINE_S),
        after=span(asked, until_s, over_s, PACED_DEADLINE_S),
        failures=failures(asked, from_s),
        fallbacks=fallbacks(asked, from_s),
        noticed_s=noticed_s(asked, from_s, until_s, PACED_DEADLINE_S),
        recovered_s=recovered_s(asked, until_s, over_s, timing.recovered_for_s, before, PACED_DEADLINE_S),
        whole_s=whole_s(asked, until_s),
        figures={},
    )
