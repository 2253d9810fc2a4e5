"""Whatever callers, clock, model and shutdown do, in whatever order: one answer or one error for each call."""

import asyncio

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model_workers.batcher import Batcher
from model_workers.errors import Expired, QueueFull, ShuttingDown
from tests.unit.model_workers.fake_parts import HandClock, HandExecutor, RecordingObserver, rows_of

POISON = -1.0
BATCH_ROWS_MAX = 4
QUEUE_ROWS_MAX = 12

VALUES = st.lists(st.one_of(st.floats(0, 1_000, width=32), st.just(POISON)), min_size=1, max_size=6)


class PoisonFound(Exception):
    """Carries the values that were run, so that a caller can tell its own."""

    def __init__(self, values):
        self.values = values


def squared(inputs, outputs):
    """Answer each row with its square, so that no two values share an answer; fail where one is poison."""
    values = inputs["x"][:, 0]
    if (values == POISON).any():
        raise PoisonFound(values.tolist())
    return dict.fromkeys(outputs, values.astype(np.float64) ** 2)


class BatcherMachine(RuleBasedStateMachine):
    @initialize(executions_max=st.integers(1, 3))
    def begin(self, executions_max):
        self.loop = asyncio.new_event_loop()
        self.executor, self.clock = HandExecutor(), HandClock()
        self.executions_max = executions_max
        self.calls, self.answers_set = [], []
        self.aborted = False
        self.batcher = Batcher(
            squared,
            self.executor,
            batch_rows_max=BATCH_ROWS_MAX,
            queue_rows_max=QUEUE_ROWS_MAX,
            executions_max=executions_max,
            clock_us=self.clock,
            observer=RecordingObserver(),
        )

    def in_loop(self, action):
        async def act():
            return action()

        return self.loop.run_until_complete(act())

    @rule(values=VALUES, columns=st.integers(1, 2), timeout_us=st.none() | st.integers(1, 50))
    def submit(self, values, columns, timeout_us):
        try:
            rows = rows_of(*values, columns=columns)
            answer = self.in_loop(lambda: self.batcher.submit(rows, ("p",), timeout_us))
        except QueueFull:
            assert self.batcher.waiting_rows + len(values) > QUEUE_ROWS_MAX
        except ShuttingDown:
            assert self.aborted
        else:
            call = {"values": values, "timeout_us": timeout_us, "answer": answer, "cancelled": False, "set": 0}
            answer.add_done_callback(lambda _: call.update(set=call["set"] + 1))
            self.calls.append(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data):
        call = data.draw(st.sampled_from(self.calls[-4:]))
        call["cancelled"] = self.in_loop(call["answer"].cancel) or call["cancelled"]

    @rule(elapsed_us=st.integers(1, 40))
    def time_passes(self, elapsed_us):
        self.clock.now_us += elapsed_us

    @rule()
    def loop_turns(self):
        self.loop.run_until_complete(asyncio.sleep(0))

    @precondition(lambda self: self.executor.started)
    @rule(index=st.integers(0, 2))
    def execution_ends(self, index):
        self.executor.started.rotate(-(index % len(self.executor.started)))
        self.in_loop(self.executor.run_next)

    @precondition(lambda self: len(self.calls) > 3)
    @rule()
    def shut_down(self):
        self.in_loop(self.batcher.abort)
        self.aborted = True
        assert all(call["answer"].done() for call in self.calls)

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "batcher"):
            return
        assert 0 <= self.batcher.waiting_rows <= QUEUE_ROWS_MAX
        assert len(self.executor.started) <= self.executions_max
        for work, rows, _ in self.executor.started:
            batch = work.args[1]
            assert rows <= BATCH_ROWS_MAX or len(batch) == 1
            assert len({call.rows.signature for call in batch}) == 1

    def teardown(self):
        if not hasattr(self, "batcher"):
            return
        self.loop_turns()
        while self.executor.started:
            self.in_loop(self.executor.run_next)
            self.loop_turns()
        self.loop_turns()
        for call in self.calls:
            self.check(call)
        assert self.batcher.waiting_rows == 0
        self.loop.close()

    def check(self, call):
        answer = call["answer"]
        assert answer.done()
        assert call["set"] == 1
        if answer.cancelled():
            assert call["cancelled"]
        elif answer.exception() is None:
            assert POISON not in call["values"]
            assert answer.result()["p"].tolist() == [value**2 for value in call["values"]]
        elif isinstance(answer.exception(), PoisonFound):
            assert POISON in call["values"]
            assert answer.exception().values == call["values"]
        elif isinstance(answer.exception(), Expired):
            assert answer.exception().timeout_us == call["timeout_us"] <= answer.exception().waited_us
        else:
            assert isinstance(answer.exception(), ShuttingDown)
            assert self.aborted


BatcherMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestEveryCallGetsItsOwnAnswerOrItsOwnErrorExactlyOnce = BatcherMachine.TestCase
