"""Watches running experiments: rolls back what breaches a guardrail, climbs ramps, promotes what has held.

Every gateway counts its own requests and adds them up in Redis; one of all of them, which holds a lease, looks at the
sums and decides. Should two ever decide at once, the store takes one of the changes: each is made of the revision that
it was decided by.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from experiments import Experiment, State
from experiments.canary import Counts, Finding, decide, look
from experiments.guardrails import Action
from experiments.register import Entry
from gateway.arm_counts import ArmCounter
from gateway.background_task import end_tasks, in_background
from gateway.errors import GatewayError
from gateway.experimentation.experiment_store import ExperimentStore, StoreUnavailable
from gateway.experimentation.live_register import LiveRegister
from gateway.experimentation.register_changes import Author, RegisterChanges

TICK_S: Final = 0.5
"""How often counts are passed on, and looked at."""

ACTOR: Final = "sekisho-controller"

EXPERIMENTS_PENDING_MAX: Final = 10_000
"""Of counts that could not be passed on: revisions of experiments. Above it the latest are lost, and told."""

logger = logging.getLogger(__name__)


class CanaryController:
    """Passes counts on and, while it holds the lease, acts on them. `leads`: whether it does just now."""

    def __init__(
        self,
        store: ExperimentStore,
        live: LiveRegister,
        changes: RegisterChanges,
        counter: ArmCounter,
        now_us: Callable[[], int],
    ) -> None:
        self._store, self._live, self._changes, self._counter, self._now_us = store, live, changes, counter, now_us
        self._task: asyncio.Task[None] | None = None
        self._alerted: set[tuple[str, int, str, str]] = set()
        self.leads = False
        self.rollbacks = 0

    def start(self) -> None:
        """Begin."""
        self._task = in_background(self._keep_watching(), "canary controller")

    async def close(self) -> None:
        """Pass on what was counted, and let another one lead."""
        if self._task is not None:
            await end_tasks(self._task)
        if self._live.problem is not None:
            return  # nobody takes them, and the end would wait for that
        with suppress(StoreUnavailable):
            await self._pass_on()
            if self.leads:
                await self._store.give_lease_back(self._live.instance)

    async def findings(self, experiment: Experiment) -> tuple[Counts, tuple[Finding, ...]]:
        """Return an experiment's counts, and how its guardrails stand. Raises StoreUnavailable."""
        counts = await self._store.counts(experiment.name, experiment.epoch)
        return counts, look(experiment, counts)

    async def step(self) -> None:
        """Do once what there is to do. Raises StoreUnavailable."""
        await self._pass_on()
        register = self._live.register
        # Not while they are switched off: nobody is in their arms, so time says nothing for a ramp.
        killed = register.is_killed
        watched = [e for e in register.entries.values() if _is_watched(e) and not killed(e.experiment.model)]
        if not watched:
            self.leads = False
            return
        self.leads = await self._store.take_lease(self._live.instance)
        if self.leads:
            for entry in watched:
                await self._watch(entry)

    async def _pass_on(self) -> None:
        # Asked first whether it answers at all: what is taken may be lost with the answer, and waits here until then.
        await self._store.read(self._live.register.revision)
        taken = list(self._counter.take())
        for number, (experiment, arms) in enumerate(taken):
            try:
                await self._store.add_counts(experiment.name, experiment.epoch, {experiment.enrol_bp: arms})
            except StoreUnavailable:
                # Not the one that failed: it may have been counted although the answer was lost.
                for other, counts in taken[number + 1 :][:EXPERIMENTS_PENDING_MAX]:
                    self._counter.give_back(other, counts)
                raise

    async def _watch(self, entry: Entry) -> None:
        experiment = entry.experiment
        counts, findings = await self.findings(experiment)
        self._alert(experiment, findings)
        decision = decide(entry, counts, findings, self._now_us())
        if decision is None:
            return
        author = Author(ACTOR, decision.reason)
        try:
            await self._changes.put(experiment.name, decision.document, experiment.revision, author, dry_run=False)
        except GatewayError as error:
            # Changed meanwhile, most likely: the next look is at what there is then.
            logger.info(
                "a decision was not carried out",
                extra={"experiment": experiment.name, "decision": decision.reason, "reason": error.detail},
            )
            return
        self.rollbacks += any(f.breached and f.action is Action.ROLLBACK for f in findings)
        logger.warning(
            "an experiment was changed by its guardrails or its ramp",
            extra={"experiment": experiment.name, "decision": decision.reason},
        )

    def _alert(self, experiment: Experiment, findings: Sequence[Finding]) -> None:
        for finding in findings:
            key = (experiment.name, experiment.epoch, finding.metric, finding.variant)
            if finding.breached and finding.action is Action.ALERT and key not in self._alerted:
                self._alerted.add(key)
                logger.error("a guardrail is breached", extra={"experiment": experiment.name, "finding": str(finding)})

    async def _keep_watching(self) -> None:
        failing = False
        while True:
            try:
                await self.step()
                failing = False
            except StoreUnavailable as error:
                self.leads = False
                if not failing:
                    logger.warning("guardrails are not watched just now", extra={"reason": str(error)})
                failing = True
            await asyncio.sleep(TICK_S)


def _is_watched(entry: Entry) -> bool:
    experiment = entry.experiment
    return experiment.state is State.RUNNING and bool(experiment.guardrails or experiment.ramp is not None)
