from typing import Any

import pytest

from experiments_cli.document_diff import differences
from experiments_cli.experiment_words import KEYS_SHOWN_MAX, change_lines


def arm(name: str, bp: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "bp": bp, **more}


def lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return change_lines(differences(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({"a": 1}, {}, ["a: 1 → (left out)"]),
        ({}, {"a": "x"}, ['a: (not there) → "x"']),
        ({"a": None}, {}, ["a: null → (left out)"]),
        ({"a": 1}, {"a": True}, ["a: 1 → true"]),
        ({"a": 1}, {"a": "1"}, ['a: 1 → "1"']),
        ({"a": 1}, {"a": 1.0}, ["a: 1 → 1.0"]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}, "d": 3}}, ["a.b.c: 1 → 2", "a.d: (not there) → 3"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] → [1, 3]"]),
        ({"a": {"b": 1}}, {"a": None}, ['a: {"b": 1} → null']),
        ({"a": 1, "b": 2}, {"b": 3, "a": 4}, ["a: 1 → 4", "b: 2 → 3"]),
    ],
)
def test_each_key_that_differs_is_told_old_to_new(old: dict[str, Any], new: dict[str, Any], said: list[str]):
    assert lines(old, new) == said


def test_arms_are_told_by_their_names_wherever_they_stand():
    old = {"variants": [arm("control", 5_000), arm("treatment", 5_000)]}
    new = {"variants": [arm("third", 1_000), arm("control", 4_000), arm("treatment", 5_000)]}
    assert lines(old, new) == [
        "variants.control.bp: 5000 → 4000",
        'variants.third: (not there) → {"version": "1", "bp": 1000}',
    ]


def test_another_order_of_arms_is_a_change():
    one, other = arm("a", 5_000), arm("b", 5_000)
    assert lines({"variants": [one, other]}, {"variants": [other, one]}) == [
        'variants (order): ["a", "b"] → ["b", "a"]'
    ]


def test_arms_that_have_no_names_of_their_own_are_told_whole():
    twice = [arm("a", 1), arm("a", 2)]
    assert lines({"variants": twice}, {"variants": [arm("a", 1)]})[0].startswith("variants: [{")
    assert lines({"variants": "x"}, {"variants": [7]}) == ['variants: "x" → [7]']


def test_guardrails_are_told_by_their_metric():
    old = {"guardrails": [{"metric": "p99_ms", "max_rel_increase": 0.25}]}
    new = {"guardrails": [{"metric": "p99_ms", "max_rel_increase": 0.5}]}
    assert lines(old, new) == ["guardrails.p99_ms.max_rel_increase: 0.25 → 0.5"]


def test_what_is_long_is_cut_for_people_and_whole_in_json():
    old, new = {"overrides": {}}, {"overrides": {f"u{i}": "control" for i in range(1_000)}}
    said = lines(old, new)
    assert len(said) == KEYS_SHOWN_MAX + 1
    assert said[-1] == "… and 960 further keys"
    assert len(differences(old, new)) == 1_000
    assert len(lines({"where": "a" * 5_000}, {"where": "b"})[0]) < 200
