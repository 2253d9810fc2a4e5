"""What is sent a second time: hedges for what is late, retries for what has failed, both within one budget."""

import asyncio
from typing import Any

import pytest

from gateway.dispatch.batch_dispatcher import ABOUT_THE_ROWS, HEDGE_AFTER_S_UNKNOWN, UNWANTED_S_MAX, BatchDispatcher
from gateway.dispatch.dispatch_rules import DispatchRules
from gateway.dispatch.retry_budget import RETRIES_MIN
from gateway.errors import WorkerRefused, WorkerUnavailable
from tests.unit.gateway.gateway_fakes import (
    FakeConnection,
    FakePool,
    HandClock,
    in_loop,
    rows_of,
    signature_of_echo,
    turns,
)


class Bench:
    """A dispatcher over two replicas of one connection each."""

    def __init__(self, *, connections: int = 2, **rules: bool) -> None:
        self.clock = HandClock()
        self.pool = FakePool(connections, DispatchRules(**rules))
        self.dispatcher = BatchDispatcher(signature_of_echo(), self.pool, self.clock)

    def __getitem__(self, at: int) -> FakeConnection:
        return self.pool.connections[at]

    def submit(self, *values: float, patience_s: float = 10.0) -> asyncio.Future[Any]:
        return self.dispatcher.submit(rows_of(*values), len(values), self.clock.now_s + patience_s)

    async def grow_late(self, by_s: float = HEDGE_AFTER_S_UNKNOWN + 0.001) -> None:
        """Let time pass, and the timers see it."""
        self.clock.now_s += by_s
        self.dispatcher._hedge_late()
        await turns()

    async def sweep(self) -> None:
        self.dispatcher._sweep()
        await turns()


@in_loop
async def test_rows_that_are_late_go_to_another_replica_too_and_the_first_answer_serves():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    assert [bench[0].sent, bench[1].sent] == [[[1.0]], [[1.0]]]
    bench[1].answer()
    assert (await answer).outputs == [[1.0]]
    assert (bench.dispatcher.hedged, bench.dispatcher.hedges_won) == (1, 1)


@in_loop
async def test_the_answer_that_comes_second_harms_nobody_and_keeps_its_connection():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    bench[0].answer()
    assert (await answer).outputs == [[1.0]]
    assert bench.dispatcher.hedges_won == 0
    bench[1].answer([99.0])
    assert (await answer).outputs == [[1.0]]
    assert bench[1].alive
    assert bench.dispatcher.idle


@in_loop
async def test_a_replica_that_is_not_done_with_what_nobody_wants_any_more_is_cut_off():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    bench[1].answer()
    await answer
    await bench.sweep()
    assert bench[0].alive, "it has a little time yet"
    bench.clock.now_s += UNWANTED_S_MAX
    await bench.sweep()
    assert not bench[0].alive
    assert ("was late", bench[0].replica) in bench.pool.noted
    assert ("failed", bench[0].replica) not in bench.pool.noted
    assert bench[0].replica.outstanding_rows == 0


@in_loop
async def test_rows_are_hedged_once_only_and_not_before_they_are_late():
    bench = Bench(connections=3)
    bench.submit(1.0)
    await turns()
    await bench.grow_late(HEDGE_AFTER_S_UNKNOWN / 2)
    assert bench.dispatcher.hedged == 0
    for _ in range(3):
        await bench.grow_late()
    assert bench.dispatcher.hedged == 1
    assert sum(len(connection.sent) for connection in bench.pool.connections) == 2


@in_loop
async def test_a_hedge_that_finds_all_others_busy_goes_before_rows_that_wait():
    bench = Bench()
    late = bench.submit(1.0, patience_s=HEDGE_AFTER_S_UNKNOWN * 2)
    await turns()
    bench.clock.now_s += HEDGE_AFTER_S_UNKNOWN
    other = bench.submit(2.0)
    await turns()
    waiting = bench.submit(3.0)
    await bench.grow_late(0.001)
    assert bench[1].sent == [[2.0]]
    bench[1].answer()
    await turns()
    assert bench[1].sent == [[2.0], [1.0, 3.0]]
    bench[1].answer()
    assert [(await answer).outputs for answer in (late, other, waiting)] == [[[1.0]], [[2.0]], [[3.0]]]


