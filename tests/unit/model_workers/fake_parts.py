"""Parts that a test drives by hand: a clock, an executor that runs when told, a runtime made of a function."""

from collections import deque

import numpy as np

from model_workers.request_rows import Rows


class HandClock:
    """A clock in µs that moves when it is told to."""

    def __init__(self) -> None:
        self.now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


class HandExecutor:
    """Holds executions until the test runs them."""

    def __init__(self) -> None:
        self.started = deque()

    def start(self, work, rows, done) -> None:
        self.started.append((work, rows, done))

    def run_next(self) -> int:
        """Run the oldest execution and report it done. Returns its rows."""
        work, rows, done = self.started.popleft()
        done(work())
        return rows


class RecordingObserver:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.queue_us, self.executions = [], []

    def dequeued(self, queue_us) -> None:
        self.queue_us.extend(queue_us)

    def executed(self, rows, compute_us) -> None:
        self.executions.append((rows, compute_us))


class FakeRuntime:
    """A runtime made of a function from inputs to outputs; keeps how many rows each execution had."""

    def __init__(self, function) -> None:
        self._function = function
        self.rows_seen = []
        self.closed = False

    def infer(self, inputs, outputs):
        self.rows_seen.append(len(next(iter(inputs.values()))))
        return self._function(inputs)

    def close(self) -> None:
        self.closed = True


def rows_of(*values, name="x", columns=1) -> Rows:
    """Make one caller's rows, each filled with its value."""
    array = np.repeat(np.array(values, dtype=np.float32)[:, None], columns, axis=1)
    return Rows({name: array}, len(values), ((columns,),))
