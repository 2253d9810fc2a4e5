import asyncio
import threading

import numpy as np
from prometheus_client import CollectorRegistry

from model_workers import open_version
from model_workers.metrics import WorkerMetrics
from model_workers.open_version import VersionOpener
from model_workers.repository import VersionDirectory
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock, rows_of
from tests.unit.model_workers.published_models import onnx_manifest, publish


class SlowRuntime(FakeRuntime):
    """Waits for the test in each execution, once it is warm."""

    def __init__(self):
        super().__init__(lambda inputs: {"probabilities": np.ones((len(inputs["X"]), 2), dtype=np.float32)})
        self.warm, self.running, self.may_end = False, threading.Event(), threading.Event()

    def infer(self, inputs, outputs):
        if self.warm:
            self.running.set()
            assert self.may_end.wait(10)
        return super().infer(inputs, outputs)


def with_open_version(folder, monkeypatch, scenario):
    """Open a version over a slow runtime, on a thread of its own, and run the scenario on it."""
    runtime = SlowRuntime()
    monkeypatch.setattr("model_workers.loading.find_runtime", lambda name: lambda directory, manifest: runtime)
    monkeypatch.setattr(open_version, "INLINE_US_MAX", -1)
    path = publish(folder, b"artifact", onnx_manifest("churn", "1", 2))

    async def on_a_loop():
        metrics = WorkerMetrics(CollectorRegistry())
        opener = VersionOpener(metrics, clock_us=HandClock(), wall_clock_ms=lambda: 0, threads=1, queue_rows_max=8)
        opened = await opener.open(VersionDirectory("churn", "1", path))
        runtime.warm = True
        await scenario(opened, runtime)

    asyncio.run(on_a_loop())
    return runtime


def submit(opened):
    return opened.served.batcher.submit(rows_of(1.0, name="X", columns=2), ("malignant",), None)


async def begin(opened, runtime):
    answer = submit(opened)
    await asyncio.to_thread(runtime.running.wait, 10)
    return answer


def test_a_close_waits_for_the_answers_and_then_ends_threads_and_runtime(tmp_path, monkeypatch):
    async def scenario(opened, runtime):
        answer = await begin(opened, runtime)
        closing = asyncio.create_task(opened.close())
        await asyncio.sleep(0)
        assert not runtime.closed
        runtime.may_end.set()
        await closing
        assert (await answer)["malignant"].tolist() == [1]
        assert runtime.closed

    with_open_version(tmp_path, monkeypatch, scenario)


def test_a_runtime_is_never_closed_under_a_running_execution_also_where_its_caller_was_cancelled(tmp_path, monkeypatch):
    async def scenario(opened, runtime):
        answer = await begin(opened, runtime)
        answer.cancel()
        closing = asyncio.create_task(opened.close())
        done, _ = await asyncio.wait({closing}, timeout=0.05)
        assert (done, runtime.closed) == (set(), False)
        runtime.may_end.set()
        await closing
        assert runtime.closed

    with_open_version(tmp_path, monkeypatch, scenario)


def test_what_waits_too_long_for_a_hung_model_is_failed_and_the_model_is_closed_when_it_ends(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(open_version, "DRAIN_S_MAX", 0.01)

    async def scenario(opened, runtime):
        answer = await begin(opened, runtime)
        closing = asyncio.create_task(opened.close())
        await asyncio.wait({answer})
        assert str(answer.exception()) == "the worker is shutting down; send this elsewhere"
        assert not runtime.closed
        runtime.may_end.set()
        await closing
        assert runtime.closed
        assert "churn@1 runs on" in caplog.text

    with_open_version(tmp_path, monkeypatch, scenario)


def test_a_runtime_that_raises_when_it_is_closed_is_logged_and_harms_nobody(tmp_path, monkeypatch, caplog):
    async def scenario(opened, runtime):
        monkeypatch.setattr(runtime, "close", lambda: 1 / 0)
        await opened.close()
        assert "churn@1 did not close cleanly" in caplog.text

    with_open_version(tmp_path, monkeypatch, scenario)
