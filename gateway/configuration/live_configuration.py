"""The configuration in force: followed in its files, changed at run time, and always the last good one."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from experiments import Experiment, ExperimentError
from gateway.background_task import in_background
from gateway.configuration.catalogue import Catalogue
from gateway.configuration.configuration import Configuration, ConfigurationFiles, Stamps
from gateway.configuration.experiment_routes import refuse_other_unit
from gateway.configuration.last_good import StateDirectory, StateNotWritten
from gateway.configuration.route_overlay import Overlay, encode_overlay, overlay_file
from gateway.routes_file import ModelRoute
from settings import ConfigurationError
from settings.patient_reader import PatientReader

LOOK_EVERY_S: Final = 1.0

Experiments = Mapping[str, tuple[Experiment, ...]]
"""By model."""

logger = logging.getLogger(__name__)


class LiveConfiguration:
    """Holds the configuration and hands each new one to the catalogue. clock: seconds, monotonic.

    first: as it was read from the files. `problem` says why what lies in them now is not in force, None where it is;
    `changes` counts the configurations that took another's place.
    """

    def __init__(
        self,
        first: Configuration,
        files: ConfigurationFiles,
        state: StateDirectory,
        catalogue: Catalogue,
        clock: Callable[[], float],
    ) -> None:
        self._files, self._state, self._catalogue, self._clock = files, state, catalogue, clock
        self._changing = asyncio.Lock()
        self._reader = PatientReader(files.config)
        self._task: asyncio.Task[None] | None = None
        self._experiments: Experiments | None = None
        self.current, self.revision = first, first.revision
        self._agreed_at_s = clock()
        # Unknown: what was written while it was read is so found at the first look.
        self._read_at: Stamps | None = None
        self._seen: Stamps | None = None
        self.problem: str | None = None
        self.changes = 0

    @property
    def age_s(self) -> float:
        """How long ago the files last said what is in force."""
        return self._clock() - self._agreed_at_s

    def start(self) -> None:
        """Begin to serve, and to follow the files."""
        self._forget_outdated(self.current)
        self._catalogue.start(self.current)
        self._task = in_background(self._keep_looking(), "configuration")

    async def close(self) -> None:
        """Follow the files no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Look at the files once, and put in force what has changed and is good.

        A file that differs from the last look is left until it has stayed the same from one look to the next: half of
        a file that is being written may be a valid one.
        """
        async with self._changing:
            try:
                stamps = await self._reader.run(partial(self._files.stamps, self.current.file_routes))
                settled, self._seen = stamps == self._seen, stamps
                if stamps != self._read_at:
                    if not settled:
                        return
                    self._read_at = stamps
                    self._put_in_force(await self._reader.run(self._files.read))
                    await asyncio.to_thread(self._files.keep)
            except ConfigurationError as error:
                if self._reader.hangs:
                    self._read_at = None  # nobody has seen them as they are now: they are read once they can be
                self._refuse(str(error))
            if self.problem is None:
                self._agreed_at_s = self._clock()

    async def change(self, model: str, changed: Callable[[Configuration], Overlay], *, dry_run: bool) -> None:
        """Change one model's overlay: on disk, so that it outlives a restart, and then in force.

        changed: makes the new overlay of the configuration in force; what it raises changes nothing.
        Raises RouteFault and StateNotWritten.
        """
        async with self._changing:
            overlay = changed(self.current)
            configuration = self.current.with_overlay(model, overlay)
            if dry_run:
                return
            if overlay.is_empty:
                await asyncio.to_thread(self._state.remove, overlay_file(model))
            else:
                await asyncio.to_thread(self._state.write, overlay_file(model), encode_overlay(overlay))
            self._take(configuration)

    def take_experiments(self, experiments: Experiments) -> None:
        """Put other experiments in force than the files have, from now on. experiments: by model.

        One whose unit is not its route's is left out: it would split by something that it does not mean.
        """
        self._experiments = experiments
        self._take(self.current)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    def _put_in_force(self, configuration: Configuration) -> None:
        if self.problem is not None:
            logger.info("the configuration's files are good again")
        self.problem = None
        self._forget_outdated(configuration)
        self._take(configuration)

    def _take(self, configuration: Configuration) -> None:
        if self._experiments is not None:
            configuration = replace(configuration, experiments=_fitting(self._experiments, configuration.routes))
        revision = configuration.revision
        self.current = configuration
        if revision == self.revision:
            return
        before, self.revision = self.revision, revision
        self.changes += 1
        logger.info("another configuration is in force", extra={"revision": revision, "before": before})
        self._catalogue.apply(configuration)

    def _refuse(self, problem: str) -> None:
        if problem != self.problem:
            logger.error("the configuration's files are refused; the last good one stays", extra={"reason": problem})
        self.problem = problem

    def _forget_outdated(self, configuration: Configuration) -> None:
        for model in configuration.outdated:
            logger.warning(
                "run-time changes are dropped: the file says something else of the model by now", extra={"model": model}
            )
            try:
                self._state.remove(overlay_file(model))
            except StateNotWritten as error:
                logger.warning("an overlay that is void stays on disk", extra={"reason": str(error)})


def _fitting(experiments: Experiments, routes: Mapping[str, ModelRoute]) -> dict[str, tuple[Experiment, ...]]:
    found = {}
    for model, route in routes.items():
        fit = []
        for experiment in experiments.get(model, ()):
            try:
                refuse_other_unit(experiment, route)
            except ExperimentError as error:
                logger.warning("an experiment is left out", extra={"experiment": experiment.name, "reason": str(error)})
            else:
                fit.append(experiment)
        if fit:
            found[model] = tuple(fit)
    return found
