import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from experiments import UNASSIGNED, Assignment, Reason, assign, parse_experiment, shadow_version
from gateway import shadow_scoring
from gateway.dispatch.batch import Scores
from gateway.errors import Overloaded, WorkerUnavailable
from gateway.metrics import GatewayMetrics
from gateway.predict_request import PredictRequest
from gateway.prediction_log.prediction_table import PredictionEntry
from gateway.shadow_scoring import SHADOWS_IN_FLIGHT_MAX, ShadowScorer
from tests.unit.gateway.experiment_fakes import document
from tests.unit.gateway.gateway_fakes import HandClock, in_loop, turns

SHADOWED = parse_experiment(document(shadow={"version": "2", "sample_bp": 10_000}), revision=3, epoch=2)
NOW_US = 1_700_000_000_000_000


def answer(unit: str = "u1") -> PredictionEntry:
    """What was answered by version 1, with defaults of a feature."""
    return PredictionEntry(
        ts_us=NOW_US - 5,
        prediction_id="p",
        request_id="r",
        request=PredictRequest(unit=unit),
        unit=unit,
        assignment=assign((SHADOWED,), unit, {}),
        variant_served="control",
        row_count=2,
        inputs=(b"as fed to version 1",),
        found=[],
        outputs=[[0.1, 0.2]],
        degraded=("feature_default:user",),
        error_code=None,
        features_us=1,
        queue_us=2,
        infer_us=3,
        total_us=6,
    )


class Shadowing:
    """A scorer, with a version whose worker answers when the test says so."""

    def __init__(self, *, ready: bool = True, rows_waiting: int = 0, deadline_ms: int = 5_000) -> None:
        self.logged: list[tuple[Any, PredictionEntry]] = []
        self.metrics = GatewayMetrics(CollectorRegistry())
        self.scorer = ShadowScorer(self, self.metrics, lambda: NOW_US, HandClock())  # type: ignore[arg-type]
        self.table, self.dispatcher, self.rows_waiting = object(), self, rows_waiting
        self.asked: list[asyncio.Future[Scores]] = []
        self.fault: Exception | None = None
        version = SimpleNamespace(ready=ready, planned=self)
        self.model: Any = SimpleNamespace(
            name="m", versions={"2": version}, route=SimpleNamespace(deadline_ms=deadline_ms)
        )

    def offer(self, table: Any, entry: PredictionEntry, entry_bytes: int) -> bool:
        """Be its log."""
        assert entry_bytes > 0
        self.logged.append((table, entry))
        return True

    async def rows(self, planned: Any) -> Any:
        """Be the source of its rows."""
        if self.fault is not None:
            raise self.fault
        return SimpleNamespace(
            inputs=(b"as fed to version 2",), found=[("f",)], count=2, row_shapes=None, degraded=("feature_stale:user",)
        )

    def submit(self, *_arguments: Any) -> asyncio.Future[Scores]:
        """Be its worker."""
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]

    def shadow(self, version: str = "2") -> None:
        self.scorer.offer(self.model, version, self, answer())  # type: ignore[arg-type]

    @property
    def counts(self) -> dict[str, float]:
        return {outcome: count for (_, outcome), count in self.metrics.shadows.values.items()}


@in_loop
async def test_a_shadow_is_logged_beside_the_answer_with_what_its_own_version_was_fed_and_scored():
    shadowing = Shadowing()
    shadowing.shadow()
    await turns()
    shadowing.asked[0].set_result(Scores([[0.3, 0.4]], True, 7, 8))
    await turns()
    ((table, entry),) = shadowing.logged
    of_the_answer = answer()
    assert table is shadowing.table, "the version that scored"
    same = ("prediction_id", "request_id", "unit", "assignment", "row_count", "request")
    assert [getattr(entry, name) for name in same] == [getattr(of_the_answer, name) for name in same]
    assert (entry.shadow, entry.variant_served, entry.outputs) == (True, None, [[0.3, 0.4]])
    assert (entry.inputs, entry.found, entry.degraded) == (
        (b"as fed to version 2",),
        [("f",)],
        ("feature_stale:user",),
    )
    assert (entry.ts_us, entry.queue_us, entry.infer_us, entry.features_us) == (NOW_US, 7, 8, 0)
    assert shadowing.counts == {"scored": 1}


