from typing import Any

import pytest

from experiments import ExperimentError
from experiments.changes import share_moved
from experiments.register import EXPERIMENTS_MAX, Change, Register, decode, delete, encode, kill, put
from tests.unit.experiments.register_documents import DOCUMENT, THREE, WEIGHTS, changed, made

CONCLUDED = DOCUMENT | {"state": "concluded"}


def test_a_new_experiment_gets_its_salt_and_the_first_epoch():
    change = put(Register(), DOCUMENT, 7)
    assert change.entry is not None
    assert (change.entry.created_at_us, change.entry.step_since_us) == (7, 7)
    assert (made(change.register).revision, made(change.register).epoch, change.register.revision) == (1, 1, 1)
    assert made(change.register).document == DOCUMENT | {"salt": made(change.register).salt}
    assert (change.units_moved_bp, change.warnings) == (10_000, ())


def test_a_register_that_was_changed_is_itself_unchanged():
    before = changed(Register(), {})
    document = DOCUMENT | {"enrol_bp": 100}
    put(before, document, 1)
    delete(changed(before, {"state": "concluded"}), "e")
    kill(before, "*", on=True)
    assert (before.revision, before.killed, made(before).enrol_bp) == (1, frozenset(), 10_000)
    assert document == DOCUMENT | {"enrol_bp": 100}


def test_a_document_without_a_salt_keeps_the_one_that_it_has():
    register = changed(Register(), {"salt": "s1"}, {"enrol_bp": 100})
    assert (made(register).salt, made(register).document["salt"]) == ("s1", "s1")


@pytest.mark.parametrize("state", ["running", "draft"])
def test_an_experiment_that_starts_again_without_a_salt_gets_one_that_was_never_used(state: str):
    register = changed(
        Register(), {}, {"state": "concluded"}, {"state": state}, {"state": "concluded"}, {"state": state}
    )
    first = changed(Register(), {})
    again = changed(first, {"state": "concluded"}, {"state": state})
    assert len({made(r).salt for r in (first, again, register)}) == 3
    assert made(register).epoch == 3


@pytest.mark.parametrize("state", ["running", "draft"])
def test_an_experiment_cannot_start_again_under_the_salt_that_it_had(state: str):
    register = changed(Register(), {"salt": "s1"}, {"state": "concluded"})
    with pytest.raises(ExperimentError, match="needs a new salt"):
        put(register, {**made(register).document, "state": state}, 9)


def test_new_weights_are_given_ranges_that_move_the_fewest_units():
    before = changed(Register(), {})
    change = put(before, DOCUMENT | {"variants": THREE}, 1)
    assert [v.ranges for v in made(change.register).variants] == [
        ((0, 5_000), (8_000, 9_000)),
        ((5_000, 8_000),),
        ((9_000, 10_000),),
    ]
    assert change.units_moved_bp == 2_000
    assert made(change.register).document["variants"][0]["ranges"] == [[0, 5_000], [8_000, 9_000]]


def test_ranges_that_are_as_they_would_be_in_turn_are_not_written_down():
    grown = [{**DOCUMENT["variants"][0], "bp": 4_000}, {**DOCUMENT["variants"][1], "bp": 6_000}]
    register = changed(Register(), {}, {"variants": grown})
    assert "ranges" not in made(register).document["variants"][0]


def test_ranges_stay_where_the_weights_do():
    weighted = changed(Register(), {}, {"variants": THREE})
    again = put(weighted, DOCUMENT | {"variants": THREE, "enrol_bp": 100}, 9)
    assert [v.ranges for v in made(again.register).variants] == [v.ranges for v in made(weighted).variants]
    assert made(again.register).epoch == made(weighted).epoch


def test_ranges_that_are_given_are_kept():
    given = [{**v, "ranges": r} for v, r in zip(WEIGHTS, ([[4_000, 10_000]], [[0, 4_000]]), strict=True)]
    register = changed(Register(), {}, {"variants": given})
    assert [v.ranges for v in made(register).variants] == [((4_000, 10_000),), ((0, 4_000),)]


