import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from experiments import parse_experiment
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

GUARDED = {"guardrails": [{"metric": "p99_ms", "max_rel_increase": 0.25}]}


def finding(**changes: Any) -> dict[str, Any]:
    found = {"metric": "p99_ms", "variant": "treatment", "breached": False, "action": "rollback", "control": 3.0}
    return found | {"treatment": 3.2, "allowed": 3.75, "evidence": 1.0, "requests": 1_200} | changes


def test_a_list_of_nothing_says_how_to_begin(program: Program):
    done = program("list")
    assert done.code == 0
    assert "There are no experiments: write one" in done.out


def test_a_list_shows_model_state_arms_enrolment_epoch_and_revision(admin: FakeAdmin, program: Program):
    admin.put(document())
    admin.put(document("fraud", model="fraud", state="draft", enrol_bp=None))
    lines = program("list").out.splitlines()
    assert " ".join(lines[0].split()) == "name model state arms (version) enrolment epoch revision guardrails"
    assert "churn-q4  churn  running  control 50 % (1), treatment 50 % (2)  10 %" in lines[1]
    assert lines[1].split()[-2:] == ["1", "1"]
    assert "fraud     fraud  draft" in lines[2]


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, "no requests yet"),
        ({"arms": {"control": {"requests": 9}}}, "ok"),
        ({"arms": {"control": {"requests": 9}}, "findings": [finding()]}, "ok"),
        ({"findings": [finding(breached=True)]}, "BREACHED: p99_ms of treatment"),
    ],
)
def test_a_list_says_how_guardrails_stand(admin: FakeAdmin, program: Program, known: dict[str, Any], said: str):
    admin.put(document(**GUARDED))
    admin.guardrails["churn-q4"] = known
    assert program("list").out.splitlines()[1].strip().endswith(said)


@pytest.mark.parametrize(
    ("killed", "said", "states"),
    [
        ("*", "KILL SWITCH ON for every model", ["KILLED", "KILLED"]),
        ("churn", "KILL SWITCH ON for churn", ["KILLED", "running"]),
    ],
)
def test_a_killed_model_is_said_first_and_in_every_row(
    admin: FakeAdmin, program: Program, killed: str, said: str, states: list[str]
):
    admin.put(document())
    admin.put(document("fraud", model="fraud"))
    program("kill", *([] if killed == "*" else [killed]), "--yes")
    lines = program("list").out.splitlines()
    assert lines[0].startswith(said)
    assert [line.split()[2] for line in lines[2:]] == states


def test_a_list_as_json_has_documents_and_the_kill_switch(admin: FakeAdmin, program: Program):
    admin.put(document())
    found = program("list", "--json").json
    assert found["killed"] == []
    assert found["experiments"]["churn-q4"]["document"] == document()
    assert (found["experiments"]["churn-q4"]["revision"], found["experiments"]["churn-q4"]["epoch"]) == (1, 1)


def test_a_document_that_only_a_newer_program_can_read_hides_no_other(admin: FakeAdmin, program: Program):
    admin.put(document())
    newer = admin.register.entries["churn-q4"].experiment.document
    assert isinstance(newer, dict)
    newer["quota"] = 7
    admin.put(document("fraud", model="fraud"))
    done = program("list")
    assert done.code == 0
    assert "written by a newer gateway" in done.out
    assert "fraud     fraud  running" in done.out
    shown = program("show", "churn-q4")
    assert "cannot say more of this document" in shown.out
    assert yaml.safe_load(shown.out)["quota"] == 7


def test_what_is_shown_is_a_file_that_can_be_applied_again(
    admin: FakeAdmin, program: Program, file: Callable[..., str]
):
    admin.put(document(where="country == 'JP' or note == 'a: b'", overrides={"p7": "treatment"}, **GUARDED))
    shown = program("show", "churn-q4").out
    assert parse_experiment(yaml.safe_load(shown)).document == admin.register.entries["churn-q4"].experiment.document
    assert program("plan", file(shown)).code == 0


def test_what_is_shown_has_how_it_stands_in_comments(admin: FakeAdmin, program: Program):
    admin.put(document(**GUARDED))
    admin.guardrails["churn-q4"] = {
        "arms": {"control": {"requests": 1_201}, "treatment": {"requests": 1_200}},
        "findings": [finding()],
    }
    lines = [line for line in program("show", "churn-q4").out.splitlines() if line.startswith("#")]
    assert lines == [
        "# churn-q4: revision 1, epoch 1",
        "# churn by user, running, enrolment 10 %",
        "# arm control: version 1, 50 %, control, 1,201 requests in this epoch",
        "# arm treatment: version 2, 50 %, 1,200 requests in this epoch",
        "# guardrails: ok",
        "#   p99_ms of treatment: ok; 3.2, of control 3, allowed 3.75; after 1,200 requests",
    ]


def test_what_is_shown_of_a_killed_one_says_so(admin: FakeAdmin, program: Program):
    admin.put(document())
    program("kill", "--yes")
    assert (
        "# KILLED: the kill switch gives every unit of model churn the default version"
        in program("show", "churn-q4").out
    )


def test_a_winner_is_shown(admin: FakeAdmin, program: Program):
    admin.put(document(state="concluded", winner="treatment"))
    assert "# winner: treatment: every unit is given version 2" in program("show", "churn-q4").out
    assert "winner: treatment" in program("list").out


def test_a_shown_document_as_json_has_findings_and_the_ramps_position(admin: FakeAdmin, program: Program):
    admin.put(document(ramp={"steps_bp": [1_000, 5_000], "hold_s": 60}, **GUARDED))
    admin.guardrails["churn-q4"] = {"findings": [finding()]}
    found = program("show", "churn-q4", "--json").json
    assert found["guardrails"] == [finding()]
    assert found["ramp"]["next_bp"] == 5_000
    assert (found["killed"], found["document"]["experiment"]) == (False, "churn-q4")


def test_an_unknown_name_is_told_with_those_there_are(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("show", "churn-q3")
    assert done.code == 1
    assert done.err == "sekisho-experiments: no experiment 'churn-q3'; there are: churn-q4\n"


def test_the_schema_is_printed_whole(program: Program):
    found = json.loads(program("schema").out)
    assert (found["title"], found["$schema"]) == ("Experiment", "https://json-schema.org/draft/2020-12/schema")
