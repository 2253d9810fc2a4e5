"""Which calls a full queue keeps, beside a list that is sorted anew each time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.inference import PRIORITY_FIRST, PRIORITY_LAST
from model_workers.call_queue import Call, CallQueue
from model_workers.errors import QueueFull
from tests.unit.model_workers.fake_parts import rows_of

ROWS_MAX = 12

CALLS = st.lists(
    st.tuples(st.integers(1, ROWS_MAX + 1), st.integers(1, 2), st.integers(PRIORITY_FIRST, PRIORITY_LAST)), max_size=20
)


def kept_after(kept, arriving):
    """Return the calls that are kept once `arriving` came, by the rule as written; None: it is refused."""
    kept = [*kept]
    lowest_and_newest_first = sorted(kept, key=lambda call: (call.priority, call.queued_us), reverse=True)
    for call in [None, *lowest_and_newest_first]:
        if call is not None and call.priority <= arriving.priority:
            return None
        if call is not None:
            kept.remove(call)
        if sum(other.rows.count for other in kept) + arriving.rows.count <= ROWS_MAX:
            return [*kept, arriving]
    return None


@given(CALLS)
def test_a_full_queue_keeps_the_higher_priorities_and_of_one_priority_the_older_calls(arrivals):
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        queue, kept = CallQueue(ROWS_MAX), []
        for now_us, (rows, columns, priority) in enumerate(arrivals):
            call = Call(rows_of(*range(rows), columns=columns), (), now_us, None, priority, loop.create_future())
            expected = kept_after(kept, call)
            displaced = [] if expected is None else [other for other in kept if other not in expected]
            if expected is None:
                with pytest.raises(QueueFull, match=f"^{queue.rows} rows wait already"):
                    queue.add(call)
            else:
                queue.add(call)
                kept = expected
            assert set(queue) == set(kept)
            assert queue.rows == sum(other.rows.count for other in kept) <= ROWS_MAX
            assert all(isinstance(other.answer.exception(), QueueFull) for other in displaced)
            assert not any(other.answer.done() for other in kept)
