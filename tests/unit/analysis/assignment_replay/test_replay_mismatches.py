"""Each class of mismatch, by one value of one row that is not as the gateway logged it."""

from datetime import UTC, datetime, timedelta

import pytest

from analysis.assignment_replay.history import read_history
from analysis.assignment_replay.recomputation import Fault, Recomputation
from experiments import Assignment, Reason, assign
from tests.unit.analysis.assignment_replay.conftest import found
from tests.unit.analysis.assignment_replay.logged_history import (
    START_US,
    RegisterHistory,
    Rows,
    arms,
    as_read,
    document,
)

DOCUMENTS = {
    "split": document("e", salt="s1"),
    "override": document("o", overrides={"u1": "treatment"}, layer={"name": "o"}),
    "winner": document("w", state="concluded", winner="treatment"),
    "not_enrolled": document("n", enrol_bp=0, layer={"name": "n"}),
    "held_out": document("h", holdout={"name": "h", "bp": 10_000}, layer={"name": "h"}),
    "not_running": document("p", state="paused", layer={"name": "p"}),
    "shadow": document("s", shadow={"version": "3", "sample_bp": 10_000}, layer={"name": "s"}),
}
TAMPERED = [
    ("split", {"revision": 99}, Fault.UNKNOWN_REVISION),
    ("split", {"revision": None}, Fault.UNKNOWN_REVISION),
    ("split", {"experiment": "absent"}, Fault.UNKNOWN_REVISION),
    ("split", {"experiment": None}, Fault.NO_EXPERIMENT),
    ("split", {"model": "other"}, Fault.MODEL),
    ("split", {"epoch": 2}, Fault.EPOCH),
    ("split", {"epoch": None}, Fault.EPOCH),
    ("split", {"unit": None}, Fault.NO_UNIT),
    ("split", {"unit": "u2"}, Fault.ENROL_BUCKET),
    ("split", {"enrol_bucket": 17}, Fault.ENROL_BUCKET),
    ("split", {"enrol_bucket": None}, Fault.ENROL_BUCKET),
    ("split", {"split_bucket": 17}, Fault.SPLIT_BUCKET),
    ("split", {"variant_assigned": "control"}, Fault.ARM),
    ("split", {"variant_assigned": None}, Fault.ARM),
    ("split", {"assignment_probability": 0.5 + 1e-11}, Fault.PROBABILITY),
    ("split", {"assignment_probability": None}, Fault.PROBABILITY),
    ("split", {"assignment_probability": float("nan")}, Fault.PROBABILITY),
    ("split", {"variant_served": "control"}, Fault.SERVED),
    ("split", {"variant_served": None}, Fault.SERVED),
    ("split", {"error_code": "worker_unavailable"}, Fault.SERVED),
    ("split", {"version": "1"}, Fault.VERSION),
    ("split", {"forced": True}, Fault.FORCED),
    ("split", {"shadow": True}, Fault.SHADOW),
    ("override", {"variant_assigned": "control"}, Fault.ARM),
    ("override", {"assignment_probability": 0.5}, Fault.PROBABILITY),
    ("override", {"unit": "u2"}, Fault.REASON),
    ("winner", {"variant_assigned": "control"}, Fault.ARM),
    ("winner", {"forced": True}, Fault.FORCED),
    ("winner", {"version": "1"}, Fault.VERSION),
    ("not_enrolled", {"enrol_bucket": 17}, Fault.ENROL_BUCKET),
    ("not_enrolled", {"unit": "u2"}, Fault.ENROL_BUCKET),
    ("not_enrolled", {"variant_assigned": "control"}, Fault.ARM),
    ("not_enrolled", {"variant_served": "control"}, Fault.SERVED),
    ("held_out", {"enrol_bucket": 17}, Fault.ENROL_BUCKET),
    ("held_out", {"variant_assigned": "control"}, Fault.ARM),
    ("not_running", {"split_bucket": 17}, Fault.SPLIT_BUCKET),
    ("forced", {"variant_assigned": "nobody"}, Fault.FORCED),
    ("forced", {"variant_assigned": None}, Fault.FORCED),
    ("forced", {"enrol_bucket": 17}, Fault.FORCED),
    ("forced", {"assignment_probability": 0.5}, Fault.FORCED),
    ("forced", {"epoch": 2}, Fault.EPOCH),
    ("forced", {"version": "2"}, Fault.VERSION),
    ("forced", {"forced": False}, Fault.REASON),
    ("no_experiment", {"variant_assigned": "control"}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"variant_served": "control"}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"revision": 1}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"epoch": 1}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"enrol_bucket": 17}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"split_bucket": 17}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"assignment_probability": 0.5}, Fault.NO_EXPERIMENT),
    ("no_experiment", {"shadow": True}, Fault.NO_EXPERIMENT),
    ("shadow", {"version": "2"}, Fault.SHADOW),
    ("shadow", {"variant_served": "treatment"}, Fault.SHADOW),
    ("shadow", {"forced": True}, Fault.FORCED),
    ("shadow", {"enrol_bucket": 17}, Fault.ENROL_BUCKET),
]


