"""What the data path counts for guardrails, and which answers it has scored once more."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from experiments import Experiment, parse_experiment
from gateway.admission import Admission, Priority
from gateway.arm_counts import ARM_FAULTS, ArmCounter
from gateway.errors import (
    DeadlineExceeded,
    FeaturesMissing,
    GatewayError,
    InvalidRequest,
    MissingEntity,
    MissingFeature,
    Overloaded,
    WorkerUnavailable,
    WrongFeatureType,
)
from gateway.metrics import GatewayMetrics
from gateway.predict import Predictor
from gateway.predict_request import PredictRequest
from gateway.scoring_ladder import Scored
from gateway.served_models import ServedModel
from gateway.variant_draw import Call
from tests.unit.gateway.experiment_fakes import ROUTES, document
from tests.unit.gateway.gateway_fakes import HandClock, in_loop

GUARDED = {"guardrails": [{"metric": "error_rate", "max_abs_increase": 0.01}]}


@dataclass
class Planned:
    version: str
    table: str = "a table"


@dataclass
class Source:
    """Where rows come from; says whether they are kept."""

    count: int = 1
    kept: bool = False

    def keep(self) -> None:
        self.kept = True


@dataclass
class Path:
    """A predictor among fakes: a ladder that answers with the drawn version, or as it is told."""

    clock: HandClock = field(default_factory=HandClock)
    fault: GatewayError | None = None
    served_by: str | None = None
    error_code: str | None = None
    degraded: tuple[str, ...] = ()
    took_s: float = 0.0
    logged: list[Any] = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)

    def predictor(self) -> Predictor:
        self.counter = ArmCounter(self.clock)
        log: Any = self
        shadows: Any = Shadows(self.shadowed)
        metrics = GatewayMetrics(CollectorRegistry())
        return Predictor(Admission(9), self, log, metrics, self.counter, shadows, lambda: "p", lambda: 1, self.clock)  # type: ignore[arg-type]

    async def score(self, model: Any, version: str, *_: Any, **__: Any) -> Scored:
        self.clock.now_s += self.took_s
        if self.fault is not None:
            raise self.fault
        planned: Any = Planned(self.served_by or version)
        return Scored(planned, None, ("y",), [[0.5]], True, self.degraded, self.error_code, 1, 2)

    def offer(self, table: Any, entry: Any, entry_bytes: int) -> bool:
        self.logged.append(entry)
        return True

    def counted(self) -> tuple[int, int, int]:
        """Requests, errors and fallbacks of all arms together."""
        arms = [arm for _, arms in self.counter.take() for arm in arms.values()]
        return sum(a.requests for a in arms), sum(a.errors for a in arms), sum(a.fallbacks for a in arms)


@dataclass
class Shadows:
    offered: list[str]

    def offer(self, model: Any, version: str, source: Any, answered: Any) -> None:
        assert source.kept, "the rows are those of the answer"
        self.offered.append(version)


def call(clock: HandClock, *experiments: Experiment, **changed: Any) -> Call:
    route = msgspec.structs.replace(ROUTES["m"], allow_forced_variant=True)
    model = ServedModel("m", route, {}, experiments)
    source: Any = Source()
    whole = {
        "model": model,
        "request": PredictRequest(unit="u1"),
        "source": source,
        "request_id": "r",
        "priority": Priority.DEFAULT,
        "forced_variant": None,
        "received_at": clock.now_s,
        "budget_ms": 1_000.0,
        "body_bytes": 10,
        **changed,
    }
    return Call(**whole)


def experiment(**changed: Any) -> Experiment:
    return parse_experiment(document(**{**GUARDED, **changed}), revision=1, epoch=1)


async def predicted(path: Path, *experiments: Experiment, **changed: Any) -> Any:
    return await path.predictor().predict(call(path.clock, *experiments, **changed))


# Guardrails ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_an_answer_of_the_drawn_version_is_a_request_without_an_error():
    path = Path()
    await predicted(path, experiment())
    assert path.counted() == (1, 0, 0)


@in_loop
async def test_an_answer_of_another_version_is_an_error_of_the_arm_though_the_caller_has_one():
    path = Path(served_by="1", error_code="worker_refused", degraded=("variant_fallback",))
    assert (await predicted(path, experiment())).variant_served is None
    assert path.counted() == (1, 1, 1)


@in_loop
async def test_a_default_of_a_feature_is_a_fallback_and_no_error():
    path = Path(degraded=("feature_default:user",))
    await predicted(path, experiment())
    assert path.counted() == (1, 0, 1)


def of_kind(kind: type[GatewayError]) -> GatewayError:
    return kind("scoring", 5) if kind is DeadlineExceeded else kind("no")  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", ARM_FAULTS)
def test_a_request_that_the_arm_does_not_answer_is_its_error(kind):
    @in_loop
    async def scenario() -> None:
        path = Path(fault=of_kind(kind), took_s=0.25)
        with pytest.raises(kind):
            await predicted(path, experiment())
        assert path.counted() == (1, 1, 0)

    scenario()


@pytest.mark.parametrize("own", [{"budget_ms": 1.0}, {"priority": Priority.SHEDDABLE}])
def test_what_a_caller_brings_upon_itself_does_not_speak_for_the_arm(own):
    @in_loop
    async def scenario() -> None:
        path = Path(fault=of_kind(DeadlineExceeded))
        with pytest.raises(DeadlineExceeded):
            await predicted(path, experiment(), **own)
        assert path.counted() == (0, 0, 0)

    scenario()


@in_loop
async def test_a_deadline_that_passed_before_anything_was_asked_is_counted_too():
    path = Path()
    with pytest.raises(DeadlineExceeded):
        await predicted(path, experiment(), received_at=path.clock.now_s - 2)
    assert path.counted() == (1, 1, 0)


@pytest.mark.parametrize(
    "fault",
    [
        InvalidRequest("no", "inputs"),
        MissingEntity("no", "entities.user"),
        MissingFeature("no", "features.hour"),
        WrongFeatureType("no", "features.hour"),
        FeaturesMissing("no", "entities.user"),
    ],
)
def test_what_the_caller_did_wrong_counts_nothing(fault):
    @in_loop
    async def scenario() -> None:
        path = Path(fault=fault)
        with pytest.raises(type(fault)):
            await predicted(path, experiment())
        assert path.counted() == (0, 0, 0)

    scenario()


@in_loop
async def test_a_request_that_is_not_let_in_counts_nothing():
    path = Path()
    predictor = path.predictor()
    asked = call(path.clock, experiment())
    place = predictor._admission.of("m", asked.model.route.deadline_ms)
    for _ in range(9):
        place.admit(Priority.CRITICAL)
    with pytest.raises(Overloaded):
        await predictor.predict(asked)
    assert path.counted() == (0, 0, 0)


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({"overrides": {"u1": "treatment"}}, {}),
        ({"enrol_bp": 0}, {}),
        ({"state": "paused"}, {}),
        ({}, {"forced_variant": "treatment"}),
        ({}, {"version": "2"}),
    ],
    ids=["overridden", "not enrolled", "paused", "forced", "a version by name"],
)
def test_what_the_split_did_not_draw_counts_nothing_and_has_no_shadow(changed, asked):
    @in_loop
    async def scenario() -> None:
        path = Path()
        shadow = {"version": "2", "sample_bp": 10_000}
        await predicted(path, experiment(**changed, shadow=shadow), **asked)
        path.fault = WorkerUnavailable("no")
        with pytest.raises(WorkerUnavailable):
            await predicted(path, experiment(**changed, shadow=shadow), **asked)
        assert path.counted() == (0, 0, 0)
        assert (len(path.logged), path.shadowed) == (1, [])

    scenario()


# Shadows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("served_by", "shadow"), [("1", "2"), ("2", "1")])
def test_an_enrolled_answer_is_scored_once_more_by_the_version_that_did_not_serve_it(served_by, shadow):
    @in_loop
    async def scenario() -> None:
        path = Path(served_by=served_by)
        await predicted(path, experiment(shadow={"version": "2"}))
        assert path.shadowed == [shadow]

    scenario()


@in_loop
async def test_outside_of_the_sample_nothing_is_scored_once_more():
    path = Path()
    await predicted(path, experiment(shadow={"version": "2", "sample_bp": 0}))
    assert path.shadowed == []


@in_loop
async def test_rows_are_not_kept_where_nobody_will_ask_for_them_again():
    path = Path()
    asked = call(path.clock, experiment())
    await path.predictor().predict(asked)
    assert not asked.source.kept  # type: ignore[attr-defined]
