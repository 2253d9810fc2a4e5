import asyncio
from typing import Any

import pytest

from gateway.dispatch import row_queue
from gateway.dispatch.batch import timeout_for_worker_us
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.errors import DeadlineExceeded, Overloaded, WorkerRefused, WorkerUnavailable
from tests.unit.gateway.gateway_fakes import FakePool, HandClock, in_loop, rows_of, signature_of_echo, turns

LATER = 2_000.0


class Bench:
    """A dispatcher over one connection, and its clock."""

    def __init__(self, *, connections: int = 1, batch_rows_max: int = 64) -> None:
        self.clock = HandClock()
        self.pool = FakePool(connections)
        self.dispatcher = BatchDispatcher(signature_of_echo(batch_rows_max), self.pool, self.clock)

    @property
    def connection(self):
        return self.pool.connections[0]

    def submit(self, *values: float, expires_at: float = LATER) -> asyncio.Future[Any]:
        return self.dispatcher.submit(rows_of(*values), len(values), expires_at)

    async def gather_behind(self, *callers: tuple[float, ...]) -> list[asyncio.Future[Any]]:
        """Submit callers while the connection is busy with a row of nobody's, then free it."""
        self.submit(-1.0)
        await turns()
        submitted = [self.submit(*values) for values in callers]
        await turns()
        self.connection.answer()
        await turns()
        return submitted


@in_loop
async def test_an_idle_dispatcher_sends_at_once_and_alone():
    bench = Bench()
    answer = bench.submit(7.0)
    await turns()
    assert bench.connection.sent == [[7.0]]
    bench.connection.answer()
    assert (await answer).outputs == [[7.0]]


@in_loop
async def test_what_is_submitted_in_one_turn_of_the_loop_leaves_as_one_batch():
    bench = Bench()
    answers = [bench.submit(float(n)) for n in range(5)]
    await turns()
    assert bench.connection.sent == [[0.0, 1.0, 2.0, 3.0, 4.0]]
    bench.connection.answer()
    assert [(await answer).outputs for answer in answers] == [[[float(n)]] for n in range(5)]


@in_loop
async def test_rows_that_gather_behind_a_batch_go_as_one_and_each_caller_gets_its_own():
    bench = Bench()
    answers = await bench.gather_behind((1.0,), (2.0, 3.0), (4.0,))
    assert bench.connection.sent[1:] == [[1.0, 2.0, 3.0, 4.0]]
    bench.connection.answer()
    assert [(await answer).outputs for answer in answers] == [[[1.0]], [[2.0, 3.0]], [[4.0]]]


@in_loop
async def test_a_batch_holds_no_more_rows_than_the_model_takes_except_one_callers_own():
    bench = Bench(batch_rows_max=3)
    await bench.gather_behind((1.0, 2.0), (3.0,), (4.0, 5.0, 6.0, 7.0), (8.0,))
    for _ in range(3):
        bench.connection.answer()
        await turns()
    assert bench.connection.sent[1:] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0]]


@in_loop
async def test_the_poison_of_one_caller_fails_that_caller_only():
    bench = Bench()
    good, poison, other = await bench.gather_behind((1.0,), (666.0,), (3.0,))
    bench.connection.refuse(400)
    for _ in range(3):
        await turns()
        if bench.connection.sent[-1] == [666.0]:
            bench.connection.refuse(400)
        else:
            bench.connection.answer()
    assert bench.connection.sent[2:] == [[1.0], [666.0], [3.0]]
    assert (await good).outputs == [[1.0]]
    assert (await other).outputs == [[3.0]]
    with pytest.raises(WorkerRefused, match="answered 400"):
        await poison


@in_loop
async def test_a_worker_that_fails_is_told_to_all_callers_each_with_an_error_of_its_own():
    bench = Bench()
    answers = await bench.gather_behind((1.0,), (2.0,))
    bench.connection.refuse(503)
    errors = [answer.exception() for answer in answers]
    assert [type(error) for error in errors] == [WorkerUnavailable] * 2
    assert errors[0] is not errors[1]


@in_loop
async def test_an_answer_that_does_not_fit_the_manifest_is_refused():
    bench = Bench()
    answers = await bench.gather_behind((1.0,), (2.0,))
    bench.connection.answer([1.0, 2.0, 3.0])
    for answer in answers:
        with pytest.raises(WorkerRefused, match=r"\[3\].*\[2\]"):
            await answer


@in_loop
async def test_what_has_expired_while_it_waited_is_never_sent():
    bench = Bench()
    bench.submit(-1.0)
    await turns()
    late, live = bench.submit(1.0, expires_at=1_000.5), bench.submit(2.0)
    bench.clock.now_s = 1_001.0
    bench.connection.answer()
    await turns()
    assert bench.connection.sent[1:] == [[2.0]]
    with pytest.raises(DeadlineExceeded):
        await late
    bench.connection.answer()
    assert (await live).outputs == [[2.0]]


