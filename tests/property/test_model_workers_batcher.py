"""Whatever callers, clock, model and shutdown do, in whatever order: one answer or one error for each call."""

import asyncio
from collections import deque

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.inference import PRIORITY_FIRST, PRIORITY_LAST
from contracts.manifest import Input, Output
from model_workers.batcher import Batcher
from model_workers.errors import ExecutionFailed, Expired, QueueFull, ShuttingDown
from model_workers.model_version import ModelVersion
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock, RecordingObserver, rows_of
from tests.unit.model_workers.published_models import onnx_manifest

POISON = -1.0
"""The model raises where it meets this value."""
SHORT = -2.0
"""The model answers with a row too few where it meets this value."""

BATCH_ROWS_MAX = 4
QUEUE_ROWS_MAX = 12
COLUMNS_MAX = 2
CALLS_BEFORE_THE_END = 12

VALUES = st.lists(st.floats(0, 1_000, width=32) | st.sampled_from([POISON, SHORT]), min_size=1, max_size=6)
ASKED = st.tuples(
    VALUES,
    st.integers(1, COLUMNS_MAX),
    st.none() | st.integers(1, 50),
    st.integers(PRIORITY_FIRST, PRIORITY_LAST),
)
"""Values, columns, timeout_us and priority of one call."""


def squared(inputs):
    """Answer each row with its square, so that no two values share an answer."""
    values = inputs["x"][:, 0]
    if (values == POISON).any():
        raise ValueError(f"poison in {values.tolist()}")
    return {"p": values.astype(np.float64)[: -1 if (values == SHORT).any() else None] ** 2}


class WatchedExecutor:
    """Runs executions at once or holds them until told; tells `started` of each as it leaves the queue."""

    def __init__(self, *, inline, started):
        self._inline, self._started = inline, started
        self.held = deque()

    def start(self, work, rows, done):
        self._started(work.args[1], rows)
        if self._inline:
            done(work())
        else:
            self.held.append((work, done))

    def run_next(self):
        work, done = self.held.popleft()
        done(work())


