import json

import pytest

from loadtests.answer_check import AnswerCheck, share_problem
from loadtests.http_connection import Response

EXPECTED = {"1": [0.1, 0.2, 0.3], "2": [0.6, 0.7, 0.8]}


def answer(predictions, version="1", **more) -> Response:
    return Response(200, json.dumps({"predictions": predictions, "version": version, "model": "m", **more}).encode())


def one_user_each() -> AnswerCheck:
    return AnswerCheck(EXPECTED, [[0], [1], [2]])


def test_the_offline_value_of_the_served_version_is_right():
    check = one_user_each()
    assert check.problem(0, answer([0.1 + 9e-6])) is None
    assert check.problem(2, answer([0.8], version="2")) is None


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (answer([0.1 + 2e-5]), "offline 0.1"),
        (answer([0.2]), "offline 0.1"),
        (answer([0.6]), "offline 0.1"),
        (answer([]), "0 predictions for 1"),
        (answer([0.1, 0.1]), "2 predictions for 1"),
        (answer([0.1], version="3"), "unknown version"),
        (answer([0.1], degraded=["feature_default:v"]), "degraded: feature_default:v"),
        (answer([None]), "not a prediction"),
        (Response(200, b"{}"), "not a prediction"),
        (Response(200, b"<html>"), "not a prediction"),
        (Response(503, b"{}"), "status 503"),
    ],
)
def test_any_other_answer_is_a_problem_that_says_what_it_is(response, problem):
    assert problem in one_user_each().problem(0, response)


def test_each_row_of_a_batch_is_compared_with_its_own_user():
    check = AnswerCheck(EXPECTED, [[0, 1, 2]])
    assert check.problem(0, answer([0.1, 0.2, 0.3])) is None
    assert "u2" in check.problem(0, answer([0.1, 0.2, 0.2]))


def test_a_unit_that_changes_its_version_is_a_problem():
    check = one_user_each()
    assert check.problem(1, answer([0.2])) is None
    assert "version 2 after version 1" in check.problem(1, answer([0.7], version="2"))


def test_units_are_counted_once_however_often_they_ask():
    check = one_user_each()
    for _ in range(3):
        check.problem(0, answer([0.1]))
        check.problem(1, answer([0.7], version="2"))
    assert check.units_by_version() == {"1": 1, "2": 1}


@pytest.mark.parametrize("treated", [850, 1_000, 1_150])
def test_a_share_within_chance_is_no_problem(treated):
    assert share_problem({"1": 10_000 - treated, "2": treated}, "2", 0.1) is None


@pytest.mark.parametrize("treated", [0, 840, 1_160, 10_000])
def test_a_share_beyond_chance_is_a_problem(treated):
    assert "the split says 10%" in share_problem({"1": 10_000 - treated, "2": treated}, "2", 0.1)


def test_one_lone_unit_of_the_small_arm_is_no_problem():
    assert share_problem({"2": 1}, "2", 0.1) is None
