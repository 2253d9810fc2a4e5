from dataclasses import replace

import pytest

from tests.fault.drill import drill
from tests.fault.load_records import HUNG_UP
from tests.fault.paired_stack import PACED_DEADLINE_S, PACED_RATE_PER_S_MAX, paced_questions

pytestmark = pytest.mark.fault

SHARE = 0.1


def test_a_tenth_of_clients_that_hang_up_harms_none_of_their_batch_mates(paired, timing, keep):
    slower = replace(timing, rate_per_s=min(timing.rate_per_s, PACED_RATE_PER_S_MAX))
    # Batches take long enough for clients to leave while theirs is being computed.
    questions = paced_questions(paired)
    with (
        drill(paired.gateway, questions, slower, deadline_s=PACED_DEADLINE_S, hang_up_share=SHARE) as running,
        running.fault(),
    ):
        pass
    record = running.record(7, "a tenth of the clients hang up at random")
    keep(record)
    kinds = running.load.kinds()
    assert kinds[HUNG_UP] > 0
    assert set(kinds) == {"whole", HUNG_UP}
    running.held.assert_returned(paired.gateway)
