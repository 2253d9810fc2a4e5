import asyncio
import threading
from contextlib import suppress
from threading import Event, Lock

import numpy as np
import pytest

from model_workers.batcher import Batcher
from model_workers.errors import Expired, QueueFull, ShuttingDown
from model_workers.executions import Executions
from tests.unit.model_workers.batcher_bench import POISON, Bench, doubled, in_loop, turn, values_of
from tests.unit.model_workers.fake_parts import HandClock, RecordingObserver, rows_of


@in_loop
async def test_calls_of_one_turn_of_the_loop_make_one_execution():
    bench = Bench()
    calls = [bench.submit(1), bench.submit(2, 3), bench.submit(4)]
    assert await bench.run_all() == [4]
    assert [values_of(call) for call in calls] == [[2], [4, 6], [8]]


@in_loop
async def test_rows_gather_while_the_model_is_busy_and_then_go_together():
    bench = Bench()
    first = bench.submit(1)
    await turn()
    later = [bench.submit(2), bench.submit(3)]
    await turn()
    assert len(bench.executor.started) == 1
    assert await bench.run_all() == [1, 2]
    assert [values_of(call) for call in (first, *later)] == [[2], [4], [6]]


@in_loop
async def test_an_execution_has_at_most_batch_rows_max_rows_and_keeps_the_order_of_arrival():
    bench = Bench(batch_rows_max=4)
    calls = [bench.submit(1, 2, 3), bench.submit(4, 5), bench.submit(6)]
    assert await bench.run_all() == [3, 3]
    assert [values_of(call) for call in calls] == [[2, 4, 6], [8, 10], [12]]


@in_loop
async def test_a_call_larger_than_a_batch_goes_alone():
    bench = Bench(batch_rows_max=2)
    calls = [bench.submit(1), bench.submit(2, 3, 4), bench.submit(5)]
    assert await bench.run_all() == [1, 3, 1]
    assert values_of(calls[1]) == [4, 6, 8]


@in_loop
async def test_as_many_executions_as_allowed_are_in_flight_at_once():
    bench = Bench(batch_rows_max=1, executions_max=2)
    for value in range(3):
        bench.submit(value)
    await turn()
    assert len(bench.executor.started) == 2
    assert await bench.run_all() == [1, 1, 1]


@in_loop
async def test_calls_of_different_signatures_never_share_an_execution_and_take_turns():
    bench = Bench(batch_rows_max=2)
    narrow = [bench.submit(1), bench.submit(2), bench.submit(3)]
    wide = [bench.submit(4, columns=2)]
    await turn()
    widths = []
    while bench.executor.started:
        work, rows, done = bench.executor.started.popleft()
        widths.append((rows, work.args[1][0].rows.signature))
        done(work())
        await turn()
    assert widths == [(2, ((1,),)), (1, ((2,),)), (1, ((1,),))]
    assert [values_of(call) for call in narrow + wide] == [[2], [4], [6], [8]]


@in_loop
async def test_an_execution_computes_what_any_of_its_callers_asks_and_each_gets_its_own():
    asked = []
    bench = Bench(lambda inputs, outputs: asked.append(outputs) or doubled(inputs, outputs))
    calls = [bench.submit(1, outputs=("p",)), bench.submit(2, outputs=("q", "p"))]
    await bench.run_all()
    assert asked == [["p", "q"]]
    assert [list(call.result()) for call in calls] == [["p"], ["q", "p"]]


@in_loop
async def test_a_poison_row_fails_its_own_caller_only():
    bench = Bench()
    calls = [bench.submit(1), bench.submit(2, POISON), bench.submit(3)]
    await bench.run_all()
    assert [values_of(call) for call in (calls[0], calls[2])] == [[2], [6]]
    with pytest.raises(ValueError, match="poison"):
        calls[1].result()


@in_loop
async def test_a_cancelled_call_is_left_out_and_its_mates_are_answered():
    bench = Bench()
    calls = [bench.submit(1), bench.submit(2, 3), bench.submit(4)]
    calls[1].cancel()
    assert await bench.run_all() == [2]
    assert [values_of(call) for call in (calls[0], calls[2])] == [[2], [8]]
    assert bench.batcher.waiting_rows == 0


