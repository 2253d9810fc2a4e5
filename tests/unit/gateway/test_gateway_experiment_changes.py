import asyncio

import pytest

from experiments.register import ALL_MODELS, Register, encode, put
from gateway.errors import (
    ExperimentsUnavailable,
    InvalidRequest,
    PreconditionFailed,
    PreconditionRequired,
    UnknownExperiment,
    UnknownModel,
)
from gateway.experimentation.experiment_store import Stored, StoreUnavailable
from gateway.experimentation.register_changes import ATTEMPTS_MAX
from tests.unit.gateway.experiment_fakes import ANA, ROUTES, FakeStore, Instance, document
from tests.unit.gateway.gateway_fakes import in_loop


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def one(store, tmp_path) -> Instance:
    return Instance(tmp_path / "one", store)


@pytest.fixture
def other(store, tmp_path) -> Instance:
    return Instance(tmp_path / "other", store, "other")


def of_layer(half: int) -> dict[str, object]:
    """Place an experiment in one half of a layer, so that two of a model may run."""
    return {"layer": {"name": "shared", "slots": [[half * 5000, half * 5000 + 5000]]}}


# Preconditions -------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_change_must_say_what_it_was_made_of(one, store):
    with pytest.raises(PreconditionRequired, match="If-None-Match"):
        await one.put(expected=None)
    await one.put()
    for change in (one.put(expected=None), one.changes.delete("e", None, ANA, dry_run=False)):
        with pytest.raises(PreconditionRequired):
            await change
    assert len(store.entries) == 1


@in_loop
async def test_a_stale_change_is_refused_with_what_there_is_now(one, other):
    await one.put()
    await other.put(expected=1, enrol_bp=5)
    with pytest.raises(PreconditionFailed, match="revision 2 by now, not 1") as refused:
        await one.put(expected=1, enrol_bp=7)
    current = refused.value.facts["current"]
    assert (current["revision"], current["document"]["enrol_bp"]) == (2, 5)


@in_loop
async def test_what_is_there_already_is_not_made_anew(one):
    await one.put()
    with pytest.raises(PreconditionFailed, match="there already") as refused:
        await one.put()
    assert refused.value.facts["current"]["revision"] == 1


@in_loop
async def test_what_is_gone_is_not_changed(one, other):
    await one.put(state="draft")
    await other.changes.delete("e", 1, ANA, dry_run=False)
    with pytest.raises(PreconditionFailed, match="any more") as refused:
        await one.put(expected=1)
    assert refused.value.facts == {"current": None}


# Others change at the same time --------------------------------------------------------------------------------------


@in_loop
async def test_a_change_meanwhile_of_another_experiment_is_no_conflict(one, other, store):
    await one.put(**of_layer(0))
    store.steps = [lambda: other.put("f", **of_layer(1)), None]
    assert await one.put(expected=1, enrol_bp=5, **of_layer(0)) == 3
    assert [entry["experiment"] for entry in store.entries] == ["e", "f", "e"]
    assert set(one.live.register.entries) == {"e", "f"}


@in_loop
async def test_a_change_meanwhile_of_the_same_experiment_is_one(one, other, store):
    await one.put()
    store.steps = [lambda: other.put(expected=1, enrol_bp=5), None]
    with pytest.raises(PreconditionFailed):
        await one.put(expected=1, enrol_bp=7)
    assert [entry["after"].get("enrol_bp") for entry in store.entries] == [None, 5]


@in_loop
async def test_what_was_made_meanwhile_may_stand_in_the_way(one, other, store):
    store.steps = [lambda: other.put("f"), None]
    with pytest.raises(InvalidRequest, match="overlap") as refused:
        await one.put()
    assert refused.value.field == "layer"


@in_loop
async def test_a_change_that_is_always_too_late_gives_up_and_has_changed_nothing(one, store):
    async def overtake() -> None:
        store.stored = Stored(store.stored.revision + 1, store.stored.data)

    store.steps = [overtake] * ATTEMPTS_MAX
    with pytest.raises(ExperimentsUnavailable, match="try again"):
        await one.put()
    assert (store.entries, one.in_force) == ([], [])


# A store that is away, or has lost something -------------------------------------------------------------------------


@in_loop
async def test_while_the_store_is_away_nothing_is_changed(one, store):
    await one.put()
    store.away = "Redis is away"
    with pytest.raises(ExperimentsUnavailable, match="nothing was changed: Redis is away"):
        await one.put(expected=1, enrol_bp=5)
    assert one.live.register.revision == 1


@in_loop
async def test_where_the_answer_to_a_swap_is_lost_nobody_says_that_nothing_was_changed(one, store):
    async def lose() -> None:
        raise StoreUnavailable("no answer")

    store.steps = [lose]
    with pytest.raises(ExperimentsUnavailable, match="not known whether it was changed"):
        await one.put()


@pytest.mark.parametrize("left", [0, 1])
def test_a_change_just_after_the_store_was_emptied_or_set_back_is_made_of_what_it_had(one, other, store, left):
    @in_loop
    async def scenario() -> None:
        await one.put()
        earlier = store.stored if left else Stored(0, None)
        for revision in (1, 2):
            await one.put(expected=revision, enrol_bp=revision)
        await other.live.look()
        store.stored = earlier
        assert await one.put(expected=3, enrol_bp=5) == 4
        await other.live.look()
        await one.live.look()
        assert store.stored.revision == one.live.register.revision == other.live.register.revision == 4
        assert other.live.register.entries["e"].experiment.enrol_bp == 5
        assert [entry["action"] for entry in store.entries] == ["put", "put", "put", "restore", "put"]

    scenario()


