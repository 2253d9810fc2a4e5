"""A batcher whose executor, clock and observer a test holds."""

import asyncio

from contracts.inference import PRIORITY_DEFAULT
from model_workers.batcher import Batcher
from tests.unit.model_workers.fake_parts import HandClock, HandExecutor, RecordingObserver, rows_of

POISON = -1.0


def doubled(inputs, outputs):
    """Answer each row with twice its value; fail where one is poison."""
    values = inputs["x"][:, 0]
    if (values == POISON).any():
        raise ValueError("poison")
    return dict.fromkeys(outputs, values * 2)


class Bench:
    """A batcher whose executor, clock and observer the test holds."""

    def __init__(self, execute=doubled, *, batch_rows_max=8, queue_rows_max=16, executions_max=1):
        self.executor, self.clock, self.observer = HandExecutor(), HandClock(), RecordingObserver()
        self.batcher = Batcher(
            execute,
            self.executor,
            batch_rows_max=batch_rows_max,
            queue_rows_max=queue_rows_max,
            executions_max=executions_max,
            clock_us=self.clock,
            observer=self.observer,
        )

    def submit(self, *values, timeout_us=None, outputs=("p",), columns=1, priority=PRIORITY_DEFAULT):
        return self.batcher.submit(rows_of(*values, columns=columns), outputs, timeout_us, priority)

    async def run_all(self):
        """Run executions until none is left. Returns the rows of each."""
        ran = []
        await turn()
        while self.executor.started:
            ran.append(self.executor.run_next())
            await turn()
        return ran


async def turn():
    """Let everything run that is due in this turn of the loop."""
    await asyncio.sleep(0)


def values_of(future):
    return future.result()["p"].tolist()


def in_loop(test):
    """Run an async test on a loop of its own."""

    def run():
        asyncio.run(test())

    run.__name__ = test.__name__
    return run