@in_loop
async def test_a_call_that_is_cancelled_while_it_runs_harms_nobody():
    bench = Bench()
    calls = [bench.submit(1), bench.submit(2)]
    await turn()
    calls[0].cancel()
    await bench.run_all()
    assert values_of(calls[1]) == [4]


@in_loop
async def test_a_call_whose_budget_is_spent_in_the_queue_is_refused_and_not_run():
    bench = Bench()
    first = bench.submit(1)
    await turn()
    late, patient = bench.submit(2, timeout_us=500), bench.submit(3, timeout_us=501)
    bench.clock.now_us += 500
    assert await bench.run_all() == [1, 1]
    assert [values_of(call) for call in (first, patient)] == [[2], [6]]
    with pytest.raises(Expired, match="waited 500 µs of a timeout of 500 µs"):
        late.result()


@in_loop
async def test_a_full_queue_refuses_and_has_room_again_once_its_rows_run():
    bench = Bench(queue_rows_max=3)
    bench.submit(1, 2)
    with pytest.raises(QueueFull, match="2 rows wait already, at most 3 may"):
        bench.submit(3, 4)
    assert bench.batcher.waiting_rows == 2
    await turn()
    assert bench.batcher.waiting_rows == 0
    bench.submit(3, 4)


@in_loop
async def test_after_an_abort_each_call_has_an_error_and_no_new_one_is_taken():
    bench = Bench()
    running = bench.submit(1)
    await turn()
    waiting = bench.submit(2)
    bench.batcher.abort()
    for call in (running, waiting):
        with pytest.raises(ShuttingDown):
            call.result()
    with pytest.raises(ShuttingDown):
        bench.submit(3)
    assert await bench.run_all() == [1]  # what was in flight ends, unheard
    assert bench.batcher.waiting_rows == 0


@in_loop
async def test_the_observer_hears_how_long_calls_waited_and_executions_took():
    def execute(inputs, outputs):
        bench.clock.now_us += 70
        return doubled(inputs, outputs)

    bench = Bench(execute)
    bench.submit(1)
    await turn()
    bench.submit(2, 3)
    await bench.run_all()
    assert bench.observer.queue_us == [0, 70]
    assert bench.observer.executions == [(1, 70), (2, 70)]


@in_loop
async def test_a_lone_call_is_copied_into_aligned_memory():
    aligned = []
    bench = Bench(lambda inputs, outputs: aligned.append(inputs["x"].flags.aligned) or doubled(inputs, outputs))
    rows = rows_of(1.0)
    rows.arrays["x"] = np.frombuffer(b"!" + rows.arrays["x"].tobytes(), dtype=np.float32, count=1, offset=1)[:, None]
    assert not rows.arrays["x"].flags.aligned
    bench.batcher.submit(rows, ("p",), None)
    await bench.run_all()
    assert aligned == [True]


@pytest.mark.parametrize("inline_rows_max", [0, 8])
def test_executions_answer_alike_on_the_loop_and_on_a_thread(inline_rows_max):
    async def scenario():
        executions = Executions(asyncio.get_running_loop(), threads=1, inline_rows_max=inline_rows_max, name="test")
        batcher = Batcher(
            doubled,
            executions,
            batch_rows_max=8,
            queue_rows_max=1_000,
            executions_max=1,
            clock_us=HandClock(),
            observer=RecordingObserver(),
        )
        calls = [batcher.submit(rows_of(float(i)), ("p",), None) for i in range(100)]
        poisoned = batcher.submit(rows_of(POISON), ("p",), None)
        with suppress(ValueError):
            await poisoned
        answers = [(await call)["p"].tolist() for call in calls]
        executions.stop()
        return answers

    assert asyncio.run(scenario()) == [[2.0 * i] for i in range(100)]


def test_an_execution_that_outlives_its_loop_ends_its_thread_quietly():
    gate, ended = Lock(), Event()

    async def scenario():
        executions = Executions(asyncio.get_running_loop(), threads=1, inline_rows_max=0, name="outliving")
        executions.start(lambda: gate.acquire(timeout=5) and ended.set(), 1, lambda _: pytest.fail("nobody waits"))

    with gate:
        asyncio.run(scenario())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "outliving-0"]
    thread.join(5)
    assert ended.is_set()
    assert not thread.is_alive()