class BatcherMachine(RuleBasedStateMachine):
    @initialize(executions_max=st.integers(1, 3), inline=st.booleans())
    def begin(self, executions_max, inline):
        self.loop = asyncio.new_event_loop()
        self.faults = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.executor, self.clock = WatchedExecutor(inline=inline, started=self.check_batch), HandClock()
        self.executions_max = executions_max
        self.calls, self.waiting, self.passed_over = [], {}, set()
        self.closed = self.aborted = False
        self.draining = None
        manifest = onnx_manifest("m", "1", 1, inputs=(Input("x", "FP32", (-1, -1)),), outputs=(Output("p", "FP64"),))
        self.batcher = Batcher(
            ModelVersion(manifest, FakeRuntime(squared)).execute,
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

    @rule(asked=st.lists(ASKED, min_size=1, max_size=5))
    def callers_of_one_turn(self, asked):
        self.in_loop(lambda: [self.submit(*call) for call in asked])

    def submit(self, values, columns, timeout_us, priority):
        waited_rows = self.batcher.waiting_rows
        try:
            answer = self.batcher.submit(rows_of(*values, columns=columns), ("p",), timeout_us, priority)
        except QueueFull:
            assert waited_rows + len(values) > QUEUE_ROWS_MAX
            assert self.batcher.waiting_rows == waited_rows
        except ShuttingDown:
            assert self.closed
        else:
            call = {
                "values": values,
                "lane": (priority, columns),
                "priority": priority,
                "queued_us": self.clock.now_us,
                "timeout_us": timeout_us,
                "answer": answer,
                "cancelled": False,
                "set": 0,
            }
            answer.add_done_callback(lambda _: call.update(set=call["set"] + 1))
            self.calls.append(call)
            self.waiting[answer] = call

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

    @precondition(lambda self: self.executor.held)
    @rule(index=st.integers(0, 2))
    def execution_ends(self, index):
        self.executor.held.rotate(-(index % len(self.executor.held)))
        self.in_loop(self.executor.run_next)

    @precondition(lambda self: len(self.calls) > CALLS_BEFORE_THE_END)
    @rule()
    def drain(self):
        self.draining = self.draining or self.loop.create_task(self.batcher.drain())
        self.loop_turns()
        self.closed = True

    @precondition(lambda self: len(self.calls) > CALLS_BEFORE_THE_END)
    @rule()
    def abort(self):
        self.in_loop(self.batcher.abort)
        self.closed = self.aborted = True
        assert all(call["answer"].done() for call in self.calls)

    def check_batch(self, batch, rows):
        """Look at an execution as it leaves the queue: is it this one's turn?"""
        taken = [self.waiting.pop(call.answer) for call in batch]
        assert rows == sum(len(call["values"]) for call in taken)
        assert rows <= BATCH_ROWS_MAX or len(taken) == 1
        assert len({call.rows.signature for call in batch}) == 1
        assert [call["priority"] for call in taken] == sorted(call["priority"] for call in taken)
        alive = [call for call in self.waiting.values() if self.is_alive(call)]
        lead = taken[0]
        assert all(call["priority"] >= lead["priority"] for call in alive)
        for call in taken:
            earlier = self.calls[: self.calls.index(call)]
            assert not any(other["lane"] == call["lane"] for other in earlier if other in alive)
        self.check_turns(lead["lane"], {call["lane"] for call in alive})

    def check_turns(self, led, waiting_lanes):
        """No lane leads twice while another one of its priority waits."""
        self.passed_over = {(lane, by) for lane, by in self.passed_over if lane in waiting_lanes - {led}}
        for lane in waiting_lanes - {led}:
            if lane[0] == led[0]:
                assert (lane, led) not in self.passed_over
                self.passed_over.add((lane, led))

    def is_alive(self, call):
        waited_us = self.clock.now_us - call["queued_us"]
        return not call["answer"].done() and (call["timeout_us"] is None or waited_us < call["timeout_us"])

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "batcher"):
            return
        assert not self.faults
        assert 0 <= self.batcher.waiting_rows <= QUEUE_ROWS_MAX
        assert len(self.executor.held) <= self.executions_max
        if self.draining is not None and self.draining.done():
            assert all(call["answer"].done() for call in self.calls)
            assert not self.executor.held

    def teardown(self):
        if not hasattr(self, "batcher"):
            return
        try:
            self.end()
        finally:
            self.loop.close()

    def end(self):
        """Let everything run out, and look at what each caller got."""
        self.loop_turns()
        while self.executor.held:
            self.in_loop(self.executor.run_next)
            self.loop_turns()
        self.loop_turns()
        assert not self.faults
        for call in self.calls:
            self.check_outcome(call)
        assert self.batcher.waiting_rows == 0
        assert self.draining is None or self.draining.done()

    def check_outcome(self, call):
        answer = call["answer"]
        assert answer.done()
        assert call["set"] == 1
        if answer.cancelled():
            assert call["cancelled"]
        elif answer.exception() is None:
            assert not {POISON, SHORT} & set(call["values"])
            assert answer.result()["p"].tolist() == [value**2 for value in call["values"]]
        else:
            self.check_error(call, answer.exception())

    def check_error(self, call, error):
        match error:
            case ExecutionFailed():
                assert error.rows == len(call["values"])  # it was run alone, to be sure that the fault is its own
                if POISON in call["values"]:
                    assert str(call["values"]) in str(error)
                else:
                    assert SHORT in call["values"]
            case Expired():
                assert error.timeout_us == call["timeout_us"] <= error.waited_us
            case QueueFull():
                assert call["priority"] > PRIORITY_FIRST
            case _:
                assert isinstance(error, ShuttingDown)
                assert self.aborted


BatcherMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestEveryCallGetsItsOwnAnswerOrItsOwnErrorExactlyOnce = BatcherMachine.TestCase
