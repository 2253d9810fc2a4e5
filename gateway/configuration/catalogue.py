"""The models as they are served, brought step by step to what the configuration says, without losing a request.

What is new or other of a version is made beside the one that serves, and takes its place when it can answer. What is
gone answers whoever began with it, and is closed when nobody can be left.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Final

from experiments import Experiment, State
from gateway.background_task import end_tasks, in_background
from gateway.configuration.configuration import Configuration
from gateway.configuration.version_keeper import VersionKeeper, VersionSurroundings, target_of
from gateway.routes_file import ModelRoute
from gateway.served_models import ServedModel

TICK_S: Final = 0.2
"""How often what is on its way is looked at, and the registry while some version is not planned."""

LOOK_BACK_S: Final = 1.0
"""While the registry cannot be read and no version waits for it: how soon it is noticed that it can be again."""

REFRESH_S: Final = 5.0
"""Once all are planned: how soon a view that has gained features is read with its new layout."""

SETTLE_S: Final = 10.0
"""How long one new version that cannot answer yet may hold up the rest of its model's changes."""

RETIRE_MARGIN_S: Final = 1.0
"""Beyond the deadline of the last request that may hold a version."""

logger = logging.getLogger(__name__)


class _Model:
    """One model on its way: what is wanted of it, what serves, what is being made ready."""

    def __init__(self, route: ModelRoute, experiments: tuple[Experiment, ...]) -> None:
        self.route, self.experiments = route, experiments
        self.serving: dict[str, VersionKeeper] = {}
        self.incoming: dict[str, VersionKeeper] = {}

    @property
    def needed(self) -> set[str]:
        """The versions that requests may be sent to without naming them."""
        drawn = {v.version for e in self.experiments if e.state is State.RUNNING for v in e.variants}
        fallback = self.route.fallback.version
        return drawn | {self.route.default_version} | ({fallback} if fallback is not None else set())

    def candidate(self, version: str) -> VersionKeeper:
        """Return what would serve a version if the change were made now."""
        incoming, serving = self.incoming.get(version), self.serving.get(version)
        if serving is None or (incoming is not None and (incoming.ready or not serving.ready)):
            assert incoming is not None  # what is wanted is begun before anything else
            return incoming
        return serving

    def keepers(self) -> Iterator[VersionKeeper]:
        """Return all."""
        yield from self.serving.values()
        yield from self.incoming.values()