@pytest.mark.parametrize("change", [{"salt": "s2"}, {"hash": "eppo"}, {"hash": "growthbook-v2"}])
def test_a_new_draw_begins_with_ranges_in_turn(change: dict[str, Any]):
    register = changed(
        Register(), {}, {"variants": THREE}, {"variants": THREE, "state": "concluded"}, {"variants": THREE} | change
    )
    assert [v.ranges for v in made(register).variants] == [((0, 6_000),), ((6_000, 9_000),), ((9_000, 10_000),)]


@pytest.mark.parametrize(
    ("change", "epoch"),
    [
        ({}, 1),
        ({"enrol_bp": 100}, 1),
        ({"state": "paused"}, 1),
        ({"state": "concluded", "winner": "treatment"}, 1),
        ({"overrides": {"p7": "control"}}, 1),
        ({"ramp": {"steps_bp": [100]}}, 1),
        ({"layer": {"name": "default", "slots": [[0, 10_000]]}, "holdout": None, "hash": "v1"}, 1),
        ({"variants": [WEIGHTS[0] | {"bp": 5_000, "version": 1}, WEIGHTS[1] | {"bp": 5_000}]}, 1),
        ({"variants": WEIGHTS}, 2),
        ({"variants": [DOCUMENT["variants"][0], DOCUMENT["variants"][1] | {"version": "3"}]}, 2),
        ({"where": "age > 3"}, 2),
        ({"layer": {"name": "page"}}, 2),
        ({"holdout": {"name": "h", "bp": 1}}, 2),
    ],
)
def test_an_epoch_begins_exactly_where_what_decides_changes(change: dict[str, Any], epoch: int):
    assert made(changed(Register(), {}, change)).epoch == epoch


@pytest.mark.parametrize(
    ("change", "since"),
    [
        ({"overrides": {"p7": "control"}}, 0),
        ({"guardrails": [{"metric": "error_rate", "max_abs_increase": 0.01}]}, 0),
        ({"enrol_bp": 100}, 5),
        ({"state": "paused"}, 5),
        ({"variants": WEIGHTS}, 5),
    ],
)
def test_a_step_lasts_until_state_enrolment_or_epoch_changes(change: dict[str, Any], since: int):
    change_ = put(changed(Register(), {}), DOCUMENT | change, 5)
    assert change_.entry is not None
    assert (change_.entry.created_at_us, change_.entry.step_since_us) == (0, since)


def test_a_conflict_with_another_experiment_is_refused_and_with_its_own_past_is_not():
    register = changed(Register(), {}, {"experiment": "f", "state": "draft"})
    with pytest.raises(ExperimentError, match="'e' and 'f' overlap in layer 'default'"):
        put(register, DOCUMENT | {"experiment": "f"}, 1)
    put(register, DOCUMENT | {"layer": {"slots": [[0, 100]]}}, 1)


def test_there_are_no_more_experiments_than_a_register_holds():
    full = changed(Register(), *({"experiment": f"e{i}", "state": "draft"} for i in range(EXPERIMENTS_MAX)))
    with pytest.raises(ExperimentError, match=f"there are {EXPERIMENTS_MAX} already") as caught:
        put(full, DOCUMENT | {"state": "draft"}, 1)
    assert caught.value.key == "experiment"
    put(full, DOCUMENT | {"experiment": "e7", "state": "draft", "enrol_bp": 1}, 1)
    put(delete(full, "e7").register, DOCUMENT | {"state": "draft"}, 1)


@pytest.mark.parametrize("state", ["running", "paused"])
def test_an_experiment_that_is_live_is_not_deleted(state: str):
    with pytest.raises(ExperimentError, match="conclude it first") as caught:
        delete(changed(Register(), {"state": state}), "e")
    assert caught.value.key == "state"


@pytest.mark.parametrize("change", [{"state": "draft"}, {"state": "concluded", "winner": "treatment"}])
def test_a_deleted_experiment_moves_those_whom_it_served(change: dict[str, Any]):
    before = changed(Register(), change)
    deleted = delete(before, "e")
    assert (deleted.register.revision, deleted.entry, dict(deleted.register.entries)) == (2, None, {})
    assert deleted.units_moved_bp == share_moved(made(before), None) * 10_000


