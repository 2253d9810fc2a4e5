import pytest

from tests.hostile.siege import besiege
from tests.integration.gateway_stack import Stack, lines_of_errors

pytestmark = pytest.mark.integration

REQUESTS = 20_000


def test_twenty_thousand_hostile_requests_break_nothing_harm_nobody_and_leave_nothing_behind(tmp_path):
    stack = Stack(tmp_path)
    try:
        stack.start()
        result = besiege(stack, REQUESTS, seed=1)
        assert stack.gateway.child.ended() is None
        assert lines_of_errors(tmp_path / "gateway-0.log") == []
    finally:
        stack.stop()
    assert result.tally.offenders == []
    assert (result.good.wrong, result.good.problems) == (0, [])
    assert result.good.answers > 100