def rows_of(kind, place, experiments):
    """Log rows of unit u1 of one kind; the last one is to be changed."""
    if kind == "forced":
        running = experiments["split"]
        return [place.rows.log(Assignment(running, running.variants[0], Reason.FORCED), "u1")]
    if kind == "no_experiment":
        return [place.rows.answer([], "u1")]
    decision = assign([experiments[kind]], "u1", {})
    answered = place.rows.log(decision, "u1")
    return [answered, place.rows.shadow(decision, "u1", answered)] if kind == "shadow" else [answered]


@pytest.fixture
def experiments(place):
    return {kind: place.history.put(of_kind) for kind, of_kind in DOCUMENTS.items()}


@pytest.mark.parametrize(("kind", "change", "fault"), TAMPERED, ids=str)
def test_one_value_that_was_changed_makes_a_row_a_mismatch_of_its_class(place, experiments, kind, change, fault):
    recomputation = Recomputation(read_history([place.history.write(place.root / "audit.jsonl")]))
    row = rows_of(kind, place, experiments)[-1]
    assert recomputation.judge(as_read(row)).fault is None
    assert recomputation.judge(as_read(row | change)).fault == fault


def test_each_changed_row_of_a_log_is_one_mismatch_and_the_rows_beside_it_are_explained(place, experiments):
    changed = {}
    for kind, change, fault in TAMPERED:
        rows_of(kind, place, experiments)
        *_, row = rows_of(kind, place, experiments)
        row.update(change)
        changed.setdefault(fault, []).append((row["prediction_id"], row["shadow"]))
    report = place.replay()
    assert found(report) == {fault: len(rows) for fault, rows in changed.items()}
    assert report.mismatches == len(TAMPERED)
    assert sum(report.rows_by_reason.values()) == report.rows - len(TAMPERED)
    for one in report.mismatch_classes:
        shown = [(example.prediction_id, example.shadow) for example in one.examples]
        assert len(shown) == min(10, one.count)
        assert set(shown) <= set(changed[one.name])


def test_a_mismatch_tells_what_was_logged_and_what_is_recomputed(place, experiments):
    (row,) = rows_of("split", place, experiments)
    row.update(variant_assigned="control", variant_served="control", version="1")
    ((example,),) = [one.examples for one in place.replay().mismatch_classes]
    assert (example.logged.variant, example.logged.version) == ("control", "1")
    recomputed = example.recomputed
    assert (recomputed.reason, recomputed.variant, recomputed.version) == ("split", "treatment", "2")
    assert (recomputed.enrol_bucket, recomputed.split_bucket) == (row["enrol_bucket"], row["split_bucket"])


def test_all_rows_of_a_wrong_decision_are_counted_and_ten_of_them_shown(place):
    experiment = place.history.put(document())
    for _ in range(25):
        place.rows.answer([experiment], "u1", epoch=7)
        place.rows.answer([experiment], "u2")
    report = place.replay()
    assert (report.mismatches, found(report), report.revisions[0].mismatches) == (25, {"epoch": 25}, 25)
    examples = report.mismatch_classes[0].examples
    assert [example.prediction_id for example in examples] == [f"p{2 * i:09}" for i in range(10)]


