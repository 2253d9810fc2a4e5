import pytest

from tests.fault.drill import drill
from tests.fault.paired_stack import ranking_questions
from tests.hostile.siege import besiege
from tests.integration.gateway_stack import lines_of_errors

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

DEADLINE_S = 2.0
"""Of this stack's `ranking`."""


def test_hostile_input_on_both_ports_is_refused_by_name_and_changes_no_answer_of_anybody_else(stack, timing, keep):
    requests = 5_000 if timing.mode == "fast" else 100_000
    with (
        drill(stack.gateway, ranking_questions(stack), timing, deadline_s=DEADLINE_S) as running,
        running.fault(during_s=0.0),
    ):
        result = besiege(stack, requests, seed=11)
    running.figures["hostile requests"] = (
        f"{result.tally.requests:,} at {result.tally.requests / result.seconds:,.0f} a second"
    )
    record = running.record(11, "hostile input on both ports")
    keep(record)
    assert result.tally.offenders == []
    assert result.good.problems == []
    assert set(running.load.kinds()) == {"whole"}
    assert stack.gateway.child.ended() is None
    assert lines_of_errors(stack.directory / "gateway-0.log") == []
    running.held.assert_returned(stack.gateway)
