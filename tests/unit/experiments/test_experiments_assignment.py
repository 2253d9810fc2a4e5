from collections.abc import Callable
from typing import Any

import pytest

from experiments import UNASSIGNED, Experiment, Reason, assign, parse_experiment, shadow_version
from experiments.assignment import WITHOUT_UNIT, Assignment

Make = Callable[..., Experiment]


def test_a_unit_is_drawn_by_its_buckets(experiment: Make):
    drawn = assign((experiment(),), "p7", {})
    assert (drawn.reason, drawn.enrolled, drawn.enrol_bucket, drawn.split_bucket) == (Reason.SPLIT, True, 1373, 9873)
    assert drawn.variant is not None
    assert (drawn.variant.name, drawn.variant.version, drawn.probability) == ("treatment", "2", 0.1)


def test_the_probability_is_the_arms_share_of_the_split_whatever_the_enrolment(experiment: Make):
    drawn = assign((experiment(enrol_bp=1_374),), "p7", {})
    assert drawn.probability == 0.1


def test_a_unit_at_the_edge_of_the_enrolment_is_out(experiment: Make):
    assert assign((experiment(enrol_bp=1_374),), "p7", {}).reason is Reason.SPLIT
    out = assign((experiment(enrol_bp=1_373),), "p7", {})
    assert (out.reason, out.enrolled, out.variant, out.probability) == (Reason.NOT_ENROLLED, False, None, None)
    assert (out.enrol_bucket, out.split_bucket) == (1373, None)


def test_an_enrolment_of_nothing_takes_nobody_and_of_everything_everybody(experiment: Make):
    units = [f"u{i}" for i in range(500)]
    assert {assign((experiment(enrol_bp=0),), u, {}).reason for u in units} == {Reason.NOT_ENROLLED}
    assert {assign((experiment(enrol_bp=10_000),), u, {}).reason for u in units} == {Reason.SPLIT}


def test_no_experiment_assigns_nothing():
    assert assign((), "p7", {}) is UNASSIGNED
    assert (UNASSIGNED.variant, UNASSIGNED.probability, UNASSIGNED.enrolled) == (None, None, False)


def test_no_unit_is_never_drawn(experiment: Make):
    assert assign((experiment(overrides={"None": "treatment"}),), None, {}) is WITHOUT_UNIT
    assert assign((), None, {}) is UNASSIGNED


@pytest.mark.parametrize("state", ["draft", "paused", "concluded"])
def test_an_experiment_that_does_not_run_assigns_nobody_not_even_by_override(experiment: Make, state: str):
    drawn = assign((experiment(state=state, overrides={"p7": "treatment"}),), "p7", {})
    assert (drawn.reason, drawn.variant) == (Reason.NOT_RUNNING, None)


def test_an_override_comes_before_targeting_slots_and_enrolment_and_does_not_count(experiment: Make):
    nobody: dict[str, Any] = {"where": "false", "layer": {"slots": [[0, 1]]}, "enrol_bp": 0}
    drawn = assign((experiment(overrides={"p7": "control"}, **nobody),), "p7", {})
    assert drawn.variant is not None
    assert (drawn.variant.name, drawn.reason, drawn.enrolled, drawn.probability) == (
        "control",
        Reason.OVERRIDE,
        False,
        None,
    )
    assert assign((experiment(overrides={"p7": "control"}, **nobody),), "p8", {}).reason is Reason.NOT_TARGETED


def test_targeting_reads_the_requests_attributes(experiment: Make):
    adults = experiment(where="age >= 18")
    assert assign((adults,), "p7", {"age": 18}).reason is Reason.SPLIT
    assert assign((adults,), "p7", {"age": 17}).reason is Reason.NOT_TARGETED
    assert assign((adults,), "p7", {}).reason is Reason.NOT_TARGETED


