"""Of a document from a file: what makes a new revision of it, and what an epoch."""

from typing import Any

import pytest

from experiments import parse_experiment

ABSENT = object()


def arm(name: str, version: Any, bp: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "bp": bp, **more}


REVISION_ONLY = [
    ("state", "paused"),
    ("enrol_bp", 9_999),
    ("overrides", {}),
    ("shadow", {"version": "4"}),
    ("guardrails", []),
    ("ramp", {"steps_bp": [200]}),
]
DECISIVE = [
    ("hash", "eppo"),
    ("salt", "8f3c"),
    ("layer", {"slots": [[0, 5_000]]}),
    ("layer", {"name": "page"}),
    ("holdout", {"name": "h", "bp": 500}),
    ("where", "age >= 19"),
    ("where", ABSENT),
    ("variants", [arm("control", "1", 9_000), arm("treatment", "3", 1_000)]),
    ("variants", [arm("control", "1", 8_000), arm("treatment", "2", 2_000)]),
    ("variants", [arm("base", "1", 9_000), arm("treatment", "2", 1_000)]),
    ("variants", [arm("treatment", "2", 1_000), arm("control", "1", 9_000)]),
    (
        "variants",
        [arm("control", "1", 9_000, ranges=[[1_000, 10_000]]), arm("treatment", "2", 1_000, ranges=[[0, 1_000]])],
    ),
]
SAID_OTHERWISE = [
    ("hash", "v1"),
    ("layer", ABSENT),
    ("layer", {}),
    ("layer", {"slots": [[5_000, 10_000], [0, 5_000]]}),
    ("holdout", None),
    ("salts", None),
    ("variants", [arm("control", 1, 9_000), arm("treatment", 2, 1_000)]),
    ("variants", [arm("control", "1", 9_000, ranges=None), arm("treatment", "2", 1_000)]),
    (
        "variants",
        [
            arm("control", "1", 9_000, ranges=[[0, 1], [1, 9_000]]),
            arm("treatment", "2", 1_000, ranges=[[9_000, 10_000]]),
        ],
    ),
]


def changed(document: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {k: v for k, v in (document | {key: value}).items() if v is not ABSENT}


@pytest.mark.parametrize(("key", "value"), [*REVISION_ONLY, *DECISIVE])
def test_every_change_is_a_new_revision(document: dict[str, Any], key: str, value: Any):
    assert parse_experiment(changed(document, key, value)).revision != parse_experiment(document).revision


@pytest.mark.parametrize(("key", "value"), REVISION_ONLY)
def test_what_decides_no_assignment_among_the_enrolled_is_no_new_epoch(document: dict[str, Any], key: str, value: Any):
    assert parse_experiment(changed(document, key, value)).epoch == parse_experiment(document).epoch


@pytest.mark.parametrize(("key", "value"), DECISIVE)
def test_what_decides_an_assignment_among_the_enrolled_is_a_new_epoch(document: dict[str, Any], key: str, value: Any):
    assert parse_experiment(changed(document, key, value)).epoch != parse_experiment(document).epoch


@pytest.mark.parametrize(("key", "value"), SAID_OTHERWISE)
def test_the_same_said_otherwise_is_no_new_epoch(document: dict[str, Any], key: str, value: Any):
    assert parse_experiment(changed(document, key, value)).epoch == parse_experiment(document).epoch


def test_eppos_own_salts_decide_as_any_salt_does(document: dict[str, Any]):
    default, same, other = (
        parse_experiment(document | {"hash": "eppo", "salts": salts}).epoch
        for salts in (
            None,
            {"enrol": "traffic-7f3c", "split": "split-7f3c"},
            {"enrol": "traffic-7f3c", "split": "split-8f3c"},
        )
    )
    assert default == same != other


def test_the_stores_revision_and_epoch_are_taken_where_they_are_given(document: dict[str, Any]):
    read = parse_experiment(document, revision=7, epoch=3)
    assert (read.revision, read.epoch) == (7, 3)
