"""The experiments in force: heard of from Redis within a moment, kept on disk, and never lost with their source."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, Final

from experiments.register import Register, RegisterError, decode, encode
from gateway.background_task import end_tasks, in_background
from gateway.configuration.last_good import StateDirectory, ignored
from gateway.experimentation.experiment_store import ExperimentStore, Stored, StoreUnavailable

FILE: Final = "experiments.json"

LOOK_EVERY_S: Final = 0.5
"""Where no news comes, or is lost."""

START_PATIENCE_S: Final = 1.0
"""How long Redis may take for the first reading before the last good one stands in."""

ACKNOWLEDGE_EVERY_S: Final = 2.0
NOTICE_S: Final = 0.05
"""How soon a revision that has come into force is acknowledged."""

SILENT_AFTER_S: Final = 10.0
"""An instance that has acknowledged nothing for so long is not counted any more."""

FORGOTTEN_AFTER_S: Final = 3_600.0

logger = logging.getLogger(__name__)


class LiveRegister:
    """Follows the store. instance: this process's name among all. on_change: given each register that comes into force.

    `problem` says why what the store holds now is not in force, None where it is.
    """

    def __init__(
        self,
        store: ExperimentStore,
        state: StateDirectory,
        instance: str,
        clock: Callable[[], float],
        now_us: Callable[[], int],
        on_change: Callable[[Register], None],
    ) -> None:
        self._store, self._state, self._clock, self._now_us = store, state, clock, now_us
        self._on_change = on_change
        self._tasks: list[asyncio.Task[None]] = []
        self._seen_at_s: float | None = None
        self._acknowledged: tuple[int, float] = (-1, 0.0)
        self.instance = instance
        self.register = Register()
        self.from_disk = False
        self.problem: str | None = "the store has not been read yet"

    @property
    def age_s(self) -> float:
        """How long ago the store last said what is in force; 0: never."""
        return 0.0 if self._seen_at_s is None else self._clock() - self._seen_at_s

    async def start(self) -> None:
        """Take what the store has, or else what the state directory has, and follow the store from then on."""
        try:
            async with asyncio.timeout(START_PATIENCE_S):
                await self.look()
        except TimeoutError:
            self._failed("no answer in time")
        if self.register.revision == 0:
            # Redis is away, or has lost them: it is given them back as soon as it can be read.
            await self._take_from_disk()
        self._tasks = [
            in_background(self._keep_looking(), "experiments"),
            in_background(self._keep_acknowledging(), "experiments' acknowledgements"),
        ]

    async def close(self) -> None:
        """Follow no longer, and be missed by nobody."""
        await end_tasks(*self._tasks)
        if self.problem is not None:
            return  # nobody hears it, and the end would wait for that
        try:
            await self._store.forget(self.instance)
        except StoreUnavailable as error:
            logger.info("the end of this instance is not told", extra={"reason": str(error)})

    async def look(self) -> None:
        """Read the store once, and put in force what is new."""
        try:
            # What is only from disk is no proof that the store has the same under that number.
            is_known = self._seen_at_s is not None and not self.from_disk
            stored = await self._store.read(self.register.revision if is_known else None)
            if stored.data is not None or stored.revision == 0:
                await self._take_stored(stored)
        except (StoreUnavailable, RegisterError) as error:
            self._failed(str(error))
            return
        if self.problem is not None and self._seen_at_s is not None:
            logger.info("the experiments can be read again")
        self.problem, self._seen_at_s = None, self._clock()

    def take(self, register: Register) -> None:
        """Put a register in force, unless a later one is."""
        if register.revision <= self.register.revision and not self.from_disk:
            return
        self.register, self.from_disk = register, False
        logger.info("other experiments are in force", extra={"revision": register.revision})
        self._on_change(register)

    async def take_own(self, register: Register, data: bytes) -> None:
        """Put in force, and keep, what this instance has stored itself: no look will find it new."""
        self.take(register)
        await self._keep(register, data)

    async def acknowledged(self) -> dict[str, dict[str, Any]]:
        """Return what each living instance serves by. Raises StoreUnavailable."""
        now_us, found = self._now_us(), await self._store.acknowledged()
        ages = {instance: (revision, (now_us - at_us) / 1e6) for instance, (revision, at_us) in found.items()}
        gone = [instance for instance, (_, age_s) in ages.items() if age_s > FORGOTTEN_AFTER_S]
        if gone:
            await self._store.forget(*gone)
        return {
            instance: {"revision": revision, "age_s": round(max(0.0, age_s), 1)}
            for instance, (revision, age_s) in sorted(ages.items())
            if age_s <= SILENT_AFTER_S
        }

    async def _take_stored(self, stored: Stored) -> None:
        # What is only from disk gives way to whatever the store has: who wrote that knew of no more.
        if stored.revision < self.register.revision and not (self.from_disk and stored.data is not None):
            await self._restore(stored)
            return
        if stored.data is None:
            return  # nobody has made an experiment yet
        register = await asyncio.to_thread(decode, stored.data, self.register)
        self.take(register)
        await self._keep(register, stored.data)

    async def _keep(self, register: Register, data: bytes) -> None:
        if self.register is register:  # another one that came into force meanwhile is kept by whoever brought it
            await self._state.keep(FILE, data)

    async def _restore(self, stored: Stored) -> None:
        """Give a store that was emptied, or set back, what it had. The highest revision wins, whoever has it."""
        register = self.register
        entry = {
            "at": datetime.fromtimestamp(self._now_us() / 1e6, UTC).isoformat(),
            "action": "restore",
            "actor": self.instance,
            "reason": f"the store had revision {stored.revision}, and {register.revision} was in force",
            "revision": register.revision,
            "documents": [
                {
                    "experiment": name,
                    "revision": kept.experiment.revision,
                    "epoch": kept.experiment.epoch,
                    "after": kept.experiment.document,
                }
                for name, kept in sorted(register.entries.items())
            ],
        }
        if await self._store.swap(stored.revision, register.revision, encode(register), entry):
            self.from_disk = False
            logger.warning(
                "the store had lost experiments, and was given the last good ones",
                extra={"revision": register.revision, "found": stored.revision},
            )

    def _failed(self, reason: str) -> None:
        # Said once: the last good experiments stay, for a split does not become wrong because Redis is away.
        if self.problem is None or self._seen_at_s is None:
            logger.warning("the experiments cannot be read", extra={"reason": reason})
        self.problem = reason

    async def _take_from_disk(self) -> None:
        stored = await asyncio.to_thread(self._state.read, FILE)
        if stored is None:
            return
        try:
            register = await asyncio.to_thread(decode, stored.data)
        except RegisterError as error:
            ignored(self._state.path_of(FILE), str(error))
            return
        self.take(register)
        self.from_disk = True
        logger.warning(
            "experiments are taken from the last good ones on disk",
            extra={"revision": register.revision, "age_s": int(stored.age_s)},
        )

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with aclosing(self._store.news(LOOK_EVERY_S)) as news:
                    async for _ in news:
                        await self.look()
            except StoreUnavailable:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.look()

    async def _keep_acknowledging(self) -> None:
        while True:
            revision, at_s = self._acknowledged
            if revision != self.register.revision or self._clock() - at_s >= ACKNOWLEDGE_EVERY_S:
                self._acknowledged = (self.register.revision, self._clock())
                with suppress(StoreUnavailable):  # `look` tells of it
                    await self._store.acknowledge(self.instance, self.register.revision, self._now_us())
            await asyncio.sleep(NOTICE_S)
