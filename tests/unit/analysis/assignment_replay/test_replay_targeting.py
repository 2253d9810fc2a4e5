"""`where` is evaluated over what was logged of a request, and what that cannot tell is not held against a row."""

import numpy as np
import pytest

from analysis.assignment_replay.where_attributes import where_attributes
from tests.unit.analysis.assignment_replay.conftest import found
from tests.unit.analysis.assignment_replay.logged_history import Rows, document

FEATURES = [
    ("request.age", "INT64"),
    ("request.country", "BYTES"),
    ("request.rate", "FP64"),
    ("request.member", "BOOL"),
    ("request.dose", "FP32"),
    ("request.half", "FP16"),
]
COLUMNS = {"entities": ["user"], "views": ["profile"], "features": FEATURES}
REQUEST = {"user": "u1", "age": 30, "country": "JP", "rate": 0.5, "member": True, "dose": 0.5, "half": 0.5}


def logged(attributes):
    """Give the columns of a request that was answered from stored features too."""
    columns = {"entity.user": attributes.get("user"), "status.profile": "PRESENT"}
    for name, value in attributes.items():
        if name == "half":
            columns["f.request.half"] = np.float16(value)
        elif name != "user":
            columns[f"f.request.{name}"] = value
    return columns


def ask(place, experiment, sent, unit="u1", **changes):
    return place.rows.answer([experiment], unit, sent, **logged(sent), **changes)


@pytest.mark.parametrize(
    ("where", "other"),
    [
        ("age >= 18 and country in ['JP', 'DE']", {"country": "FR"}),
        ("age >= 18 and country in ['JP', 'DE']", {"age": 17}),
        ("user == 'u1'", {"user": "u2"}),
        ("user == 'u1'", {"user": None}),
        ("not (rate < 0.25 or member == false)", {"rate": 0.2}),
        ("member", {"member": False}),
        ("dose > 0.25", {"dose": 0.2}),
        ("half > 0.25", {"half": 0.2}),
        ("dose < age", {"age": 0}),
    ],
)
def test_targeted_requests_and_others_are_explained_by_what_was_logged_of_them(place, where, other):
    experiment = place.history.put(document(where=where))
    ask(place, experiment, REQUEST)
    ask(place, experiment, {name: value for name, value in (REQUEST | other).items() if value is not None})
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 0)
    assert report.rows_by_reason == {"split": 1, "not_targeted": 1}


@pytest.mark.parametrize(
    ("where", "other"),
    [
        ("age >= 18", {"age": 17}),
        ("user == 'u1'", {"user": "u2"}),
        ("rate <= 0.3", {"rate": 0.3000000001}),
        ("dose <= 0.3", {"dose": 0.31}),
        ("half <= 0.3", {"half": 0.31}),
    ],
)
def test_an_arm_of_a_request_that_was_not_targeted_is_a_mismatch_and_so_is_its_opposite(place, where, other):
    experiment = place.history.put(document(where=where))
    request = REQUEST | {"rate": 0.1, "dose": 0.1, "half": 0.1}
    drawn = ask(place, experiment, request)
    outside = ask(place, experiment, request | other)
    drawn.update(logged(request | other))
    outside.update(logged(request))
    report = place.replay(**COLUMNS)
    assert (found(report), report.rows_targeting_unknown) == ({"reason": 2}, 0)
    recomputed = {example.prediction_id: example.recomputed.reason for example in report.mismatch_classes[0].examples}
    assert recomputed == {drawn["prediction_id"]: "not_targeted", outside["prediction_id"]: "split"}


def test_where_the_log_has_not_what_was_asked_for_rows_are_counted_and_all_else_is_checked(place):
    experiment = place.history.put(document(where="tier == 'gold'", overrides={"u9": "treatment"}))
    place.rows.answer([experiment], "u1", {"tier": "gold"})
    place.rows.answer([experiment], "u1", {"tier": "free"})
    place.rows.answer([experiment], "u9", {"tier": "free"})  # an override asks for no attribute
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 2)
    assert report.rows_by_reason == {"split": 1, "not_targeted": 1, "override": 1}


@pytest.mark.parametrize(
    "change", [{"split_bucket": 17}, {"enrol_bucket": 17}, {"assignment_probability": 0.4}, {"epoch": 4}]
)
def test_a_wrong_value_is_found_where_targeting_is_not_checkable(place, change):
    experiment = place.history.put(document(where="tier == 'gold'"))
    place.rows.answer([experiment], "u1", {"tier": "gold"}, **change)
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (1, 0)


