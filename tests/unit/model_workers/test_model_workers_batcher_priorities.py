import asyncio
from unittest.mock import MagicMock

import numpy as np
import pytest

from contracts.inference import PRIORITY_DEFAULT, PRIORITY_FIRST, PRIORITY_LAST, InferenceRequest, tensor_of
from contracts.manifest import Input, Output
from model_workers.errors import QueueFull, ShuttingDown
from model_workers.request_rows import RowReader
from model_workers.served_models import ServedVersion
from tests.unit.model_workers.batcher_bench import POISON, Bench, in_loop, turn, values_of
from tests.unit.model_workers.published_models import onnx_manifest


@in_loop
async def test_a_higher_priority_goes_first_and_lower_ones_of_its_shape_fill_its_batch():
    bench = Bench(batch_rows_max=3)
    last = [bench.submit(1, priority=PRIORITY_LAST), bench.submit(2, 3, priority=PRIORITY_LAST)]
    wide = bench.submit(4, columns=2)
    default = bench.submit(5)
    first = bench.submit(6, priority=PRIORITY_FIRST)
    await turn()
    batches = []
    while bench.executor.started:
        work, _, done = bench.executor.started.popleft()
        batches.append([call.rows.arrays["x"][:, 0].tolist() for call in work.args[1]])
        done(work())
        await turn()
    assert batches == [[[6], [5], [1]], [[4]], [[2, 3]]]
    assert [values_of(call) for call in (*last, wide, default, first)] == [[2], [4, 6], [8], [10], [12]]


@in_loop
async def test_a_lower_priority_does_not_run_in_the_place_of_a_higher_one_whose_callers_are_gone():
    bench = Bench()
    gone = bench.submit(1, priority=PRIORITY_FIRST)
    lower = bench.submit(2)
    higher = bench.submit(3, columns=2, priority=PRIORITY_FIRST)
    gone.cancel()
    await turn()
    bench.executor.run_next()
    assert (higher.done(), lower.done()) == (True, False)
    await bench.run_all()
    assert values_of(lower) == [4]


@in_loop
async def test_a_higher_priority_takes_the_room_of_the_newest_lower_ones_in_a_full_queue():
    bench = Bench(queue_rows_max=4)
    older, newer = bench.submit(1), bench.submit(2)
    last = [bench.submit(3, priority=PRIORITY_LAST), bench.submit(4, priority=PRIORITY_LAST)]
    first = bench.submit(5, 6, 7, priority=PRIORITY_FIRST)
    for call in (newer, *last):
        with pytest.raises(QueueFull, match="4 rows wait already, at most 4 may"):
            call.result()
    assert await bench.run_all() == [4]
    assert [values_of(call) for call in (older, first)] == [[2], [10, 12, 14]]


@in_loop
async def test_nobody_loses_its_place_where_that_would_not_make_room_enough():
    bench = Bench(queue_rows_max=4)
    calls = [bench.submit(1, 2), bench.submit(3, 4, priority=PRIORITY_LAST)]
    for priority in (PRIORITY_DEFAULT, PRIORITY_LAST):
        with pytest.raises(QueueFull):
            bench.submit(5, 6, 7, priority=priority)
    await bench.run_all()
    assert [values_of(call) for call in calls] == [[2, 4], [6, 8]]


@in_loop
async def test_draining_refuses_new_calls_and_returns_once_each_accepted_one_is_answered():
    bench = Bench(batch_rows_max=1)
    calls = [bench.submit(1), bench.submit(2), bench.submit(POISON)]
    await turn()
    draining = asyncio.create_task(bench.batcher.drain())
    await turn()
    with pytest.raises(ShuttingDown):
        bench.submit(3)
    bench.executor.run_next()
    await turn()
    assert not draining.done()
    await bench.run_all()
    assert draining.done()
    assert [values_of(call) for call in calls[:2]] == [[2], [4]]
    assert isinstance(calls[2].exception(), ValueError)


@in_loop
async def test_draining_an_idle_batcher_returns_at_once_and_may_be_asked_twice():
    bench = Bench()
    async with asyncio.timeout(1):
        await bench.batcher.drain()
        await bench.batcher.drain()


@in_loop
async def test_draining_ends_where_all_that_waits_was_cancelled():
    bench = Bench()
    bench.submit(1).cancel()
    async with asyncio.timeout(1):
        await bench.batcher.drain()
    assert bench.batcher.waiting_rows == 0


@in_loop
async def test_draining_waits_for_what_runs_even_if_its_callers_are_gone_so_that_the_model_may_be_closed_after():
    bench = Bench()
    bench.submit(1)
    await turn()
    bench.batcher.abort()
    draining = asyncio.create_task(bench.batcher.drain())
    await turn()
    assert not draining.done()
    await bench.run_all()
    assert draining.done()


@in_loop
async def test_a_request_queues_with_the_priority_that_it_gives():
    bench = Bench(batch_rows_max=1)
    manifest = onnx_manifest("m", "1", 1, inputs=(Input("x", "FP32", (-1, 1)),), outputs=(Output("p", "FP32"),))
    served = ServedVersion(
        manifest=manifest,
        document=b"",
        reader=RowReader(manifest, rows_max=1),
        batcher=bench.batcher,
        metrics=MagicMock(),
        datatypes={"p": "FP32"},
    )
    answered = []

    async def ask(priority):
        tensor = tensor_of("x", np.ones((1, 1)), "FP32")
        await served.infer(InferenceRequest(inputs=(tensor,), parameters={"priority": priority}))
        answered.append(priority)

    async with asyncio.TaskGroup() as callers:
        for priority in (PRIORITY_LAST, PRIORITY_DEFAULT, PRIORITY_FIRST):
            callers.create_task(ask(priority))
        await turn()
        await bench.run_all()
    assert answered == [PRIORITY_FIRST, PRIORITY_DEFAULT, PRIORITY_LAST]
