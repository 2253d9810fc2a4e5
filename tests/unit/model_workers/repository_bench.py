"""A repository control over real folders, with an opener that the test drives by hand."""

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace

from prometheus_client import CollectorRegistry, generate_latest

from model_workers.errors import ModelMismatch
from model_workers.metrics import VersionMetrics, WorkerMetrics
from model_workers.repository_control import RepositoryControl
from model_workers.served_models import ServedModels
from model_workers.version_policy import read_policy
from tests.unit.model_workers.fake_parts import HandClock
from tests.unit.model_workers.published_models import onnx_manifest, publish


class HandOpened:
    """An open version whose close takes as long as the test says."""

    def __init__(self, bench, directory) -> None:
        self._bench, self._name = bench, str(directory)
        self.served = SimpleNamespace(manifest=onnx_manifest(directory.model, directory.version, 2))
        self.metrics = VersionMetrics(
            bench.metrics, directory.model, directory.version, clock_us=bench.clock, wall_clock_ms=lambda: 0
        )

    async def close(self) -> None:
        await self._bench.may_close.wait()
        self._bench.events.append(f"closed {self._name}")

    def abort(self) -> None:
        self._bench.events.append(f"aborted {self._name}")


class RepositoryBench:
    """A repository in `folder`; `events` tells in order what was opened, refused and closed."""

    def __init__(self, folder: Path, *names: str, latest: int | None = None) -> None:
        self.folder, self.events, self.faults = folder, [], {}
        self.clock, self.models, self.registry = HandClock(), ServedModels(), CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.may_open, self.may_close = asyncio.Event(), asyncio.Event()
        self.may_open.set()
        self.may_close.set()
        self.control = RepositoryControl(
            folder,
            read_policy(names, latest),
            models=self.models,
            opener=self,
            metrics=self.metrics,
            clock_us=self.clock,
        )

    async def open(self, directory):
        self.events.append(f"opening {directory}")
        await self.may_open.wait()
        if fault := self.faults.get(str(directory)):
            raise fault
        return HandOpened(self, directory)

    def publish(self, *names: str) -> None:
        for name in names:
            model, version = name.split("@")
            publish(self.folder, b"artifact", onnx_manifest(model, version, 2))

    def withdraw(self, name: str) -> None:
        shutil.rmtree(self.folder / name.replace("@", "/"))

    def damage(self, name: str, problem: str = "it is damaged") -> None:
        self.faults[name] = ModelMismatch(*name.split("@"), problem)

    def mend(self, name: str) -> None:
        """Take the fault away, and change the files so that it can be seen."""
        del self.faults[name]
        (self.folder / name.replace("@", "/") / "model.onnx").write_bytes(b"another artifact")

    @property
    def served(self) -> list[str]:
        return list(self.models.names())

    @property
    def states(self) -> dict[str, str]:
        return {f"{entry.name}@{entry.version}": entry.state for entry in self.control.index()}

    def reason(self, name: str) -> str:
        return {f"{entry.name}@{entry.version}": entry.reason for entry in self.control.index()}[name]

    def exposition(self) -> str:
        return generate_latest(self.registry).decode()


async def until(condition) -> None:
    """Let the loop turn until the condition holds; fail at a deadline."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition, also one that no event tells of
            await asyncio.sleep(0.001)
