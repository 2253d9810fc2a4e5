"""What it costs to run a short execution somewhere else: `python tests/benchmarks/worker_handover.py`.

Prints µs an execution, submission to answer on an idle uvloop, for work that takes some 5 µs without the interpreter's
lock: on the loop itself, on a worker's own thread, and through `run_in_executor`. The three take turns; each figure is
the median of the rounds.
"""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from sys import path

import uvloop

path.insert(0, str(Path(__file__).resolve().parents[2]))

from model_workers.executions import Executions

EXECUTIONS_PER_ROUND = 2_000
ROUNDS = 9
DATA = bytes(8_000)


def work() -> int:
    """Spend some 5 µs without the lock."""
    return zlib.adler32(DATA) + zlib.crc32(DATA)


async def through(executions: Executions) -> None:
    """Run one execution and await its answer."""
    answer = asyncio.get_running_loop().create_future()
    executions.start(work, 1, answer.set_result)
    await answer


async def us_per_execution(run: Callable[[], Awaitable[object]]) -> float:
    """Run a round of executions, one after the other."""
    began_ns = time.perf_counter_ns()
    for _ in range(EXECUTIONS_PER_ROUND):
        await run()
        await asyncio.sleep(0)  # the loop goes on to its sockets, as it does between requests
    return (time.perf_counter_ns() - began_ns) / EXECUTIONS_PER_ROUND / 1e3


async def measure() -> None:
    """Measure and print."""
    loop = asyncio.get_running_loop()
    inline = Executions(loop, threads=0, inline_rows_max=1, name="inline")
    threaded = Executions(loop, threads=1, inline_rows_max=0, name="threaded")
    pool = ThreadPoolExecutor(1)
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "on the loop": lambda: through(inline),
        "on a thread of its own": lambda: through(threaded),
        "run_in_executor": lambda: loop.run_in_executor(pool, work),
    }
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            costs[name].append(await us_per_execution(run))
    for name, rounds in costs.items():
        print(f"{name:24} {median(rounds):6.1f} µs")
    threaded.stop()
    pool.shutdown()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure())
