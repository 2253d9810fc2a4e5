from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from experiments import Experiment, ExperimentError, State
from experiments.changes import AFTER, least_moving_ranges, refills_ranges, refuse_change, share_moved, with_ranges
from experiments.variants import Variant

Make = Callable[..., Experiment]
ALLOWED = {
    "draft": {"draft", "running", "paused", "concluded"},
    "running": {"running", "paused", "concluded"},
    "paused": {"running", "paused", "concluded"},
    "concluded": {"concluded", "draft", "running"},
}


def arms(*shares: int, names: str = "abcdefgh", version: str = "1") -> dict[str, Any]:
    return {"variants": [{"name": n, "version": version, "bp": bp} for n, bp in zip(names, shares, strict=False)]}


@pytest.mark.parametrize(("before", "after"), list(product(ALLOWED, ALLOWED)))
def test_a_state_is_followed_by_its_next_ones_and_no_other(experiment: Make, before: str, after: str):
    one = experiment(state=before)
    other = experiment(state=after, salt="new" if before == "concluded" and after != "concluded" else "7f3c")
    if after in ALLOWED[before]:
        refuse_change(one, other)
        return
    with pytest.raises(ExperimentError, match=f"{before} cannot become {after}") as caught:
        refuse_change(one, other)
    assert caught.value.key == "state"


def test_every_state_has_states_that_may_follow():
    assert set(AFTER) == set(State)


@pytest.mark.parametrize("key", ["model", "unit"])
@pytest.mark.parametrize("state", ["running", "paused", "concluded"])
def test_an_experiment_that_has_begun_keeps_its_model_and_its_unit(experiment: Make, state: str, key: str):
    with pytest.raises(ExperimentError) as caught:
        refuse_change(experiment(state=state), experiment(**{"state": state, key: "another"}))
    assert caught.value.key == key


def test_everything_of_a_draft_may_change(experiment: Make):
    change = {"model": "another", "unit": "session", "salt": "new", "hash": "eppo", **arms(10_000)}
    refuse_change(experiment(state="draft"), experiment(**change))


@pytest.mark.parametrize("change", [{"salt": "new"}, {"hash": "eppo"}, {"hash": "growthbook-v2"}])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("running", "running"),
        ("running", "paused"),
        ("paused", "running"),
        ("running", "concluded"),
        ("paused", "concluded"),
        ("concluded", "concluded"),
    ],
)
def test_the_draw_is_immutable_from_the_beginning_to_the_next_one(
    experiment: Make, before: str, after: str, change: dict[str, Any]
):
    with pytest.raises(ExperimentError, match="is immutable while an experiment runs") as caught:
        refuse_change(experiment(state=before), experiment(state=after, **change))
    assert caught.value.key == next(iter(change))


def test_eppos_own_salts_are_immutable_while_it_runs(experiment: Make):
    one, other = (experiment(hash="eppo", salts={"enrol": "a", "split": split}) for split in "bc")
    with pytest.raises(ExperimentError, match="is immutable"):
        refuse_change(one, other)


@pytest.mark.parametrize("after", ["running", "draft"])
def test_an_experiment_that_starts_again_needs_another_draw(experiment: Make, after: str):
    concluded = experiment(state="concluded")
    with pytest.raises(ExperimentError, match="needs a new salt") as caught:
        refuse_change(concluded, experiment(state=after))
    assert caught.value.key == "salt"
    for change in ({"salt": "new"}, {"hash": "eppo"}):
        refuse_change(concluded, experiment(state=after, **change))


@pytest.mark.parametrize(
    "change", [arms(8_000, 2_000), {"where": "age > 3"}, {"enrol_bp": 100}, {"holdout": {"name": "h", "bp": 1}}]
)
def test_what_an_epoch_is_for_may_change_while_it_runs(experiment: Make, change: dict[str, Any]):
    refuse_change(experiment(), experiment(**change))


