"""Rows as the gateway logs them are explained, whatever decided them."""

import pytest

from experiments import Assignment, Reason, assign
from tests.unit.analysis.assignment_replay.logged_history import RegisterHistory, Rows, arms, document

UNITS = [f"u{i}" for i in range(200)]


@pytest.mark.parametrize(
    "drawn_by",
    [
        {"hash": "v1"},
        {"hash": "growthbook-v2"},
        {"hash": "eppo"},
        {"hash": "eppo", "salts": {"enrol": "exposure-x", "split": "split x"}},
    ],
)
def test_units_are_drawn_again_by_each_hash_in_every_script(place, drawn_by):
    one = place.history.put(document(enrol_bp=4_000, **drawn_by))
    other = place.history.put(document(enrol_bp=7_000, **drawn_by, variants=arms(1_000, 2_000, 7_000)))
    for unit in [*UNITS, "é", "e\N{COMBINING ACUTE ACCENT}", "漢字/🙂", " ", "7", "sekisho/v1/", "a\x1b[2Jb"]:
        place.rows.answer([one], unit)
        place.rows.answer([other], unit)
    report = place.replay()
    assert (report.mismatches, report.decisions) == (0, 2 * 207)
    assert set(report.rows_by_reason) == {"split", "not_enrolled"}


def test_every_reason_is_recomputed_and_counted(place):
    e = {
        "split": document("e"),
        "override": document("o", overrides={"u1": "treatment"}, layer={"name": "o"}),
        "winner": document("w", state="concluded", winner="treatment"),
        "not_enrolled": document("n", enrol_bp=0, layer={"name": "n"}),
        "held_out": document("h", holdout={"name": "h", "bp": 10_000}, layer={"name": "h"}),
        "other_slot": document("s", layer={"name": "s", "slots": [[9_999, 10_000]]}),
        "not_running": document("p", state="paused", layer={"name": "p"}),
    }
    for reason, of_reason in e.items():
        decision = assign([place.history.put(of_reason)], "u1", {})
        assert decision.reason == reason
        place.rows.log(decision, "u1")
        place.rows.log(decision, "u1")
    report = place.replay()
    assert (report.mismatches, report.decisions) == (0, 7)
    assert report.rows_by_reason == dict.fromkeys(e, 2)


def test_a_forced_row_needs_no_more_than_an_arm_of_a_running_experiment(place):
    experiment = place.history.put(document())
    for unit in ("u1", None):
        place.rows.log(Assignment(experiment, experiment.variants[1], Reason.FORCED), unit)
    assert place.replay().rows_by_reason == {"forced": 2}


def test_rows_outside_of_every_experiment_are_counted_and_are_one_decision(place):
    for unit in (*UNITS, None):
        place.rows.answer([], unit)
    place.rows.log(Assignment(None, None, Reason.FORCED), "u1")  # the caller named a version
    report = place.replay()
    assert (report.rows, report.rows_without_experiment, report.decisions, report.mismatches) == (202, 202, 2, 0)
    assert report.rows_by_reason == {"no_experiment": 201, "forced": 1}


def test_an_arm_that_another_version_stepped_in_for_is_explained_by_its_fault(place):
    experiment = place.history.put(document())
    place.rows.answer([experiment], "u1", version="static", variant_served=None, error_code="worker_unavailable")
    assert place.replay().rows_by_reason == {"split": 1}


def test_a_shadow_scores_by_its_own_version_or_by_controls_where_its_own_answered(place):
    shadow = {"version": "2", "sample_bp": 10_000}
    experiment = place.history.put(document(shadow=shadow))
    for unit in UNITS:
        decision = assign([experiment], unit, {})
        place.rows.shadow(decision, unit, place.rows.log(decision, unit))
    report = place.replay()
    assert (report.rows, report.mismatches) == (400, 0)
    assert {row["version"] for row in place.rows.rows if row["shadow"]} == {"1", "2"}


def test_a_decision_that_many_rows_share_is_recomputed_once(place):
    experiment = place.history.put(document())
    for _ in range(50):
        place.rows.answer([experiment], "u1")
        place.rows.answer([experiment], "u2")
    report = place.replay()
    assert (report.rows, report.decisions) == (100, 2)


def test_rows_are_told_by_revision_with_their_times(place):
    for enrol_bp in (10_000, 9_000):
        experiment = place.history.put(document(enrol_bp=enrol_bp))
        for unit in UNITS[:3]:
            place.rows.answer([experiment], unit)
    first, second = place.replay().revisions
    assert (first.experiment, first.revision, first.epochs, first.rows) == ("e", 1, (1,), 3)
    assert (first.first.isoformat(), first.last.isoformat()) == (
        "2026-01-01T10:00:00+00:00",
        "2026-01-01T10:00:00.002000+00:00",
    )
    assert (second.revision, second.rows, second.mismatches) == (2, 3, 0)


def test_every_model_is_replayed_unless_one_is_named(place):
    one = place.history.put(document())
    place.rows.answer([one], "u1")
    place.rows.write(place.root)
    other = place.history.put(document("f", model="n"))
    place.rows = Rows()
    place.rows.answer([other], "u1", model="n")
    place.rows.answer([other], "u2", model="n")
    place.rows.write(place.root, model="n")
    assert [place.again(model=model).rows for model in (None, "m", "n")] == [3, 1, 2]


def test_revisions_of_the_history_that_the_log_does_not_name_are_of_no_account(place):
    experiment = place.history.put(document())
    place.history.put(document("other", model="n"))
    place.rows.answer([experiment], "u1")
    assert [one.experiment for one in place.replay().revisions] == ["e"]


def test_the_longest_overlap_of_two_revisions_is_told_and_is_no_mismatch(place):
    one = place.history.put(document())
    other = place.history.put(document(enrol_bp=5_000))
    for experiment in (one, one, other, one, one, other):
        place.rows.answer([experiment], "u1")
    report = place.replay()
    assert report.mismatches == 0
    assert (report.overlap.experiment, report.overlap.revisions, report.overlap.overlap_ms) == ("e", (1, 2), 2.0)


def test_revisions_one_after_the_other_have_no_overlap(place):
    for enrol_bp in (10_000, 5_000):
        place.rows.answer([place.history.put(document(enrol_bp=enrol_bp))], "u1")
    assert place.replay().overlap is None


def test_a_number_that_was_given_twice_is_explained_by_either_document_and_told(place):
    lost = RegisterHistory()
    one = place.history.put(document())
    other = lost.put(document(variants=arms(2_000, 8_000)))
    assert (one.revision, other.revision) == (1, 1)
    place.history.lines += lost.lines
    for unit in UNITS:
        place.rows.answer([one if int(unit[1:]) < 100 else other], unit)
    report = place.replay()
    assert (report.mismatches, report.numbered_twice) == (0, (("e", 1),))
    assert report.revisions[0].epochs == (1, 1)
