import asyncio
import logging

import pytest

from experiments import State, assign
from gateway.arm_counts import ArmCounter
from gateway.experimentation.canary_controller import ACTOR, CanaryController
from gateway.experimentation.experiment_store import StoreUnavailable
from tests.unit.gateway.experiment_fakes import ANA, FakeStore, Instance, becomes
from tests.unit.gateway.gateway_fakes import in_loop

ERRORS = {"metric": "error_rate", "max_abs_increase": 0.01}
RAMP = {"steps_bp": [1_000, 5_000, 10_000], "hold_s": 60, "requests_min": 20, "promote": True}


class Watched(Instance):
    """A gateway with its counter and its controller."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.counter = ArmCounter(self.clock)
        self.controller = CanaryController(self.store, self.live, self.changes, self.counter, self.now_us)

    @property
    def experiment(self):
        return self.live.register.entries["e"].experiment

    def serve(self, requests: int, *, failing: float = 0.0) -> None:
        """Count so many enrolled requests of each arm; a share of the treatment's fails."""
        left = {"control": requests, "treatment": requests}
        n = 0
        while any(left.values()):
            n += 1
            decision = assign((self.experiment,), f"u{n}", {})
            if not decision.enrolled or not left[decision.variant.name]:
                continue
            left[decision.variant.name] -= 1
            fails = decision.variant.name == "treatment" and left["treatment"] < failing * requests
            self.counter.answered(decision, 900, [[0.5]], stepped_down=fails, degraded=fails)

    async def tick(self) -> None:
        """Look at the store, and do what there is to do."""
        await self.live.look()
        await self.controller.step()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def one(store, tmp_path) -> Watched:
    return Watched(tmp_path / "one", store, "one")


@pytest.fixture
def other(store, tmp_path) -> Watched:
    return Watched(tmp_path / "other", store, "other")


def by_controller(store: FakeStore) -> list[str]:
    """Say why the controller changed something, change by change."""
    return [entry["reason"] for entry in store.entries if entry["actor"] == ACTOR]


# Rolling back --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_treatment_that_fails_is_rolled_back_with_its_evidence_as_the_reason(one, store):
    await one.put(guardrails=[ERRORS])
    one.serve(100, failing=0.3)
    await one.tick()
    assert (one.experiment.state, one.experiment.winner) == (State.CONCLUDED, None)
    assert one.controller.rollbacks == 1
    (reason,) = by_controller(store)
    assert reason.startswith("rolled back: error_rate of treatment 0.3, of control 0, allowed 0.01; after 100 requests")
    await one.tick()
    assert len(store.entries) == 2, "it is done once"


@in_loop
async def test_one_that_holds_its_promises_is_left_alone(one, store):
    await one.put(guardrails=[ERRORS])
    one.serve(500, failing=0.008)
    await one.tick()
    assert one.experiment.state is State.RUNNING
    assert by_controller(store) == []


@in_loop
async def test_the_counts_of_all_gateways_are_judged_together_by_one_of_them(one, other, store):
    await one.put(guardrails=[ERRORS])
    await other.live.look()
    for gateway in (one, other):
        gateway.serve(4, failing=1.0)
    await one.controller.step()
    assert one.experiment.state is State.RUNNING, "of four requests nothing is sure"
    await other.controller.step()
    assert not other.controller.leads
    await one.controller.step()
    await other.tick()
    assert (one.experiment.state, other.experiment.state) == (State.CONCLUDED, State.CONCLUDED)
    assert len(by_controller(store)) == 1


def test_an_alert_is_logged_once_and_changes_nothing(one, store, caplog):
    @in_loop
    async def scenario() -> None:
        await one.put(guardrails=[{**ERRORS, "action": "alert"}])
        for _ in range(3):
            one.serve(100, failing=0.5)
            await one.tick()
        assert one.experiment.state is State.RUNNING

    with caplog.at_level(logging.ERROR):
        scenario()
    assert [record.message for record in caplog.records] == ["a guardrail is breached"]
    assert by_controller(store) == []


@in_loop
async def test_a_persons_change_wins_against_one_that_was_about_to_be_made(one, other, store):
    await one.put(guardrails=[ERRORS])
    one.serve(100, failing=0.5)
    store.steps = [lambda: other.put(expected=1, guardrails=[ERRORS], enrol_bp=77), None]
    await one.tick()
    assert store.entries[-1]["actor"] == ANA.actor
    assert one.controller.rollbacks == 0
    await one.live.look()
    assert (one.experiment.state, one.experiment.enrol_bp) == (State.RUNNING, 77)


@in_loop
async def test_another_epoch_is_judged_by_its_own_counts(one):
    await one.put(guardrails=[ERRORS])
    one.serve(100, failing=0.5)
    shifted = [{"name": "control", "version": "1", "bp": 4_000}, {"name": "treatment", "version": "2", "bp": 6_000}]
    await one.put(expected=1, guardrails=[ERRORS], variants=shifted)
    await one.tick()
    assert one.experiment.state is State.RUNNING
    counts, _ = await one.controller.findings(one.experiment)
    assert counts == {}


@in_loop
async def test_an_experiment_that_is_made_anew_under_an_old_name_begins_without_counts(one):
    await one.put(guardrails=[ERRORS])
    one.serve(100, failing=0.5)
    await one.put(expected=1, state="concluded", guardrails=[ERRORS])
    await one.tick()
    await one.changes.delete("e", 2, ANA, dry_run=False)
    await one.put(guardrails=[ERRORS])
    await one.tick()
    assert one.experiment.state is State.RUNNING
    counts, _ = await one.controller.findings(one.experiment)
    assert counts == {}