RUNNING = arms(5_000, 5_000)
HALF = {"layer": {"name": "page", "slots": [[0, 5_000]]}}
CASES = [
    ("nothing changes", {}, {}, 0),
    ("the ramp goes up", {"enrol_bp": 100}, {"enrol_bp": 1_000}, Fraction(9, 100)),
    ("the ramp goes down", {"enrol_bp": 1_000}, {"enrol_bp": 0}, Fraction(1, 10)),
    ("a weight moves", {}, arms(6_000, 4_000), Fraction(1, 10)),
    (
        "a weight moves, of those enrolled",
        {"enrol_bp": 1_000},
        {"enrol_bp": 1_000, **arms(6_000, 4_000)},
        Fraction(1, 100),
    ),
    ("an arm is renamed", {}, arms(5_000, 5_000, names="ac"), Fraction(1, 2)),
    ("an arm serves another version", {}, arms(5_000, 5_000, version="2"), 0),
    ("it pauses", {}, {"state": "paused"}, 1),
    ("it ends", {"enrol_bp": 1_000}, {"state": "concluded"}, Fraction(1, 10)),
    ("a winner is made", {"enrol_bp": 1_000}, {"state": "concluded", "winner": "b"}, Fraction(95, 100)),
    ("another winner is made", {"state": "concluded", "winner": "a"}, {"state": "concluded", "winner": "b"}, 1),
    ("the winner goes", {"state": "concluded", "winner": "a"}, {"state": "concluded"}, 1),
    ("the salt is new", {}, {"salt": "new"}, Fraction(1, 2)),
    ("the hash is new", {}, {"hash": "eppo"}, Fraction(1, 2)),
    ("the layer is halved", {"layer": {"name": "page"}}, HALF, Fraction(1, 2)),
    ("the slots are others", HALF, {"layer": {"name": "page", "slots": [[5_000, 10_000]]}}, 1),
    ("the layer is another", HALF, {"layer": {"name": "box", "slots": [[0, 5_000]]}}, Fraction(1, 2)),
    ("a holdout begins", {}, {"holdout": {"name": "h", "bp": 500}}, Fraction(1, 20)),
    ("a holdout grows", {"holdout": {"name": "h", "bp": 500}}, {"holdout": {"name": "h", "bp": 700}}, Fraction(1, 50)),
    (
        "a holdout is another",
        {"holdout": {"name": "h", "bp": 5_000}},
        {"holdout": {"name": "g", "bp": 5_000}},
        Fraction(1, 2),
    ),
    ("growthbook's ramp", {"hash": "growthbook-v2", "enrol_bp": 0}, {"hash": "growthbook-v2"}, 1),
    ("a draft changes", {"state": "draft"}, {"state": "draft", "salt": "new"}, 0),
]


@pytest.mark.parametrize(("before", "after", "share"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_share_moved_is_that_of_the_units_whose_arm_changes(
    experiment: Make, before: dict[str, Any], after: dict[str, Any], share: Fraction
):
    assert share_moved(experiment(**RUNNING | before), experiment(**RUNNING | after)) == share


def test_a_new_experiment_moves_those_it_takes_in(experiment: Make):
    made = experiment(enrol_bp=1_000, holdout={"name": "h", "bp": 5_000}, **HALF)
    assert share_moved(None, made) == share_moved(made, None) == Fraction(1, 40)
    assert share_moved(None, experiment(state="draft")) == 0
    assert share_moved(experiment(state="concluded", winner="control"), None) == 1


def test_eppo_experiments_that_share_only_the_traffic_salt_enrol_the_same_units(experiment: Make):
    one, other = (experiment(hash="eppo", enrol_bp=1_000, salts={"enrol": "a", "split": s}, **RUNNING) for s in "bc")
    assert share_moved(one, other) == Fraction(1, 20)


@pytest.mark.parametrize(
    ("held", "wanted", "ranges"),
    [
        ({"a": ((0, 10_000),)}, {"a": 9_000, "b": 1_000}, [((0, 9_000),), ((9_000, 10_000),)]),
        (
            {"a": ((0, 9_000),), "b": ((9_000, 10_000),)},
            {"a": 8_000, "b": 2_000},
            [((0, 8_000),), ((8_000, 10_000),)],
        ),
        (
            {"a": ((0, 5_000),), "b": ((5_000, 10_000),)},
            {"b": 4_000, "a": 6_000},
            [((5_000, 9_000),), ((0, 5_000), (9_000, 10_000))],
        ),
        ({"a": ((0, 5_000),), "b": ((5_000, 10_000),)}, {"b": 5_000, "c": 5_000}, [((5_000, 10_000),), ((0, 5_000),)]),
        ({"a": ((0, 10_000),)}, {"a": 0, "b": 10_000}, [(), ((0, 10_000),)]),
        (
            {"a": ((9_000, 10_000), (0, 1_000)), "b": ((1_000, 9_000),)},
            {"a": 1_500, "b": 8_500},
            [((0, 1_000), (9_000, 9_500)), ((1_000, 9_000), (9_500, 10_000))],
        ),
    ],
)
def test_an_arm_that_shrinks_gives_up_its_last_buckets(held: dict[str, Any], wanted: dict[str, int], ranges: list[Any]):
    before = [Variant(name, "1", sum(end - first for first, end in own), own) for name, own in held.items()]
    assert least_moving_ranges(before, list(wanted.items())) == ranges


def test_ranges_are_put_into_a_document_without_touching_it():
    document = {"experiment": "e", "variants": [{"name": "a", "bp": 10_000}]}
    filled = with_ranges(document, [((0, 1), (1, 10_000))])
    assert filled == {
        "experiment": "e",
        "variants": [{"name": "a", "bp": 10_000, "ranges": [[0, 1], [1, 10_000]]}],
    }
    assert document == {"experiment": "e", "variants": [{"name": "a", "bp": 10_000}]}


def test_only_growthbooks_ranges_follow_from_a_rule_of_their_own(experiment: Make):
    refills = {h: refills_ranges(experiment(hash=h)) for h in ("v1", "eppo", "growthbook-v2")}
    assert refills == {"v1": True, "eppo": True, "growthbook-v2": False}
