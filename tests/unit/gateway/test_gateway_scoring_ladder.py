import contextlib
import gc
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from gateway.dispatch.batch import Scores
from gateway.errors import (
    DeadlineExceeded,
    FeaturesUnavailable,
    MissingFeature,
    ModelNotReady,
    Overloaded,
    WorkerRefused,
    WorkerUnavailable,
)
from gateway.predict_request import PredictRequest
from gateway.routes_file import ModelRoute
from gateway.scoring_ladder import ScoringLadder
from gateway.served_models import ServedModel
from tests.unit.gateway.gateway_fakes import in_loop

PATIENCE_S = 0.05
REQUEST = msgspec.convert({"instances": [{}, {}]}, PredictRequest)


@dataclass
class Rows:
    inputs: tuple[bytes, ...] = (b"",)
    count: int = 2
    degraded: tuple[str, ...] = ("feature_stale:view",)
    row_shapes: None = None


@dataclass
class Source:
    """Makes rows of nothing, or fails as it is told."""

    fault: Exception | None = None
    count: int = 2

    async def rows(self, planned: Any) -> Rows:
        if self.fault is not None:
            raise self.fault
        return Rows()


@dataclass
class Version:
    """A version whose worker gives its own number as the score, or fails as it is told."""

    number: float
    fault: Exception | None = None
    planned: Any = None
    problem: str = "not planned"
    plan: Any = None
    output_names: tuple[str, ...] = ("y",)
    asked: int = field(default=0)
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        self.planned = self

    @property
    def dispatcher(self) -> "Version":
        return self

    @property
    def rows_waiting(self) -> int:
        return int(self.wait_s > 0)

    def expected_wait_s(self) -> float:
        return self.wait_s

    async def submit(self, inputs: Any, rows: int, expires_at: float, row_shapes: Any) -> Scores:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return Scores([[self.number] * rows], True, 1, 2)


def model_of(one: Version, two: Version, **fallback: Any) -> ServedModel:
    workers = {"workers": ["http://worker:1"]}
    route = {"versions": {"1": workers, "2": workers}, "default_version": "1", "fallback": fallback}
    return ServedModel("m", msgspec.convert(route, ModelRoute), {"1": one, "2": two}, ())


async def score(model: ServedModel, version: str, source: Source | None = None, *, exactly: bool = False) -> Any:
    return await ScoringLadder().score(model, version, source or Source(), 1.0, PATIENCE_S, exactly=exactly)


@in_loop
async def test_the_drawn_version_answers_where_it_can():
    scored = await score(model_of(Version(1), Version(2)), "2")
    assert (scored.outputs, scored.degraded, scored.error_code) == ([[2, 2]], ("feature_stale:view",), None)


@pytest.mark.parametrize("fault", [WorkerUnavailable("x"), WorkerRefused("x"), Overloaded("x"), ModelNotReady("x")])
@in_loop
async def test_where_it_cannot_the_default_version_answers_and_the_fault_is_kept(fault):
    scored = await score(model_of(Version(1), Version(2, fault)), "2")
    assert scored.outputs == [[1, 1]]
    assert scored.degraded == ("variant_fallback", "feature_stale:view")
    assert scored.error_code == fault.code


@in_loop
async def test_a_version_whose_queue_is_longer_than_the_request_can_wait_is_not_asked():
    one, two = Version(1), Version(2, wait_s=PATIENCE_S + 0.01)
    scored = await score(model_of(one, two), "2")
    assert (scored.outputs, scored.error_code) == ([[1, 1]], "overloaded")
    assert two.asked == 0
    two.wait_s = PATIENCE_S - 0.01
    assert (await score(model_of(one, two), "2")).outputs == [[2, 2]]


@in_loop
async def test_the_fallback_version_of_the_route_goes_before_the_default_one():
    one, two = Version(1, WorkerUnavailable("x")), Version(2)
    scored = await score(model_of(one, two, version="2"), "1")
    assert (scored.outputs, scored.degraded[0]) == ([[2, 2]], "variant_fallback")


@in_loop
async def test_where_no_version_answers_the_static_score_does_for_every_instance():
    gone = WorkerUnavailable("x")
    scored = await score(model_of(Version(1, WorkerRefused("y")), Version(2, gone), value=0.5), "2")
    assert (scored.outputs, scored.degraded, scored.planned) == ([[0.5, 0.5]], ("static_score",), None)
    assert scored.error_code == gone.code


@in_loop
async def test_one_static_value_stands_for_each_output_by_its_name():
    model = model_of(Version(1, WorkerUnavailable("x")), Version(2), value=0.5)
    model.static_outputs = {"y": 0.5, "z": 0.5}
    scored = await score(model, "1")
    assert (scored.names, scored.outputs) == (("y", "z"), [[0.5, 0.5], [0.5, 0.5]])


@in_loop
async def test_where_nothing_is_left_the_caller_is_told_of_the_first_fault():
    with pytest.raises(WorkerUnavailable, match="the drawn one"):
        await score(model_of(Version(1, WorkerRefused("default")), Version(2, WorkerUnavailable("the drawn one"))), "2")


@in_loop
async def test_a_version_is_not_asked_again_as_its_own_fallback():
    one = Version(1, WorkerUnavailable("x"))
    with pytest.raises(WorkerUnavailable):
        await score(model_of(one, Version(2)), "1")
    assert one.asked == 1


@pytest.mark.parametrize("fault", [DeadlineExceeded("waiting", 5), MissingFeature("hour", "features.hour")])
@in_loop
async def test_a_fault_of_the_request_or_its_deadline_takes_no_fallback(fault):
    one = Version(1)
    with pytest.raises(type(fault)):
        await score(model_of(one, Version(2, fault), value=0.5), "2")
    assert one.asked == 0


@in_loop
async def test_a_store_that_cannot_be_read_where_defaults_are_not_allowed_leaves_the_static_score():
    scored = await score(model_of(Version(1), Version(2), value=0.5), "2", Source(FeaturesUnavailable("gone")))
    assert (scored.degraded, scored.error_code) == (("static_score",), "features_unavailable")


@in_loop
async def test_a_version_that_is_not_planned_steps_down():
    two = Version(2)
    two.planned = None
    scored = await score(model_of(Version(1), two), "2")
    assert (scored.outputs, scored.error_code) == ([[1, 1]], "model_not_ready")


@in_loop
async def test_a_version_that_is_asked_for_by_name_has_no_stand_in():
    with pytest.raises(WorkerUnavailable):
        await score(model_of(Version(1), Version(2, WorkerUnavailable("x")), value=0.5), "2", exactly=True)


@pytest.mark.parametrize("fallback", [{}, {"value": 0.5}])
@in_loop
async def test_a_fault_leaves_nothing_behind_for_the_collector(fallback):
    model = model_of(Version(1, WorkerRefused("y")), Version(2, WorkerUnavailable("x")), **fallback)
    gc.collect()
    for _ in range(10):
        with contextlib.suppress(WorkerUnavailable):
            await score(model, "2")
    assert gc.collect() == 0