# The ramp ------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_ramp_climbs_step_by_step_and_its_treatment_is_promoted(one, store):
    await one.put(guardrails=[ERRORS], ramp=RAMP)
    for enrol_bp in RAMP["steps_bp"]:
        assert one.experiment.enrol_bp == enrol_bp
        one.serve(20)
        await one.tick()
        assert one.experiment.enrol_bp == enrol_bp, "it is to be held"
        one.clock.now_s += 60
        await one.tick()
    assert (one.experiment.state, one.experiment.winner.name) == (State.CONCLUDED, "treatment")
    reasons = by_controller(store)
    assert len(reasons) == 3
    assert reasons[0] == "ramp: 1000 bp held for 60 s; the next step is 5000 bp"
    assert reasons[2].startswith("promoted: the last step, 10000 bp held for 60 s")
    assert one.experiment.epoch == 1, "a ramp opens none"


@in_loop
async def test_time_without_requests_climbs_no_step(one, store):
    await one.put(guardrails=[ERRORS], ramp=RAMP)
    one.serve(19)
    one.clock.now_s += 6_000
    await one.tick()
    assert by_controller(store) == []
    one.serve(1)
    await one.tick()
    assert one.experiment.enrol_bp == 5_000


@in_loop
async def test_requests_of_an_earlier_step_climb_no_later_one(one, store):
    await one.put(guardrails=[ERRORS], ramp=RAMP)
    one.serve(500)
    one.clock.now_s += 60
    await one.tick()
    one.clock.now_s += 60
    await one.tick()
    assert one.experiment.enrol_bp == 5_000


@in_loop
async def test_a_ramp_without_guardrails_climbs_too(one):
    await one.put(ramp=RAMP)
    one.serve(20)
    one.clock.now_s += 60
    await one.tick()
    assert one.experiment.enrol_bp == 5_000


@in_loop
async def test_while_its_models_experiments_are_off_a_ramp_does_not_climb(one, store):
    await one.put(ramp={**RAMP, "requests_min": 0}, guardrails=[ERRORS])
    await one.changes.kill("m", ANA, on=True, dry_run=False)
    one.clock.now_s += 60
    await one.tick()
    assert by_controller(store) == []
    await one.changes.kill("m", ANA, on=False, dry_run=False)
    await one.tick()
    assert one.experiment.enrol_bp == 5_000


@in_loop
async def test_a_breach_in_mid_ramp_rolls_back_rather_than_climbs(one):
    await one.put(guardrails=[ERRORS], ramp=RAMP)
    one.serve(100, failing=0.5)
    one.clock.now_s += 60
    await one.tick()
    assert (one.experiment.state, one.experiment.enrol_bp) == (State.CONCLUDED, 1_000)


# The lease -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_where_nothing_is_watched_nobody_leads(one, store):
    await one.put()
    await one.tick()
    assert (one.controller.leads, store.lease) == (False, None)


@in_loop
async def test_who_ends_passes_its_counts_on_and_lets_another_one_lead(one, other, store):
    await one.put(guardrails=[ERRORS])
    await one.tick()
    assert one.controller.leads
    one.serve(3)
    await one.controller.close()
    await other.tick()
    assert other.controller.leads
    counts, _ = await other.controller.findings(other.experiment)
    assert counts[10_000]["control"].requests == 3


# A store that is away ------------------------------------------------------------------------------------------------


@in_loop
async def test_while_the_store_is_away_counts_wait_and_are_passed_on_when_it_is_back(one, store):
    await one.put(guardrails=[ERRORS])
    await one.tick()
    store.away = "Redis is away"
    await one.live.look()
    for _ in range(5):
        one.serve(10)
        with pytest.raises(StoreUnavailable, match="Redis is away"):
            await one.controller.step()
    store.away = None
    await one.tick()
    counts, _ = await one.controller.findings(one.experiment)
    assert counts[10_000]["control"].requests == 50


@in_loop
async def test_counts_that_may_have_been_added_are_not_added_again(one, store):
    await one.put(guardrails=[ERRORS])
    one.serve(10)
    add_counts = store.add_counts

    async def add_and_lose_the_answer(*arguments) -> None:
        await add_counts(*arguments)
        store.add_counts = add_counts
        store.away = "the answer is lost"
        await store._asked()

    store.add_counts = add_and_lose_the_answer
    with pytest.raises(StoreUnavailable, match="lost"):
        await one.controller.step()
    store.away = None
    await one.tick()
    counts, _ = await one.controller.findings(one.experiment)
    assert {name: arm.requests for name, arm in counts[10_000].items()} == {"control": 10, "treatment": 10}


@in_loop
async def test_a_gateway_that_ends_while_the_store_is_away_does_not_wait_for_it(one, store):
    await one.put(guardrails=[ERRORS])
    one.serve(3)
    store.away = "Redis is away"
    await one.live.look()
    store.hangs = True
    async with asyncio.timeout(1):
        await one.controller.close()


def test_an_outage_is_logged_once_and_watching_goes_on_after_it(one, store, caplog, monkeypatch):
    monkeypatch.setattr("gateway.experimentation.canary_controller.TICK_S", 0.001)

    @in_loop
    async def scenario() -> None:
        await one.put(guardrails=[ERRORS])
        store.away = "Redis is away"
        one.controller.start()
        await becomes(lambda: caplog.records)
        store.away = None
        await becomes(lambda: one.controller.leads)
        await one.controller.close()

    with caplog.at_level(logging.WARNING):
        scenario()
    assert [record.message for record in caplog.records] == ["guardrails are not watched just now"]
