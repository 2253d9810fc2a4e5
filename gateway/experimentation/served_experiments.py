"""Which experiments are in force, from where, how old, and who else serves by them: for scrapes and for people."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from experiments.register import Entry, Register
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.experimentation.experiment_store import StoreUnavailable
from gateway.experimentation.stored_experiments import StoredExperiments

ACKNOWLEDGED_WITHIN_S: Final = 0.5
"""How long a status may wait for what other instances say: it is asked for most where Redis is in trouble."""


class ServedExperiments:
    """The experiments of this process; a metrics collector. stored: None where they come from files."""

    def __init__(self, configuration: LiveConfiguration, stored: StoredExperiments | None) -> None:
        self._configuration, self.stored = configuration, stored

    async def start(self) -> None:
        """Follow the store, where there is one."""
        if self.stored is not None:
            await self.stored.start()

    async def close(self) -> None:
        """Follow it no longer."""
        if self.stored is not None:
            await self.stored.close()

    def register(self) -> Register:
        """Return the experiments in force. Those of files have fingerprints for revisions, and no times."""
        if self.stored is not None:
            return self.stored.live.register
        found = [e for of_model in self._configuration.current.experiments.values() for e in of_model]
        entries = {e.name: Entry(experiment=e, created_at_us=0, step_since_us=0) for e in found}
        return Register(revision=0, entries=entries)

    async def status(self) -> dict[str, Any]:
        """Tell people."""
        register = self.register()
        if self.stored is None:
            return {"source": "files", "revision": 0, "killed": [], "problem": self._configuration.problem}
        live = self.stored.live
        acknowledged: dict[str, Any] = {}
        if live.problem is None:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                    acknowledged = await live.acknowledged()
        return {
            "source": "store",
            "instance": live.instance,
            "revision": register.revision,
            "age_s": round(live.age_s, 1),
            "from_disk": live.from_disk,
            "killed": sorted(register.killed),
            "problem": live.problem,
            "leads": self.stored.controller.leads,
            "acknowledged": acknowledged,
        }

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        if self.stored is None:
            return
        live, controller = self.stored.live, self.stored.controller
        yield _gauge("sekisho_experiments_revision", "Revision of the experiments in force", live.register.revision)
        yield _gauge("sekisho_experiments_age_seconds", "How long ago the store said what is in force", live.age_s)
        yield _gauge(
            "sekisho_experiments_problem",
            "1 where the store cannot be read, and the last good experiments stay",
            live.problem is not None,
        )
        yield _gauge("sekisho_experiments_killed", "Models whose experiments are off", len(live.register.killed))
        yield _gauge("sekisho_canary_controller_leads", "1 where this process watches guardrails", controller.leads)
        yield CounterMetricFamily(
            "sekisho_canary_rollbacks", "Experiments that this process rolled back", value=controller.rollbacks
        )


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=float(value))