@in_loop
async def test_whoever_offers_a_shadow_does_not_wait_for_it():
    shadowing = Shadowing()
    shadowing.shadow()
    assert shadowing.asked == [], "nothing is done before the answer has left"


@pytest.mark.parametrize("version", ["2", "9"], ids=["not ready", "not routed"])
def test_a_version_that_cannot_answer_is_counted_and_not_asked(version):
    @in_loop
    async def scenario() -> None:
        shadowing = Shadowing(ready=False)
        shadowing.shadow(version)
        await turns()
        assert (shadowing.asked, shadowing.counts) == ([], {"failed": 1})

    scenario()


@in_loop
async def test_where_rows_wait_for_the_workers_a_shadow_is_dropped():
    shadowing = Shadowing(rows_waiting=1)
    shadowing.shadow()
    await turns()
    assert (shadowing.asked, shadowing.counts) == ([], {"dropped_busy": 1})


@in_loop
async def test_shadows_in_flight_are_bounded_and_their_places_are_free_again():
    shadowing = Shadowing()
    for _ in range(SHADOWS_IN_FLIGHT_MAX + 3):
        shadowing.shadow()
    await turns()
    assert len(shadowing.asked) == SHADOWS_IN_FLIGHT_MAX
    assert shadowing.counts == {"dropped_full": 3}
    shadowing.asked[0].set_result(Scores([[0.3, 0.4]], True, 7, 8))
    await turns()
    shadowing.shadow()
    await turns()
    assert shadowing.counts == {"dropped_full": 3, "scored": 1}
    for waiting in shadowing.asked[1:]:
        waiting.set_exception(WorkerUnavailable("gone"))
    await shadowing.scorer.close()


@pytest.mark.parametrize("fault", [WorkerUnavailable("gone"), Overloaded("full")])
def test_a_shadow_without_an_answer_is_counted_and_not_logged(fault, caplog):
    @in_loop
    async def scenario() -> None:
        shadowing = Shadowing()
        shadowing.shadow()
        await turns()
        shadowing.asked[0].set_exception(fault)
        await turns()
        assert (shadowing.logged, shadowing.counts) == ([], {"failed": 1})

    scenario()
    assert caplog.records == []


@in_loop
async def test_a_shadow_without_its_features_is_counted():
    shadowing = Shadowing()
    shadowing.fault = WorkerUnavailable("no features")
    shadowing.shadow()
    await turns()
    assert (shadowing.asked, shadowing.counts) == ([], {"failed": 1})


@in_loop
async def test_a_shadow_has_the_models_deadline_and_no_more():
    shadowing = Shadowing(deadline_ms=5)
    shadowing.shadow()
    await shadowing.scorer.close()
    assert (shadowing.logged, shadowing.counts) == ([], {"failed": 1})
    assert shadowing.asked[0].cancelled(), "its place in the queue is free"


def test_what_nobody_foresaw_is_logged_and_touches_nobody(caplog):
    @in_loop
    async def scenario() -> None:
        shadowing = Shadowing()
        shadowing.fault = ZeroDivisionError("oh")
        shadowing.shadow()
        await turns()
        assert shadowing.counts == {"failed": 1}

    with caplog.at_level(logging.ERROR):
        scenario()
    assert "a shadow failed" in caplog.text
    assert shadow_scoring.FAILED == "failed"


# Who has one ---------------------------------------------------------------------------------------------------------


def decided(**changed: Any) -> Assignment:
    experiment = parse_experiment(document(shadow={"version": "2", "sample_bp": 10_000}, **changed))
    return assign((experiment,), "u1", {})


@pytest.mark.parametrize(
    "assignment",
    [
        UNASSIGNED,
        decided(overrides={"u1": "treatment"}),
        decided()._replace(reason=Reason.FORCED),
        decided(state="concluded", winner="treatment"),
        decided(enrol_bp=0),
        assign((parse_experiment(document()),), "u1", {}),
    ],
    ids=["no experiment", "overridden", "forced", "winner", "not enrolled", "no shadow"],
)
def test_only_a_drawn_unit_of_an_experiment_with_a_shadow_has_one(assignment):
    assert shadow_version(assignment, "u1", "1") is None


def test_a_unit_that_the_shadows_version_served_is_scored_by_controls_so_that_each_arm_has_pairs():
    assignment = decided()
    assert shadow_version(assignment, "u1", "1") == "2"
    assert shadow_version(assignment, "u1", "2") == "1"