def test_a_winner_goes_to_those_who_are_targeted(place):
    experiment = place.history.put(document(where="age >= 18", state="concluded", winner="treatment"))
    ask(place, experiment, REQUEST)
    ask(place, experiment, REQUEST | {"age": 17})
    assert place.replay(**COLUMNS).rows_by_reason == {"not_targeted": 1, "winner": 1}


def test_of_several_instances_only_what_has_one_value_in_all_is_an_attribute(place):
    experiment = place.history.put(document(where="age >= 18"))
    for ages, shared in (([30, 30, 30], {"age": 30}), ([30, 30, 31], {}), ([30, None], {})):
        first = place.rows.answer([experiment], "u1", shared, **{"entity.user": "u1", "f.request.age": ages[0]})
        for number, age in enumerate(ages[1:], 1):
            place.rows.rows.append(first | {"row": number, "f.request.age": age})
    report = place.replay(entities=["user"], features=FEATURES)
    assert (report.rows, report.mismatches, report.rows_targeting_unknown) == (8, 0, 0)
    assert report.rows_by_reason == {"not_targeted": 5, "split": 3}


@pytest.mark.parametrize(("where", "sent"), [("dose <= 0.3", {"dose": 0.3}), ("half >= 0.1", {"half": 0.1})])
def test_a_number_that_rounding_moved_over_the_border_is_not_held_against_a_row(place, where, sent):
    experiment = place.history.put(document(where=where))
    assert float(np.float32(0.3)) > 0.3
    assert float(np.float16(0.1)) < 0.1
    assert ask(place, experiment, REQUEST | sent)["variant_assigned"] is not None
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 1)


def test_numbers_of_several_instances_that_rounding_made_one_are_not_held_against_their_rows(place):
    experiment = place.history.put(document(where="dose > 0.1"))
    first = place.rows.answer([experiment], "u1", {}, **logged(REQUEST | {"dose": 0.3}))
    place.rows.rows.append(first | {"row": 1, "f.request.dose": 0.3 + 1e-12})
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 2)


def test_an_id_that_was_sent_as_a_number_is_logged_as_text_and_is_not_held_against_a_row(place):
    experiment = place.history.put(document(where="user == 7"))
    place.rows.answer([experiment], "7", {"user": 7}, **logged({"user": "7"}))
    place.rows.answer([experiment], "7", {"user": "7"}, **logged({"user": "7"}))
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 1)
    assert report.rows_by_reason == {"not_targeted": 1, "split": 1}


@pytest.mark.parametrize("views", [["profile"], []])
def test_rows_that_were_sent_as_tensors_have_no_attributes_and_are_not_held_to_them(place, views):
    experiment = place.history.put(document(where="age >= 18"))
    place.rows.answer([experiment], "u1", {}, **{"f.request.age": 30})
    report = place.replay(entities=["user"], views=views, features=FEATURES)
    assert (report.mismatches, report.rows_targeting_unknown) == (0, 1)


def test_versions_that_log_other_columns_are_each_checked_as_far_as_they_go(place):
    experiment = place.history.put(document(where="age >= 18"))
    ask(place, experiment, REQUEST)
    place.rows.write(place.root, **COLUMNS)
    place.rows = Rows()
    place.rows.answer([experiment], "u1", REQUEST, version="static", variant_served=None, error_code="overloaded")
    report = place.replay(entities=["user"])
    assert (report.rows, report.mismatches, report.rows_targeting_unknown) == (2, 0, 1)


def test_an_unlogged_attribute_of_a_number_given_twice_leaves_both_documents_possible(place):
    one = place.history.put(document(where="age >= 18"))
    place.history.lines.append(place.history.lines[0] | {"after": {**one.document, "where": "age >= 40"}})
    ask(place, one, REQUEST)
    report = place.replay(**COLUMNS)
    assert (report.mismatches, report.numbered_twice) == (0, (("e", 1),))


def test_what_an_expression_reads_is_its_names_and_numbers():
    read = where_attributes(" age >= 18 and not (rate < -0.5 or member == true) and country in ['JP', 'age']")
    assert read.names == ("age", "country", "member", "rate")
    assert set(read.numbers) == {18, -18, 0.5, -0.5}