@in_loop
async def test_a_late_batch_is_hedged_only_where_another_replica_has_nothing_to_do():
    bench = Bench(connections=3)
    bench.submit(1.0)
    await turns()
    for number in (1, 2):
        bench[number].replica.outstanding_rows = 1
    bench.clock.now_s += HEDGE_AFTER_S_UNKNOWN + 0.001
    bench[0].replica.silent_since_s = bench.clock.now_s - 0.001
    bench.dispatcher._hedge_late()
    assert bench.dispatcher.hedged == 0
    bench[2].replica.outstanding_rows = 0
    bench.dispatcher._hedge_late()
    assert bench.dispatcher.hedged == 1


@in_loop
async def test_while_all_are_busy_only_what_a_silent_replica_has_held_for_half_of_its_time_is_hedged():
    bench = Bench()
    bench.submit(1.0, patience_s=0.2)
    await turns()
    bench.submit(2.0, patience_s=0.2)
    await turns()
    bench.submit(3.0)
    await turns()
    bench.clock.now_s += 0.06
    bench.dispatcher._hedge_late()
    assert bench.dispatcher.hedged == 0, "they are late, and have time"
    bench.clock.now_s += 0.05
    bench[0].replica.silent_since_s = bench.clock.now_s - 0.001
    bench.dispatcher._hedge_late()
    assert bench.dispatcher.hedged == 1
    again = bench.dispatcher._queue.first_again
    assert again is not None
    assert again.inputs == rows_of(2.0), "1.0 is as late, but its replica has answered since"


@in_loop
async def test_a_hedge_that_no_other_replica_can_take_yet_holds_up_nobody():
    bench = Bench()
    bench[1].alive = False
    late = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    waiting = bench.submit(2.0)
    bench[0].answer()
    await turns()
    assert (await late).outputs == [[1.0]]
    assert bench[0].sent == [[1.0], [2.0]]
    bench[0].answer()
    assert (await waiting).outputs == [[2.0]]
    bench[1].alive = True
    bench.dispatcher.wake()
    await turns()
    assert bench[1].sent == [], "the late one has its answer"
    assert bench.dispatcher.rows_waiting == 0


@in_loop
async def test_when_hedge_and_original_both_fail_the_caller_is_told_once():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    bench[0].lose()
    await turns()
    assert not answer.done(), "the hedge may still answer"
    bench[1].lose("reset too")
    with pytest.raises(WorkerUnavailable, match="reset too"):
        await answer
    assert bench.dispatcher.idle


@in_loop
async def test_a_pool_of_one_replica_hedges_nothing():
    bench = Bench(connections=1)
    answer = bench.submit(1.0)
    await turns()
    await bench.grow_late()
    assert bench.dispatcher.hedged == 0
    bench[0].answer()
    assert (await answer).outputs == [[1.0]]


@in_loop
async def test_retries_and_hedges_stop_where_the_budget_ends_and_the_first_attempts_go_on():
    bench = Bench()
    answers = []
    for _ in range(RETRIES_MIN + 2):
        answers.append(bench.submit(1.0))
        await turns()
        connection = next(c for c in bench.pool.connections if c.on_answer)
        connection.refuse(503)
        await turns()
        for other in bench.pool.connections:
            if other.on_answer:
                other.answer()
        await turns()
    failed = [answer for answer in answers if answer.exception() is not None]
    assert len(failed) == 2
    assert bench.dispatcher.retried == RETRIES_MIN
    assert bench.dispatcher.budget.refused == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@in_loop
async def test_a_failure_of_one_replica_is_retried_on_another_and_its_caller_never_knows(status):
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    bench[0].refuse(status)
    await turns()
    bench[1].answer()
    assert (await answer).outputs == [[1.0]]


@pytest.mark.parametrize("status", [204, 302, 401, 403, 404, 405, 407, 408, 410, 415, 421, 426])
@in_loop
async def test_a_refusal_that_says_nothing_about_the_rows_counts_against_its_replica_and_is_asked_of_another(status):
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    bench[0].refuse(status)
    await turns()
    bench[1].answer()
    assert (await answer).outputs == [[1.0]]
    assert bench.pool.noted == [("refused", bench[0].replica), ("succeeded", bench[1].replica)]


@in_loop
async def test_what_a_replica_does_not_serve_is_retried_within_the_budget_only():
    bench = Bench()
    while bench.dispatcher.budget.spend(1, bench.clock.now_s):
        pass
    answer = bench.submit(1.0)
    await turns()
    bench[0].refuse(404)
    with pytest.raises(WorkerUnavailable, match="answered 404"):
        await answer


