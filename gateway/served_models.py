"""The models as they are served right now: routes, versions that have been planned, experiments that run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from experiments import Experiment
from gateway.dispatch.batch_dispatcher import BatchDispatcher
from gateway.dispatch.worker_pool import WorkerPool
from gateway.feature_plan import FeaturePlan
from gateway.model_signature import ModelSignature
from gateway.prediction_log.prediction_table import LoggedColumns, PredictionTable
from gateway.routes_file import ModelRoute

STATIC_DATATYPE: Final = "FP64"
"""Of a static score's values."""


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """A version that can answer: its signature is known and its features are planned."""

    version: str
    signature: ModelSignature
    plan: FeaturePlan | None
    """None: it takes raw tensors only."""

    dispatcher: BatchDispatcher
    table: PredictionTable
    output_names: tuple[str, ...]


@dataclass(slots=True, eq=False)
class ServedVersion:
    """A version of a route, planned or not yet."""

    version: str
    pool: WorkerPool
    planned: PlannedVersion | None = None
    problem: str = "its worker has not been asked yet"
    """Why it is not planned."""

    from_disk: bool = False
    """Whether its worker has not been heard yet, and the last good signature on disk stands in."""

    @property
    def ready(self) -> bool:
        """Whether it can answer: planned, and some worker of it can be reached."""
        return self.planned is not None and self.pool.reachable

    @property
    def reason(self) -> str | None:
        """Why it cannot answer; None where it can."""
        if self.planned is None:
            return self.problem
        return None if self.pool.reachable else "none of its workers can be reached"


@dataclass(slots=True)
class ServedModel:
    """One route with everything that a request to it needs.

    A configuration that changes makes another one and takes its place: a request ends with the one that it began with.
    """

    name: str
    route: ModelRoute
    versions: Mapping[str, ServedVersion]
    experiments: tuple[Experiment, ...]
    is_targeted: bool = field(init=False)
    """Whether some experiment asks for attributes of a request."""

    static_table: PredictionTable | None = None
    """Where static scores are logged; None where the route has none, or before any version was planned."""

    static_outputs: Mapping[str, float] = field(default_factory=dict)
    """The static score by output; empty where there is none, or before any version was planned."""

    entities: frozenset[str] = field(default=frozenset())
    """Entity kinds that a request may name: those that some version's features need, and the unit."""

    request_features: frozenset[str] = field(default=frozenset())
    """Features that a request may send."""

    names_are_known: bool = False
    """Whether both are complete: a version that is not planned yet may want more."""

    def __post_init__(self) -> None:
        """Derive what requests would otherwise ask each time."""
        self.is_targeted = any(experiment.where is not None for experiment in self.experiments)

    def learn_names(self) -> None:
        """Work out from the planned versions what a request may name, and what the static score's outputs are called.

        Called when it is made, and when one of its versions has been planned.
        """
        known = [served.planned for served in self.versions.values() if served.planned is not None]
        plans = [planned.plan for planned in known if planned.plan is not None]
        entities = {kind for plan in plans for kind in plan.entities}
        entities |= {experiment.unit for experiment in self.experiments}
        if self.route.unit is not None:
            entities.add(self.route.unit)
        features = {name for plan in plans for name in (*plan.request_features, *plan.overridable)}
        self.names_are_known = len(known) == len(self.versions)
        self.entities = frozenset(entities)
        self.request_features = frozenset(features | set(self.route.attributes))
        default = self.versions.get(self.route.default_version)
        if default is not None and default.planned is not None:
            self._learn_static(default.planned)
        elif known:
            self._learn_static(known[0])

    def _learn_static(self, like: PlannedVersion) -> None:
        value = self.route.fallback.value
        if value is None:
            return
        self.static_outputs = value if isinstance(value, dict) else dict.fromkeys(like.output_names, value)
        columns = LoggedColumns((), (), tuple(((name, STATIC_DATATYPE),) for name in self.static_outputs))
        self.static_table = PredictionTable(self.name, "static", sorted(self.entities), columns)

    @property
    def ready(self) -> bool:
        """Whether a request can be answered: the default version is planned, and it or a fallback has an answer now."""
        default, fallback = self.versions[self.route.default_version], self.route.fallback
        if default.planned is None:
            return False
        other = self.versions[fallback.version] if fallback.version is not None else default
        return default.ready or other.ready or fallback.value is not None