@in_loop
async def test_a_caller_that_gave_up_while_it_waited_is_never_sent():
    bench = Bench()
    bench.submit(-1.0)
    await turns()
    gone, live = bench.submit(1.0), bench.submit(2.0)
    gone.cancel()
    bench.connection.answer()
    await turns()
    assert bench.connection.sent[1:] == [[2.0]]
    bench.connection.answer()
    assert (await live).outputs == [[2.0]]
    assert bench.dispatcher.rows_waiting == 0


@in_loop
async def test_a_caller_that_gives_up_in_flight_leaves_its_batch_mates_their_own_answers():
    bench = Bench()
    first, gone, last = await bench.gather_behind((1.0,), (2.0,), (3.0,))
    gone.cancel()
    bench.connection.answer()
    assert [(await first).outputs, (await last).outputs] == [[[1.0]], [[3.0]]]


@in_loop
async def test_rows_of_a_lost_connection_are_sent_once_more_and_then_given_up():
    bench = Bench(connections=3)
    answer = bench.submit(1.0)
    await turns()
    bench.pool.connections[0].lose()
    await turns()
    assert bench.pool.connections[1].sent == [[1.0]]
    bench.pool.connections[1].lose("reset again")
    await turns()
    assert bench.pool.connections[2].sent == []
    with pytest.raises(WorkerUnavailable, match="reset again"):
        await answer


@in_loop
async def test_rows_of_a_lost_connection_keep_their_place_before_those_that_waited():
    bench = Bench(connections=2)
    bench.pool.connections[1].alive = False
    first, second = bench.submit(1.0), bench.submit(2.0)
    await turns()
    bench.submit(3.0)
    bench.pool.connections[0].lose()
    bench.pool.connections[1].alive = True
    bench.dispatcher.wake()
    await turns()
    assert bench.pool.connections[1].sent == [[1.0, 2.0, 3.0]]
    bench.pool.connections[1].answer()
    assert [(await first).outputs, (await second).outputs] == [[[1.0]], [[2.0]]]


@in_loop
async def test_rows_that_expired_with_their_lost_connection_are_not_sent_again():
    bench = Bench(connections=2)
    answer = bench.submit(1.0, expires_at=1_000.5)
    await turns()
    bench.clock.now_s = 1_001.0
    bench.pool.connections[0].lose()
    await turns()
    assert bench.pool.connections[1].sent == []
    with pytest.raises(DeadlineExceeded):
        await answer


@in_loop
async def test_when_the_last_worker_goes_all_who_wait_are_told_and_the_next_is_refused():
    bench = Bench()
    bench.submit(-1.0)
    await turns()
    waiting = [bench.submit(1.0), bench.submit(2.0)]
    bench.pool.reachable = False
    bench.dispatcher.wake()
    for answer in waiting:
        with pytest.raises(WorkerUnavailable):
            await answer
    with pytest.raises(WorkerUnavailable):
        bench.submit(3.0)
    assert bench.dispatcher.rows_waiting == 0


@in_loop
async def test_more_rows_than_may_wait_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(row_queue, "ROWS_WAITING_MAX", 4)
    bench = Bench()
    bench.submit(-1.0)
    await turns()
    bench.submit(1.0, 2.0, 3.0)
    with pytest.raises(Overloaded, match="3 rows wait"):
        bench.submit(4.0, 5.0)
    bench.submit(4.0)
    assert bench.dispatcher.rows_waiting == 4
    bench.connection.answer()
    await turns()
    assert bench.dispatcher.rows_waiting == 0


@in_loop
async def test_a_worker_is_told_how_long_the_most_patient_caller_can_wait():
    bench = Bench()
    bench.submit(1.0, expires_at=1_000.25)
    bench.submit(2.0, expires_at=1_000.75)
    await turns()
    assert bench.connection.timeouts_us == [750_000]


@in_loop
async def test_a_stalled_worker_is_cut_off_when_nobody_in_the_batch_can_wait_any_longer():
    bench = Bench()
    answer = bench.submit(1.0, expires_at=bench.clock.now_s + 0.01)
    await turns()
    bench.clock.now_s += 0.011
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(answer, 5)
    assert not bench.connection.alive


@in_loop
async def test_no_row_is_outstanding_once_everything_was_answered_lost_or_refused():
    bench = Bench(connections=3)
    answers = [bench.submit(1.0), bench.submit(2.0, 3.0)]
    await turns()
    assert sum(c.replica.outstanding_rows for c in bench.pool.connections) == 3
    bench.pool.connections[0].lose()
    await turns()
    bench.pool.connections[1].refuse(500)
    await turns()
    assert [c.replica.outstanding_rows for c in bench.pool.connections] == [0, 0, 0]
    assert all(answer.exception() for answer in answers)


def test_a_worker_is_told_whole_milliseconds_while_there_are_many_and_never_more_than_is_left():
    assert timeout_for_worker_us(0.0499996) == 49_000
    assert timeout_for_worker_us(0.009_876_4) == 9_876
    assert timeout_for_worker_us(-1.0) == 1
