"""Whatever happens to batches, in whatever order, each caller gets exactly one answer: its own, or an error."""

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.errors import DeadlineExceeded, WorkerRefused, WorkerUnavailable
from tests.unit.gateway.gateway_fakes import (
    FakeConnection,
    FakePool,
    FakeReplica,
    HandClock,
    rows_of,
    signature_of_echo,
    turns,
)

BATCH_ROWS_MAX = 6


@dataclass
class Caller:
    """One submission and its fate."""

    values: list[float]
    expires_at: float
    answer: asyncio.Future[Any]
    poison: bool
    cancelled: bool = False


class Dispatching(RuleBasedStateMachine):
    """Submits, cancels, answers, refusals, losses and passing time over a dispatcher with three connections."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.pool = FakePool(3)
        # One refuses whatever it is sent as if the rows were bad; those that may be blamed for something are kept.
        self.liar = self.pool.connections[0].replica
        self.blamed = [self.liar]
        self.callers: list[Caller] = []
        self.next_value = 1.0

        async def make() -> BatchDispatcher:
            return BatchDispatcher(signature_of_echo(BATCH_ROWS_MAX), self.pool, self.clock)

        self.dispatcher = self.loop.run_until_complete(make())

    @rule(rows=st.integers(1, 9), patience_s=st.sampled_from([5.0, 50.0, 500.0]), poison=st.booleans())
    def submit(self, rows: int, patience_s: float, poison: bool) -> None:
        # Poison is told by its sign: the fake worker refuses a batch that holds any.
        values = [(-1 if poison else 1) * (self.next_value + n) for n in range(rows)]
        self.next_value += rows
        expires_at = self.clock.now_s + patience_s
        try:
            answer = self.dispatcher.submit(rows_of(*values), rows, expires_at)
        except WorkerUnavailable:
            assert not self.pool.reachable
            return
        self.callers.append(Caller(values, expires_at, answer, poison))

    @precondition(lambda self: any(not c.answer.done() for c in self.callers))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from([c for c in self.callers if not c.answer.done()]))
        caller.answer.cancel()
        caller.cancelled = True

    @rule()
    def turn(self) -> None:
        self.loop.run_until_complete(turns())

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.reply(data.draw(st.sampled_from(self.busy())))

    def reply(self, connection: FakeConnection) -> None:
        if connection.replica is self.liar or any(value < 0 for value in connection.sent[-1]):
            connection.refuse(400)
        else:
            connection.answer()

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), status=st.sampled_from([302, 404, 500, 503]), retry_after_s=st.sampled_from([None, 1.0]))
    def fail(self, data: st.DataObject, status: int, retry_after_s: float | None) -> None:
        connection = data.draw(st.sampled_from(self.busy()))
        self.blamed.append(connection.replica)
        connection.refuse(status, retry_after_s)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.pool.connections) - 1))
        lost = self.pool.connections[at]
        self.blamed.append(lost.replica)
        self.pool.connections[at] = FakeConnection(FakeReplica())
        lost.lose()
        self.dispatcher.wake()

    @rule(seconds=st.sampled_from([0.01, 1.0, 10.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule()
    def hedge(self) -> None:
        self.dispatcher._hedge_late()

    @rule()
    def sweep(self) -> None:
        busy = self.busy()
        self.dispatcher._sweep()
        for at, connection in enumerate(self.pool.connections):
            if not connection.alive:
                assert connection in busy
                self.blamed.append(connection.replica)
                self.pool.connections[at] = FakeConnection(FakeReplica())

    @rule(reachable=st.booleans())
    def reach(self, reachable: bool) -> None:
        self.pool.reachable = reachable
        self.dispatcher.wake()

    @invariant()
    def callers_have_their_own_or_an_error_that_fits(self) -> None:
        for caller in getattr(self, "callers", []):
            if not caller.answer.done() or caller.cancelled:
                continue
            error = caller.answer.exception()
            if error is None:
                assert caller.answer.result().outputs == [caller.values]
                assert not caller.poison
            elif isinstance(error, DeadlineExceeded):
                assert caller.expires_at <= self.clock.now_s
            elif isinstance(error, WorkerRefused):
                assert caller.poison
            else:
                assert isinstance(error, WorkerUnavailable)

    @invariant()
    def bad_rows_count_against_no_replica(self) -> None:
        for kind, replica in getattr(self, "pool", FakePool()).noted:
            assert kind in {"succeeded", "refused rows"} or replica in self.blamed

    def busy(self) -> list[FakeConnection]:
        return [connection for connection in self.pool.connections if connection.on_answer is not None]

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        # Bring everything to its end: nobody may be left without an answer, nor anything counted as waiting.
        self.pool.reachable = True
        self.dispatcher.wake()
        for _ in range(6 * len(self.callers) + 6):
            self.loop.run_until_complete(turns())
            for connection in [*self.busy()]:
                self.reply(connection)
        assert all(caller.answer.done() for caller in self.callers)
        self.callers_have_their_own_or_an_error_that_fits()
        assert self.dispatcher.rows_waiting == 0
        assert all(connection.replica.outstanding_rows == 0 for connection in self.pool.connections)
        self.loop.close()


Dispatching.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_each_caller_gets_exactly_one_answer_its_own_or_an_error = Dispatching.TestCase
