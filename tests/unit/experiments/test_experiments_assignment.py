from collections.abc import Callable
from typing import Any

import pytest

from experiments import UNASSIGNED, Experiment, Reason, assign
from experiments.assignment import WITHOUT_UNIT

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