def test_of_many_wrong_decisions_ten_rows_are_shown(place):
    experiment = place.history.put(document())
    for number in range(30):
        place.rows.answer([experiment], f"u{number}", enrol_bucket=-1)
    report = place.replay()
    assert (found(report), len(report.mismatch_classes[0].examples)) == ({"enrol_bucket": 30}, 10)


def test_a_unit_that_is_drawn_into_two_arms_in_one_epoch_is_told_though_each_row_is_explained(place):
    one = place.history.put(document(variants=arms(10_000, 0)))
    other = place.history.put(document(variants=arms(0, 10_000)))
    place.history.lines[1]["epoch"] = 1  # as a register would that forgot to begin an epoch
    for unit in ("u1", "u2", "u3"):
        place.rows.answer([one], unit)
    for unit in ("u2", "u3", "u4"):
        place.rows.answer([other], unit, epoch=1)
    report = place.replay()
    assert found(report) == {"two_arms": 2}
    first = report.mismatch_classes[0].examples[0]
    assert (first.unit, first.logged.variant, first.recomputed.variant) == ("u2", "treatment", "control")


def test_two_arms_in_two_epochs_are_as_it_should_be(place):
    for shares in ((10_000, 0), (0, 10_000)):
        place.rows.answer([place.history.put(document(variants=arms(*shares)))], "u1")
    assert place.replay().mismatches == 0


def test_a_unit_in_two_arms_by_a_row_that_is_not_explained_is_told_once(place):
    experiment = place.history.put(document(salt="s1"))
    place.rows.answer([experiment], "u1")
    row = place.rows.answer([experiment], "u1")
    row["variant_assigned"] = row["variant_served"] = "control"
    row["version"] = "1"
    assert found(place.replay()) == {"variant_assigned": 1}


def test_a_shadow_that_carries_another_revision_than_the_answered_row_is_told(place):
    shadow = {"version": "3", "sample_bp": 10_000}
    one = place.history.put(document(shadow=shadow))
    other = place.history.put(document(shadow=shadow, enrol_bp=9_999))
    answered = place.rows.answer([one], "u1")
    place.rows.shadow(assign([other], "u1", {}), "u1", answered, revision=2)
    report = place.replay()
    assert found(report) == {"shadow_pair": 1}
    (example,) = report.mismatch_classes[0].examples
    assert (example.shadow, example.revision, example.prediction_id) == (True, 2, "p000000000")


def test_a_shadow_whose_answered_row_was_lost_is_no_mismatch(place):
    experiment = place.history.put(document(shadow={"version": "3", "sample_bp": 10_000}))
    decision = assign([experiment], "u1", {})
    place.rows.shadow(decision, "u1", place.rows.log(decision, "u1"))
    del place.rows.rows[0]
    assert (place.replay().rows, place.again().mismatches) == (1, 0)


def test_a_shadow_of_a_unit_that_is_not_sampled_is_told(place):
    experiment = place.history.put(document(shadow={"version": "3", "sample_bp": 0}))
    place.rows.answer([experiment], "u1", shadow=True, variant_served=None, version="3")
    assert found(place.replay()) == {"shadow": 1}


def test_rows_outside_the_window_are_not_looked_at(place):
    experiment = place.history.put(document())
    for epoch in (1, 7, 1):
        place.rows.answer([experiment], "u1", epoch=epoch)
    place.rows.write(place.root)
    middle = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(milliseconds=1)
    later = middle + timedelta(milliseconds=1)
    assert [place.again(end=middle).mismatches, place.again(start=later).mismatches] == [0, 0]
    assert place.again(start=middle, end=later).mismatches == 1


def test_a_number_that_was_given_twice_explains_no_row_that_neither_document_does(place):
    lost = RegisterHistory()
    experiment = place.history.put(document())
    lost.put(document(variants=arms(2_000, 8_000)))
    place.history.lines += lost.lines
    place.rows = Rows()
    place.rows.answer([experiment], "u1", assignment_probability=0.3)
    assert found(place.replay()) == {"assignment_probability": 1}