@pytest.mark.parametrize("status", ABOUT_THE_ROWS)
@in_loop
async def test_rows_that_one_replica_refuses_and_another_serves_were_good_and_the_refusal_is_a_failure(status):
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    bench[0].refuse(status)
    await turns()
    assert bench.pool.noted == [("refused rows", bench[0].replica)]
    bench[1].answer()
    assert (await answer).outputs == [[1.0]]
    assert bench.pool.noted[1:] == [("succeeded", bench[1].replica), ("failed", bench[0].replica)]


@pytest.mark.parametrize("status", ABOUT_THE_ROWS)
@in_loop
async def test_rows_that_two_replicas_refuse_are_bad_and_count_against_nobody_and_cost_no_other_a_retry(status):
    bench = Bench()
    left = bench.dispatcher.budget.left(bench.clock.now_s)
    for _ in range(4 * RETRIES_MIN):
        answer = bench.submit(666.0)
        await turns()
        for _ in range(2):
            next(c for c in bench.pool.connections if c.on_answer).refuse(status)
            await turns()
        with pytest.raises(WorkerRefused, match=f"answered {status}"):
            await answer
    assert {kind for kind, _ in bench.pool.noted} == {"refused rows"}
    assert {id(replica) for _, replica in bench.pool.noted} == {id(c.replica) for c in bench.pool.connections}
    assert bench.dispatcher.budget.left(bench.clock.now_s) >= left
    assert bench.dispatcher._latencies.value_s is None, "a quick refusal is no quick answer"
    assert bench.dispatcher.idle


@in_loop
async def test_bad_rows_among_others_touch_their_own_caller_only_where_there_are_two_replicas():
    bench = Bench()
    good, poison, other = bench.submit(1.0), bench.submit(666.0), bench.submit(3.0)
    await turns()
    for _ in range(6):
        for connection in [c for c in bench.pool.connections if c.on_answer]:
            connection.refuse(400) if 666.0 in connection.sent[-1] else connection.answer()
        await turns()
    assert [(await good).outputs, (await other).outputs] == [[[1.0]], [[3.0]]]
    with pytest.raises(WorkerRefused):
        await poison
    assert "failed" not in {kind for kind, _ in bench.pool.noted}


@in_loop
async def test_one_replica_that_refuses_twice_is_one_opinion():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    for at, status in ((0, 400), (1, 503), (0, 400)):
        bench[at].refuse(status)
        await turns()
    with pytest.raises(WorkerUnavailable, match="answered 400"):
        await answer


@in_loop
async def test_an_answer_that_cannot_be_read_is_asked_of_another_replica():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    bench[0].answer([1.0, 2.0])
    await turns()
    bench[1].answer([1.0, 2.0, 3.0])
    with pytest.raises(WorkerRefused):
        await answer
    assert [kind for kind, _ in bench.pool.noted] == ["failed", "failed"]


@in_loop
async def test_a_replica_that_asks_to_be_left_alone_is_and_counts_as_no_failure():
    bench = Bench()
    answer = bench.submit(1.0)
    await turns()
    bench[0].refuse(503, retry_after_s=7.0)
    await turns()
    bench[1].answer()
    await answer
    assert [kind for kind, _ in bench.pool.noted] == ["rests 7", "succeeded"]


@in_loop
async def test_rows_on_which_a_worker_fails_go_once_more_by_themselves_so_that_only_the_poison_fails():
    bench = Bench(connections=1)
    bench.submit(-1.0)
    await turns()
    good, poison = bench.submit(1.0), bench.submit(666.0)
    bench[0].answer()
    await turns()
    bench[0].refuse(500)
    for _ in range(2):
        await turns()
        bench[0].refuse(500) if bench[0].sent[-1] == [666.0] else bench[0].answer()
    assert (await good).outputs == [[1.0]]
    with pytest.raises(WorkerUnavailable, match="answered 500"):
        await poison


@in_loop
async def test_without_rules_nothing_is_sent_twice():
    bench = Bench(retry=False, hedge=False)
    answer = bench.submit(1.0)
    await turns()
    assert bench.dispatcher._hedging is None
    bench[0].refuse(503)
    await turns()
    with pytest.raises(WorkerUnavailable):
        await answer
    assert bench[1].sent == []