def test_a_unit_in_another_slot_of_the_layer_is_out(experiment: Make):
    below, above = experiment(layer={"slots": [[0, 5_000]]}), experiment(layer={"slots": [[5_000, 10_000]]})
    reasons = {(assign((below,), f"u{i}", {}).reason, assign((above,), f"u{i}", {}).reason) for i in range(200)}
    assert reasons == {(Reason.SPLIT, Reason.OTHER_SLOT), (Reason.OTHER_SLOT, Reason.SPLIT)}


def test_the_first_experiment_that_takes_the_unit_decides(experiment: Make):
    nobody, everybody = experiment(experiment="a", enrol_bp=0), experiment(experiment="b", salt="b")
    for order in ((nobody, everybody), (everybody, nobody)):
        drawn = assign(order, "p7", {})
        assert drawn.experiment is everybody


def test_where_no_experiment_takes_the_unit_the_last_ones_reason_is_given(experiment: Make):
    experiments = (experiment(experiment="a", enrol_bp=0), experiment(experiment="b", where="false"))
    drawn = assign(experiments, "p7", {})
    assert (drawn.experiment, drawn.reason, drawn.variant) == (experiments[1], Reason.NOT_TARGETED, None)


def test_a_delimiter_in_an_id_reaches_no_other_purpose(experiment: Make):
    drawn = assign((experiment(),), "p7", {})
    assert assign((experiment(),), "7f3c/p7", {}).split_bucket != drawn.split_bucket
    assert assign((experiment(),), "../split/7f3c/p7", {}).enrol_bucket != drawn.split_bucket


def test_a_held_out_unit_is_in_no_arm_and_its_buckets_are_not_told(experiment: Make):
    out = assign((experiment(holdout={"name": "h", "bp": 10_000}),), "p7", {})
    assert (out.reason, out.variant, out.enrol_bucket, out.split_bucket) == (Reason.HELD_OUT, None, None, None)
    assert (out.enrolled, out.probability) == (False, None)


def test_a_unit_at_the_edge_of_a_holdout_takes_part(experiment: Make):
    bucket = experiment(holdout={"name": "h", "bp": 1}).holdout_draw("p7")
    assert assign((experiment(holdout={"name": "h", "bp": bucket}),), "p7", {}).reason is Reason.SPLIT
    assert assign((experiment(holdout={"name": "h", "bp": bucket + 1}),), "p7", {}).reason is Reason.HELD_OUT


def test_targeting_comes_before_the_holdout_and_the_holdout_before_slots(experiment: Make):
    everybody = {"name": "h", "bp": 10_000}
    assert assign((experiment(holdout=everybody, where="false"),), "p7", {}).reason is Reason.NOT_TARGETED
    assert assign((experiment(holdout=everybody, layer={"slots": [[0, 1]]}),), "p7", {}).reason is Reason.HELD_OUT


def test_an_override_comes_before_the_holdout(experiment: Make):
    held = experiment(holdout={"name": "h", "bp": 10_000}, overrides={"p7": "treatment"})
    assert assign((held,), "p7", {}).reason is Reason.OVERRIDE


def test_a_winner_is_given_to_every_unit_and_counts_in_no_result(experiment: Make):
    everything_else = {"enrol_bp": 0, "holdout": {"name": "h", "bp": 10_000}, "layer": {"slots": [[0, 1]]}}
    won = experiment(state="concluded", winner="treatment", overrides={"u1": "control"}, **everything_else)
    for unit in (f"u{i}" for i in range(100)):
        drawn = assign((won,), unit, {})
        assert drawn.variant is not None
        assert (drawn.variant.name, drawn.reason, drawn.enrolled, drawn.probability) == (
            *("treatment", Reason.WINNER),
            *(False, None),
        )


def test_a_winner_is_given_only_where_the_experiment_was_meant(experiment: Make):
    won = experiment(state="concluded", winner="treatment", where="age >= 18")
    assert assign((won,), "p7", {"age": 18}).reason is Reason.WINNER
    assert assign((won,), "p7", {"age": 17}).reason is Reason.NOT_TARGETED