def test_an_unknown_experiment_is_not_deleted():
    with pytest.raises(KeyError):
        delete(Register(), "e")


def test_a_kill_switch_is_of_one_model_or_of_all():
    register = changed(Register(), {}, {"experiment": "f", "model": "n"})
    one = kill(register, "m", on=True).register
    assert [one.is_killed("m"), one.is_killed("n"), one.of_model("m"), len(one.of_model("n"))] == [True, False, (), 1]
    every = kill(one, "*", on=True).register
    assert [every.is_killed(model) for model in ("m", "n", "never heard of")] == [True] * 3
    again = kill(every, "*", on=False).register
    assert [again.is_killed("m"), again.is_killed("n"), again.revision] == [True, False, 5]


def said(change: Change) -> str:
    return change.warnings[0]


def test_a_kill_switch_says_whose_units_it_moves():
    running = changed(
        Register(), {}, {"experiment": "f", "model": "n"}, {"experiment": "d", "state": "draft", "model": "o"}
    )
    one = kill(running, "m", on=True)
    assert said(one) == "all units of e get the default version"
    assert said(kill(one.register, "*", on=True)) == "all units of f get the default version"
    every = kill(one.register, "*", on=True).register
    assert said(kill(every, "m", on=False)) == "they stay off: all models' experiments are switched off"
    assert said(kill(every, "*", on=False)) == "all units of f are drawn again"
    assert said(kill(running, "o", on=True)) == "no running experiment is touched"
    assert said(kill(one.register, "m", on=True)) == "no running experiment is touched"


def test_a_models_experiments_come_in_the_order_of_their_names():
    register = changed(
        Register(), *({"experiment": name, "state": "draft"} for name in "cab"), {"experiment": "n", "model": "n"}
    )
    assert [e.name for e in register.of_model("m")] == ["a", "b", "c"]
    assert register.models() == {"m", "n"}


@pytest.mark.parametrize(
    ("before", "after", "warning"),
    [
        ({}, {"where": "age > 3"}, "moves units that cannot be counted"),
        ({}, {"variants": WEIGHTS}, "epoch 2 begins"),
        ({"enrol_bp": 100}, {"enrol_bp": 50}, "units leave the experiment"),
        ({}, {"ramp": {"steps_bp": [100]}}, "enrol_bp 10000 is no step of the ramp"),
        ({}, {"enrol_bp": 100, "ramp": {"steps_bp": [100]}}, "climbs by time alone"),
    ],
)
def test_a_change_that_has_a_price_says_so(before: dict[str, Any], after: dict[str, Any], warning: str):
    change = put(
        changed(Register(), before | {"enrol_bp": 10_000, **before}), DOCUMENT | {"enrol_bp": 10_000} | after, 1
    )
    assert warning in " ".join(change.warnings)


@pytest.mark.parametrize("change", [{}, {"enrol_bp": 10_000, "overrides": {"p7": "control"}}, {"state": "paused"}])
def test_a_change_that_has_no_price_warns_of_nothing(change: dict[str, Any]):
    assert put(changed(Register(), {}), DOCUMENT | change, 1).warnings == ()


def test_an_experiment_that_gets_a_deleted_ones_name_is_drawn_anew_in_an_epoch_of_its_own():
    first = put(Register(), CONCLUDED, 1)
    gone = delete(first.register, "e").register
    second = put(decode(encode(gone)), CONCLUDED, 2)
    assert second.entry is not None
    assert first.entry is not None
    assert second.entry.experiment.epoch == first.entry.experiment.epoch + 1
    assert second.entry.experiment.salt != first.entry.experiment.salt
    assert "was deleted" in second.warnings[-1]


def test_so_many_names_of_deleted_experiments_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr("experiments.register.RETIRED_MAX", 2)
    register = Register()
    for name in ("a", "b", "c"):
        register = delete(put(register, CONCLUDED | {"experiment": name}, 1).register, name).register
    assert list(register.retired) == ["b", "c"]
