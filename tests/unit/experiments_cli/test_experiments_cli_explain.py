from collections.abc import Callable
from typing import Any

import pytest

from experiments import assign, parse_experiment
from experiments_cli.explain import explained
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

Write = Callable[..., str]


@pytest.mark.parametrize(
    ("changes", "arm", "why"),
    [
        ({"enrol_bp": 10_000}, "treatment", "drawn by the split"),
        ({"enrol_bp": 1_373}, "—", "not enrolled: bucket 1373 is not under 1373"),
        ({"state": "paused"}, "—", "the experiment does not run: it is paused"),
        ({"where": "age >= 18"}, "—", "`where` is not true of it, or not known to be"),
        ({"overrides": {"p7": "control"}}, "control", "listed in `overrides`; not counted"),
        ({"holdout": {"name": "global", "bp": 10_000}}, "—", "held out by 'global' (100 %)"),
        ({"layer": {"name": "l", "slots": [[0, 1]]}}, "—", "in a slot of layer 'l' beyond [0, 1)"),
        ({"state": "concluded", "winner": "control"}, "control", "the winner's arm"),
    ],
)
def test_every_reason_is_said_in_words_with_its_numbers(
    admin: FakeAdmin, program: Program, changes: dict[str, Any], arm: str, why: str
):
    admin.put(document(**changes))
    done = program("explain", "p7")
    assert done.code == 0
    row = done.out.splitlines()[1]
    assert row.split()[2] == arm
    assert why in row


def test_buckets_and_what_each_model_serves_are_shown(admin: FakeAdmin, program: Program):
    admin.put(document(enrol_bp=2_000))
    admin.put(document("fraud", model="fraud", state="draft"))
    lines = program("explain", "p7").out.splitlines()
    assert lines[1].split()[-2:] == ["1373", "9873"]
    assert lines[-2:] == [
        "churn serves p7 version 2: arm treatment of churn-q4 (drawn by the split)",
        "fraud serves p7 its default version (the experiment does not run)",
    ]


def test_a_model_and_attributes_are_asked_for(admin: FakeAdmin, program: Program):
    admin.put(document(where="age >= 18", enrol_bp=10_000))
    admin.put(document("fraud", model="fraud"))
    done = program("explain", "p7", "--model", "churn", "--attributes", '{"age": 34, "name": "é&x=1"}')
    assert "drawn by the split" in done.out
    assert "fraud" not in done.out


def test_files_explain_without_a_gateway(program: Program, file: Write):
    path = file(document(enrol_bp=10_000), document("a", state="draft"))
    done = program("explain", "p7", "--offline", path)
    assert done.code == 0
    assert "churn serves p7 version 2: arm treatment of churn-q4 (drawn by the split)" in done.out
    assert "ramps, the kill switch and changes that the files do not have are not known here" in done.err
    assert program.admin.requests == []


def test_files_and_gateway_give_the_same_decisions(admin: FakeAdmin, program: Program, file: Write):
    made = [document(enrol_bp=5_000), document("fraud", model="fraud", where="user != 'p3'")]
    for one in made:
        admin.put(one)
    path = file(*made)
    for unit in ("p7", "p3", "é", "a b&c"):
        asked, offline = (program("explain", unit, "--json", *more).json for more in ([], ["--offline", path]))
        for found in (asked, offline):
            for decision in found["decisions"]:
                del decision["revision"], decision["epoch"]
        assert asked == offline


def test_what_is_served_is_what_assign_says():
    experiments = [parse_experiment(document(n, salt=n, enrol_bp=5_000, layer={"name": n})) for n in ("a", "b", "c")]
    for i in range(200):
        unit = f"u{i}"
        found = explained(experiments, unit, model=None, attributes={}).serves["churn"]
        expected = assign(experiments, unit, {"user": unit})
        assert (found.variant, found.reason) == (
            expected.variant.name if expected.variant else None,
            expected.reason,
        )


def test_without_experiments_everybody_gets_the_default(program: Program):
    done = program("explain", "p7", "--model", "churn")
    assert done.out == "There are no experiments of model churn: every unit gets the default version.\n"


@pytest.mark.parametrize("attributes", ["", "[1]", "{", "7", '{"a": NaN}', '{"a": "' + "x" * 9_000 + '"}', "[" * 5_000])
def test_attributes_are_a_json_object_of_bounded_length(program: Program, attributes: str):
    done = program("explain", "p7", f"--attributes={attributes}")
    assert done.code == 2
    assert "give a JSON object of at most 8192 characters" in done.err


@pytest.mark.parametrize("unit", ["", "u" * 257])
def test_a_unit_has_a_bounded_length(program: Program, unit: str):
    assert program("explain", unit).code == 2