def test_a_winner_gives_way_to_every_experiment_that_takes_the_unit(experiment: Make):
    won = experiment(experiment="a", state="concluded", winner="treatment")
    running = experiment(experiment="b", salt="b")
    for order in ((won, running), (running, won)):
        drawn = assign(order, "p7", {})
        assert (drawn.experiment, drawn.reason) == (running, Reason.SPLIT)


@pytest.mark.parametrize("change", [{"enrol_bp": 0}, {"where": "false"}, {"state": "paused"}])
def test_a_winner_serves_the_units_that_no_running_experiment_takes(experiment: Make, change: dict[str, Any]):
    won = experiment(experiment="a", state="concluded", winner="treatment")
    other = experiment(**{"experiment": "b", "salt": "b"} | change)
    for order in ((won, other), (other, won)):
        drawn = assign(order, "p7", {})
        assert (drawn.experiment, drawn.reason) == (won, Reason.WINNER)


def test_of_several_winners_the_one_of_the_latest_revision_counts(experiment: Make):
    document = experiment(state="concluded", winner="control").document
    early = parse_experiment({**document, "experiment": "a"}, revision=3, epoch=1)
    late = parse_experiment({**document, "experiment": "b", "winner": "treatment"}, revision=9, epoch=1)
    for order in ((early, late), (late, early)):
        assert assign(order, "p7", {}).experiment is late


def test_no_unit_gets_no_winner(experiment: Make):
    assert assign((experiment(state="concluded", winner="treatment"),), None, {}) is WITHOUT_UNIT


def drawn_into(made: Experiment, arm: str) -> tuple[str, Assignment]:
    units = (f"u{i}" for i in range(1_000))
    decisions = ((unit, assign((made,), unit, {})) for unit in units)
    return next((u, d) for u, d in decisions if d.variant is not None and d.variant.name == arm)


@pytest.mark.parametrize(
    ("arm", "served", "shadow", "scores"),
    [
        ("control", "1", "3", "3"),
        ("treatment", "2", "3", "3"),
        ("control", "1", "2", "2"),
        ("treatment", "2", "2", "1"),
        ("control", "1", "1", None),
        ("treatment", "2", "1", "1"),
        ("treatment", "1", "2", "2"),
    ],
    ids=str,
)
def test_a_shadow_scores_by_its_own_version_or_by_controls_where_its_own_has_served(
    experiment: Make, arm: str, served: str, shadow: str, scores: str | None
):
    unit, decision = drawn_into(experiment(shadow={"version": shadow}), arm)
    assert shadow_version(decision, unit, served) == scores


def test_a_shadow_scores_only_units_that_count(experiment: Make):
    shadowed = {"shadow": {"version": "3"}}
    decisions = [
        assign((experiment(**shadowed, enrol_bp=0),), "p7", {}),
        assign((experiment(**shadowed, overrides={"p7": "treatment"}),), "p7", {}),
        assign((experiment(**shadowed, state="concluded", winner="treatment"),), "p7", {}),
        assign((experiment(**shadowed),), None, {}),
        UNASSIGNED,
        assign((experiment(),), "p7", {}),
    ]
    assert [shadow_version(decision, "p7", "1") for decision in decisions] == [None] * 6


@pytest.mark.parametrize("sample_bp", [0, 1, 2_000, 10_000])
def test_a_shadow_samples_units_by_a_draw_of_its_own(experiment: Make, sample_bp: int):
    made = experiment(shadow={"version": "3", "sample_bp": sample_bp})
    assert made.shadow_draw is not None
    for unit in (f"u{i}" for i in range(500)):
        sampled = shadow_version(assign((made,), unit, {}), unit, "1") is not None
        assert sampled is (made.shadow_draw(unit) < sample_bp)