@in_loop
async def test_what_cannot_be_read_is_not_written_over(one, store):
    store.stored = Stored(9, b'{"format": 2}')
    with pytest.raises(ExperimentsUnavailable, match="format 2"):
        await one.put()
    assert store.stored == Stored(9, b'{"format": 2}')


@in_loop
async def test_an_instance_that_has_not_looked_changes_what_the_store_has(one, other):
    await one.put()
    await one.put(expected=1, enrol_bp=5)
    assert await other.put(expected=2, enrol_bp=7) == 3


# What is checked, and what is written down ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": "n"}, "model"),
        ({"unit": "item"}, "unit"),
        ({"variants": [{"name": "control", "version": "9", "bp": 10_000}]}, "variants[0].version"),
        ({"shadow": {"version": "9"}}, "shadow.version"),
        ({"enrol_bp": 10_001}, "enrol_bp"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_document_that_is_wrong_is_refused_with_the_key_at_fault(one, store, changed, field):
    @in_loop
    async def scenario() -> None:
        with pytest.raises(InvalidRequest) as refused:
            await one.put(**changed)
        assert refused.value.field == field
        assert store.entries == []

    scenario()


@in_loop
async def test_a_draft_may_be_of_a_version_that_is_still_to_come(one):
    await one.put(state="draft", variants=[{"name": "control", "version": "9", "bp": 10_000}])


@in_loop
async def test_the_path_and_the_document_name_the_same_experiment(one):
    with pytest.raises(InvalidRequest, match="the path says 'e'") as refused:
        await one.changes.put("e", document(experiment="f"), 0, ANA, dry_run=False)
    assert refused.value.field == "experiment"
    unnamed = {key: value for key, value in document().items() if key != "experiment"}
    outcome = await one.changes.put("e", unnamed, 0, ANA, dry_run=False)
    assert (outcome.change.entry.experiment.name, outcome.created) == ("e", True)


@in_loop
async def test_a_dry_run_answers_as_the_change_would_and_changes_nothing(one, store):
    dry = await one.changes.put("e", document(), 0, ANA, dry_run=True)
    assert (store.stored, store.entries, one.in_force) == (Stored(0, None), [], [])
    made = await one.changes.put("e", document(), 0, ANA, dry_run=False)
    assert dry == made
    assert dry.change.units_moved_bp == 10_000.0


@in_loop
async def test_the_audit_trail_has_who_when_why_and_both_documents(one, store):
    await one.put()
    await one.put(expected=1, variants=document()["variants"][::-1])
    one.clock.now_s += 1
    await one.changes.kill("m", ANA, on=True, dry_run=False)
    await one.put(expected=2, state="concluded", variants=document()["variants"][::-1])
    await one.changes.delete("e", 4, ANA, dry_run=False)
    first, second, killed, _, gone = store.entries
    assert all((entry["actor"], entry["reason"]) == ("ana", "a test") for entry in store.entries)
    assert first["at"] == "1970-01-01T00:16:40+00:00"
    assert (first["action"], first["before"], first["epoch"], first["units_moved_bp"]) == ("put", None, 1, 10_000.0)
    assert (second["before"], second["epoch"], second["revision"]) == (first["after"], 2, 2)
    assert (killed["action"], killed["model"], killed["at"]) == ("kill", "m", "1970-01-01T00:16:41+00:00")
    assert (gone["action"], gone["after"], gone["before"]["state"]) == ("delete", None, "concluded")


@in_loop
async def test_an_experiment_that_runs_is_not_deleted_and_one_that_is_not_there_is_unknown(one):
    with pytest.raises(UnknownExperiment):
        await one.changes.delete("e", 1, ANA, dry_run=False)
    await one.put()
    with pytest.raises(InvalidRequest, match="conclude it first"):
        await one.changes.delete("e", 1, ANA, dry_run=False)


@pytest.mark.parametrize("model", ["m", ALL_MODELS])
def test_the_kill_switch_takes_a_models_experiments_out_of_force_and_brings_them_back(one, store, model):
    @in_loop
    async def scenario() -> None:
        await one.put()
        await one.changes.kill(model, ANA, on=True, dry_run=True)
        assert one.live.register.of_model("m")
        await one.changes.kill(model, ANA, on=True, dry_run=False)
        assert one.live.register.of_model("m") == ()
        await one.changes.kill(model, ANA, on=False, dry_run=False)
        assert one.live.register.of_model("m")
        assert [entry["action"] for entry in store.entries] == ["put", "kill", "unkill"]

    scenario()


@in_loop
async def test_a_model_that_is_not_served_is_not_killed(one):
    with pytest.raises(UnknownModel, match="there are: m"):
        await one.changes.kill("n", ANA, on=True, dry_run=False)


@in_loop
async def test_many_writers_of_one_instance_lose_nothing(one, store):
    async def write(number: int) -> None:
        await one.put(f"e{number}", state="draft")

    await asyncio.gather(*(write(number) for number in range(12)))
    assert set(one.live.register.entries) == {f"e{number}" for number in range(12)}
    assert [entry["revision"] for entry in store.entries] == list(range(1, 13))


@in_loop
async def test_a_route_that_is_gone_leaves_its_experiments_to_be_concluded_and_deleted(one, other):
    await one.put()
    one.routes = {"other": ROUTES["m"]}
    with pytest.raises(InvalidRequest):
        await one.put(expected=1, enrol_bp=5)
    assert (await one.changes.put("e", document(state="concluded"), 1, ANA, dry_run=False)).change.entry is not None


def test_the_register_that_is_stored_is_the_one_that_is_decided_on():
    change = put(Register(revision=4), document(), 0)
    assert encode(change.register).startswith(b'{"format":1,"revision":5')
