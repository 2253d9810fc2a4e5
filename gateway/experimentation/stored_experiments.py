"""Everything that experiments need which live in a store: composed here, started and stopped together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from experiments.register import Register
from feature_store import RedisClient
from gateway.arm_counts import ArmCounter
from gateway.configuration.last_good import StateDirectory
from gateway.configuration.live_configuration import LiveConfiguration
from gateway.experimentation.canary_controller import CanaryController
from gateway.experimentation.experiment_store import ExperimentStore
from gateway.experimentation.live_register import LiveRegister
from gateway.experimentation.register_changes import RegisterChanges
from gateway.routes_file import ModelRoute


@dataclass(frozen=True, slots=True)
class StoredExperiments:
    """The parts. now_us: UTC microseconds."""

    store: ExperimentStore
    live: LiveRegister
    changes: RegisterChanges
    controller: CanaryController
    now_us: Callable[[], int]

    def now(self) -> datetime:
        """Return the time, UTC."""
        return datetime.fromtimestamp(self.now_us() / 1e6, UTC)

    async def start(self) -> None:
        """Put in force what the store has, or else the last good experiments, and follow."""
        await self.live.start()
        self.controller.start()

    async def close(self) -> None:
        """Follow no longer."""
        await self.controller.close()
        await self.live.close()


def stored_experiments(
    redis: RedisClient,
    state: StateDirectory,
    instance: str,
    configuration: LiveConfiguration,
    counter: ArmCounter,
    clock: Callable[[], float],
    now_us: Callable[[], int],
) -> StoredExperiments:
    """Compose them. What comes into force is handed to the configuration. instance: this process among all."""
    store = ExperimentStore(redis)

    def on_change(register: Register) -> None:
        configuration.take_experiments({model: register.of_model(model) for model in register.models()})

    def routes() -> Mapping[str, ModelRoute]:
        return configuration.current.routes

    live = LiveRegister(store, state, instance, clock, now_us, on_change)
    changes = RegisterChanges(store, live, routes, now_us)
    return StoredExperiments(store, live, changes, CanaryController(store, live, changes, counter, now_us), now_us)
