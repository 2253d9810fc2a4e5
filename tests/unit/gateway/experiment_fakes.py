"""Experiments at run time without Redis: a store in memory that can be away, and one gateway's parts on it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from experiments.canary import ArmCounts
from experiments.register import Register
from gateway.configuration.last_good import StateDirectory
from gateway.experimentation.experiment_store import COUNTS, AuditEntry, Stored, StoreUnavailable
from gateway.experimentation.live_register import LiveRegister
from gateway.experimentation.register_changes import Author, RegisterChanges
from gateway.routes_file import ModelRoute
from tests.unit.gateway.gateway_fakes import HandClock

IN_TIME_S = 5.0
ANA = Author("ana", "a test")

WORKERS = {"workers": ["http://worker:1"]}
ROUTES = {
    "m": msgspec.convert({"versions": {"1": WORKERS, "2": WORKERS}, "default_version": "1", "unit": "user"}, ModelRoute)
}


def document(**changed: Any) -> dict[str, Any]:
    """Write an experiment that runs, `e` on model `m`; a key whose value is None is left out."""
    variants = [{"name": "control", "version": "1", "bp": 5000}, {"name": "treatment", "version": "2", "bp": 5000}]
    whole = {"experiment": "e", "model": "m", "unit": "user", "state": "running", "variants": variants, **changed}
    return {key: value for key, value in whole.items() if value is not None}


async def becomes(holds: Callable[[], Any]) -> None:
    """Wait until something holds that tasks in the background bring about. Fails after IN_TIME_S."""
    async with asyncio.timeout(IN_TIME_S):
        while not holds():  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.001)


class FakeStore:
    """What an ExperimentStore does, in memory. Several instances may share one.

    away: why nothing is answered. steps: what happens before each swap, in turn; None: nothing.
    """

    def __init__(self) -> None:
        self.stored = Stored(0, None)
        self.entries: list[dict[str, Any]] = []
        self.told: dict[str, tuple[int, int]] = {}
        self.counted: dict[tuple[str, int], dict[int, dict[str, ArmCounts]]] = {}
        self.lease: str | None = None
        self.away: str | None = None
        self.hangs = False
        self.steps: list[Any] = []
        self.reads = 0
        self._news: list[asyncio.Queue[bool]] = []
        self.silent = False
        """Whether news is lost."""

    async def _asked(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.away is not None:
            raise StoreUnavailable(self.away)

    async def read(self, known_revision: int | None = None) -> Stored:
        await self._asked()
        self.reads += 1
        return Stored(known_revision, None) if known_revision == self.stored.revision else self.stored

    async def swap(
        self, expected: int, revision: int, data: bytes, entry: Mapping[str, Any], forgotten: Sequence[str] = ()
    ) -> bool:
        await self._asked()
        if self.steps and (step := self.steps.pop(0)) is not None:
            await step()
        if self.stored.revision != expected:
            return False
        self.stored = Stored(revision, data)
        self.entries.append(json.loads(json.dumps(entry)))
        for key in [key for key in self.counted if COUNTS.format(name=key[0], epoch=key[1]) in forgotten]:
            del self.counted[key]
        if not self.silent:
            for queue in self._news:
                queue.put_nowait(True)
        return True

    async def news(self, timeout_s: float) -> AsyncGenerator[bool, None]:
        await self._asked()
        queue: asyncio.Queue[bool] = asyncio.Queue()
        self._news.append(queue)
        while True:
            heard = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    heard = await queue.get()
            await self._asked()
            yield heard

    async def audit(self, count: int, before: str | None = None) -> list[AuditEntry]:
        await self._asked()
        return [AuditEntry(f"{n}-0", entry) for n, entry in enumerate(self.entries)][::-1][:count]

    async def acknowledge(self, instance: str, revision: int, now_us: int) -> None:
        await self._asked()
        self.told[instance] = (revision, now_us)

    async def forget(self, *instances: str) -> None:
        await self._asked()
        for instance in instances:
            self.told.pop(instance, None)

    async def acknowledged(self) -> dict[str, tuple[int, int]]:
        await self._asked()
        return dict(self.told)

    async def take_lease(self, instance: str) -> bool:
        await self._asked()
        self.lease = self.lease or instance
        return self.lease == instance

    async def give_lease_back(self, instance: str) -> None:
        await self._asked()
        if self.lease == instance:
            self.lease = None

    async def add_counts(self, name: str, epoch: int, counts: Mapping[int, Mapping[str, ArmCounts]]) -> None:
        await self._asked()
        for enrol_bp, arms in counts.items():
            for arm, own in arms.items():
                of_step = self.counted.setdefault((name, epoch), {}).setdefault(enrol_bp, {})
                of_step.setdefault(arm, ArmCounts()).add(own)

    async def counts(self, name: str, epoch: int) -> dict[int, dict[str, ArmCounts]]:
        await self._asked()
        return self.counted.get((name, epoch), {})


class Instance:
    """One gateway's register and changes, on a store that others may share; its clock stands still."""

    def __init__(self, state: Path, store: Any, name: str = "one") -> None:
        self.store, self.clock = store, HandClock()
        self.state = StateDirectory(state, self.now_us)
        self.in_force: list[Register] = []
        self.live = LiveRegister(store, self.state, name, self.clock, self.now_us, self.in_force.append)
        self.routes = dict(ROUTES)
        self.changes = RegisterChanges(store, self.live, lambda: self.routes, self.now_us)

    def now_us(self) -> int:
        """UTC microseconds, by the same clock."""
        return int(self.clock.now_s * 1e6)

    async def put(self, name: str = "e", expected: int | None = 0, **changed: Any) -> int:
        """Put a document. Returns the register's revision."""
        made = document(experiment=name, **changed)
        outcome = await self.changes.put(name, made, expected, ANA, dry_run=False)
        return outcome.change.register.revision