class Catalogue:
    """Serves a configuration. on_change: called when `models` has other members than before.

    `models` is one mapping for ever, whose members are replaced; whoever looks something up in it sees the change.
    """

    def __init__(self, around: VersionSurroundings) -> None:
        self._around = around
        self._known: dict[str, _Model] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired: set[VersionKeeper] = set()
        self.on_change: Callable[[], None] = lambda: None
        self.models: dict[str, ServedModel] = {}

    @property
    def ready(self) -> bool:
        """Whether the default version of every model can answer."""
        return all(model.ready for model in self.models.values())

    @property
    def pending(self) -> dict[str, str]:
        """By `model@version`: what is configured and does not serve yet, and why not."""
        return {
            f"{name}@{version}": keeper.served.reason or "it can answer, and waits for the model's other versions"
            for name, model in self._known.items()
            for version, keeper in model.incoming.items()
        }

    @property
    def signatures_from_disk(self) -> int:
        """How many versions stand on a signature that their worker has not confirmed."""
        return sum(keeper.served.from_disk for model in self._known.values() for keeper in model.keepers())

    def start(self, configuration: Configuration) -> None:
        """Begin to serve: every model is there at once, ready or not."""
        self._apply(configuration, at_once=True)
        self._run(self._keep_views(), "views")
        self._run(self._keep_settling(), "catalogue")

    def apply(self, configuration: Configuration) -> None:
        """Bring the models to a checked configuration: now, or as soon as what it needs can answer."""
        self._apply(configuration, at_once=False)

    def settle(self) -> None:
        """Make the changes that can be made now."""
        changed = [name for name, model in self._known.items() if self._settle(name, model)]
        if changed:
            self.on_change()

    def keeper(self, name: str, version: str) -> VersionKeeper | None:
        """Return what is wanted of a version: the one that is being made ready, where there is one."""
        model = self._known.get(name)
        return None if model is None else model.incoming.get(version) or model.serving.get(version)

    async def close(self) -> None:
        """End everything."""
        await end_tasks(*self._tasks)
        keepers = [keeper for model in self._known.values() for keeper in model.keepers()]
        await asyncio.gather(*(keeper.close() for keeper in (*keepers, *self._retired)))

    # Changes -------------------------------------------------------------------------------------------------------

    def _apply(self, configuration: Configuration, *, at_once: bool) -> None:
        gone = [name for name in self._known if name not in configuration.routes]
        for name in gone:
            self._remove(name)
        changed = bool(gone)
        for name, route in configuration.routes.items():
            experiments = configuration.experiments.get(name, ())
            model = self._known.setdefault(name, _Model(route, experiments))
            # What is equal stays the same object: so it is told below, for each model and tick, what is still to do.
            if model.route != route:
                model.route = route
            if model.experiments != experiments:
                model.experiments = experiments
            self._prepare(name, model)
            changed = self._settle(name, model, at_once=at_once) or changed
        if changed:
            self.on_change()

    def _prepare(self, name: str, model: _Model) -> None:
        """Begin what is wanted and is not there yet; give up what was on its way and is no longer wanted."""
        wanted = {version: target_of(name, version, model.route) for version in model.route.versions}
        for version, keeper in list(model.incoming.items()):
            serving = model.serving.get(version)
            if keeper.target != wanted.get(version) or (serving is not None and serving.target == keeper.target):
                self._retire(model.incoming.pop(version), after_s=0.0)
        for version, target in wanted.items():
            serving = model.serving.get(version)
            if version not in model.incoming and (serving is None or serving.target != target):
                keeper = VersionKeeper(target, self._around, lambda: self._planned(name))
                model.incoming[version] = keeper
                keeper.start()

    def _settle(self, name: str, model: _Model, *, at_once: bool = False) -> bool:
        """Replace a model by what is wanted of it, where that can be done now. Returns whether it was."""
        live, route = self.models.get(name), model.route
        as_wanted = live is not None and live.route is route and live.experiments is model.experiments
        if as_wanted and not model.incoming:
            return False
        if not (at_once or self._may_change(model, live)):
            return live is not None and self._settle_experiments(live, model.experiments)
        serving = {v: model.candidate(v) for v in route.versions if at_once or self._belongs(model, v)}
        if as_wanted and serving == model.serving:
            return False
        before, model.serving = model.serving, serving
        model.incoming = {v: keeper for v, keeper in model.incoming.items() if keeper is not serving.get(v)}
        changed = ServedModel(name, route, {v: k.served for v, k in serving.items()}, model.experiments)
        changed.learn_names()
        self.models[name] = changed
        for version, keeper in before.items():
            if serving.get(version) is not keeper:
                self._retire(keeper, _longest_s(live))
        logger.info("a model's route is in force", extra={"model": name, "versions": list(serving)})
        return True

    def _settle_experiments(self, live: ServedModel, wanted: tuple[Experiment, ...]) -> bool:
        """Put in force what needs no version that is still on its way: a rollback, or a kill, waits for none."""
        before = {experiment.name: experiment for experiment in live.experiments}
        found = [e if _is_served(e, live) else before.get(e.name) for e in wanted]
        experiments = tuple(experiment for experiment in found if experiment is not None)
        if experiments == live.experiments:
            return False
        changed = ServedModel(live.name, live.route, live.versions, experiments)
        changed.learn_names()
        self.models[live.name] = changed
        return True

    def _may_change(self, model: _Model, live: ServedModel | None) -> bool:
        waited_for = [model.incoming[version] for version in model.needed if version in model.incoming]
        if not all(keeper.ready or self._overdue(keeper) for keeper in waited_for):
            return False
        if model.candidate(model.route.default_version).ready:
            return True
        # Where the default version cannot answer as it is, there is nothing to lose.
        return live is not None and not live.versions[live.route.default_version].ready

    def _belongs(self, model: _Model, version: str) -> bool:
        """Whether a wanted version is to be among those that serve. One that nobody needs comes when it is ready."""
        if version in model.needed or version in model.serving:
            return True
        keeper = model.incoming[version]
        return keeper.ready or self._overdue(keeper)

    def _overdue(self, keeper: VersionKeeper) -> bool:
        return self._around.clock() - keeper.started_at_s > SETTLE_S

    def _remove(self, name: str) -> None:
        model, live = self._known.pop(name), self.models.pop(name, None)
        for keeper in model.keepers():
            self._retire(keeper, _longest_s(live))
        logger.info("a model is served no more", extra={"model": name})

    def _planned(self, name: str) -> None:
        live = self.models.get(name)
        if live is not None:
            live.learn_names()

    def _retire(self, keeper: VersionKeeper, after_s: float) -> None:
        # Nobody is given it any more, and whoever has it ends by their deadline: no count of them is needed, which
        # every request would have to keep.
        self._retired.add(keeper)
        self._run(self._close(keeper, after_s), f"retire {keeper.target.model}@{keeper.target.version}")

    async def _close(self, keeper: VersionKeeper, after_s: float) -> None:
        await keeper.stop_learning()
        await asyncio.sleep(after_s)
        await keeper.close()
        self._retired.discard(keeper)

    # In the background ---------------------------------------------------------------------------------------------

    async def _keep_settling(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.settle()

    async def _keep_views(self) -> None:
        while True:
            changed = await self._around.views.refresh()
            keepers = [keeper for model in self._known.values() for keeper in model.keepers()]
            if changed:
                for keeper in keepers:
                    keeper.replan()
            if not all(keeper.served.planned for keeper in keepers):
                await asyncio.sleep(TICK_S)
            else:
                await asyncio.sleep(REFRESH_S if self._around.views.problem is None else LOOK_BACK_S)

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        task = in_background(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_served(experiment: Experiment, live: ServedModel) -> bool:
    """Whether every version that it sends requests to is among those that serve."""
    drawn = experiment.variants if experiment.state is State.RUNNING else ()
    given = drawn if experiment.winner is None else (experiment.winner,)
    return all(variant.version in live.versions for variant in given)


def _longest_s(live: ServedModel | None) -> float:
    """How long a request may still hold what served it."""
    return 0.0 if live is None else live.route.deadline_ms / 1000 + RETIRE_MARGIN_S
