from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

Write = Callable[..., str]


def layer(first: int, end: int) -> dict[str, Any]:
    return {"layer": {"name": "default", "slots": [[first, end]]}}


def arms(*shares: int) -> dict[str, Any]:
    names = ("control", "treatment", "third")
    return {
        "variants": [
            {"name": name, "version": str(i + 1), "bp": bp}
            for i, (name, bp) in enumerate(zip(names, shares, strict=False))
        ]
    }


def test_where_nothing_differs_there_is_nothing_to_do(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    done = program("plan", file(document()))
    assert (done.code, done.out.splitlines()[-1]) == (0, "Nothing to do: 1 unchanged.")


def test_what_is_new_is_created_and_told_with_arms_and_share(program: Program, file: Write):
    path = file(document())
    done = program("plan", path)
    assert done.code == 3
    assert done.out.splitlines() == [
        f"+ churn-q4: create  ({path}:1)",
        "    churn by user, running, enrolment 10 %",
        "    control 50 % (1), treatment 50 % (2)",
        "    moves 10 % of units",
        "Plan: 1 to create, 0 to change, 0 to delete, 0 unchanged.",
    ]


def test_a_plan_changes_nothing(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    program("plan", file(document(enrol_bp=2_000), document("fraud", model="fraud")))
    assert len(admin.trail) == 1
    assert all("dry_run=true" in target for method, target, _ in admin.requests if method != "GET")


def test_a_change_is_told_key_by_key_with_whom_it_moves_and_who_changed_it_last(
    admin: FakeAdmin, program: Program, file: Write
):
    admin.put(document(), actor="ana@desk", reason="first try")
    path = file("# a comment\n\n" + yaml.safe_dump(document(salt=None, **arms(4_000, 5_000, 1_000)), sort_keys=False))
    done = program("plan", path)
    assert done.code == 3
    assert done.out.splitlines() == [
        f"~ churn-q4: change  ({path}:3)",
        "    variants.control.bp: 5000 → 4000",
        "    variants.control.ranges: (not there) → [[0, 4000]]",
        "    variants.treatment.ranges: (not there) → [[5000, 10000]]",
        '    variants.third: (not there) → {"version": "3", "bp": 1000, "ranges": [[4000, 5000]]}',
        "    moves 1 % of units; epoch 1 → 2",
        "    warning: epoch 2 begins: units that change arms carry over what they have seen in the other one",
        "    note: last changed by ana@desk at 2026-10-31T09:01:00Z: first try",
        "Plan: 0 to create, 1 to change, 0 to delete, 0 unchanged.",
    ]


def test_what_the_store_filled_in_is_no_difference(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document(salt=None))
    admin.put(document(salt=None, **arms(4_000, 5_000, 1_000)))
    assert "ranges" in str(admin.register.entries["churn-q4"].experiment.document)
    assert program("plan", file(document(salt=None, **arms(4_000, 5_000, 1_000)))).code == 0


def test_a_directory_is_read_whole_and_in_order(program: Program, file: Write, tmp_path: Path):
    file(document("b", **layer(0, 1)), document("c", **layer(1, 2)), name="2.yml")
    file(document("a", **layer(2, 3)), name="1.yaml")
    file("not: {yaml", name="notes.txt")
    found = program("plan", str(tmp_path), "--json").json
    assert [(step["experiment"], step["line"]) for step in found["steps"]] == [("a", 1), ("b", 1), ("c", 20)]


def test_a_directory_without_files_is_no_plan_to_delete_everything(admin: FakeAdmin, program: Program, tmp_path: Path):
    admin.put(document(state="draft"))
    done = program("plan", str(tmp_path), "--delete-missing")
    assert done.code == 2
    assert "a directory without *.yaml and *.yml files" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiment: e\nmodel: m\nunit: u\nvariants: []\n", ":4: variants: a list of 1 to 100 variants is expected"),
        ("experiment: e\nmodel: [\n", ": not YAML: "),
        ("- 1\n", ":1: Expected `object`, got `array`"),
        ("experiment: e\nexperiment: f\n", ":2: `experiment` was given already in line 1"),
        ("experiment: e\nmodle: m\n", ":2: modle: no such key; there are: enrol_bp, "),
        ("a: &a [*a]\n", ":1: an alias refers to itself"),
        (
            (
                "experiment: e\nmodel: m\nunit: u\nvariants:\n  - {name: a, version: '1', bp: 1}\n"
                "  - name: b\n    version: '1'\n    bp: 1.5\n"
            ),
            ":8: variants[1].bp: 1.5: a whole number of basis points",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_what_was_expected(
    program: Program, file: Write, text: str, said: str
):
    path = file(text)
    done = program("plan", path)
    assert done.code == 2
    assert f"sekisho-experiments: {path}:" in done.err
    assert said in done.err
    assert program.admin.requests == []


def test_every_wrong_document_is_told_not_only_the_first(program: Program, file: Write, tmp_path: Path):
    path = file(document("a", enrol_bp=-1), document("b"), document("c", salt="a/b"), name="1.yaml")
    file("[", name="2.yaml")
    done = program("plan", str(tmp_path))
    assert done.code == 2
    assert [line.split(":")[1].rpartition("/")[2] for line in done.err.splitlines()] == ["1.yaml", "1.yaml", "2.yaml"]
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    faults = program("plan", str(tmp_path), "--json").json["error"]["faults"]
    assert [lines[fault["line"] - 1] for fault in faults[:2]] == ["enrol_bp: -1", "salt: a/b"]


def test_a_file_that_is_not_there_is_told(program: Program, tmp_path: Path):
    done = program("plan", str(tmp_path / "absent.yaml"))
    assert done.code == 2
    assert "absent.yaml:1: cannot be read: No such file or directory" in done.err


def test_a_name_that_comes_twice_in_files_is_refused(program: Program, file: Write):
    done = program("plan", file(document(), document()))
    assert done.code == 2
    assert "'churn-q4' is defined twice" in done.err


def test_a_conflict_with_what_the_gateway_holds_is_told_with_the_files_line(
    admin: FakeAdmin, program: Program, file: Write
):
    admin.put(document("there"))
    path = file(document("new", salt="8f"))
    done = program("plan", path)
    assert done.code == 2
    assert f"{path}:1: layer: 'there' and 'new' overlap in layer 'default': give each its own slots" in done.err


def test_who_makes_room_goes_first_whatever_the_order_in_the_files(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document("old"))
    path = file(document("a-new", salt="8f", **layer(5_000, 10_000)), document("old", **layer(0, 5_000)))
    found = program("plan", path, "--json")
    assert found.code == 3
    assert [(step["experiment"], step["action"]) for step in found.json["steps"]] == [
        ("old", "change"),
        ("a-new", "create"),
    ]
    assert program("apply", path, "--yes").code == 0
    assert program("plan", path).code == 0


def test_a_swap_that_no_order_allows_is_told_with_the_way_out(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document("a", **layer(0, 5_000)))
    admin.put(document("b", **layer(5_000, 10_000)))
    done = program("plan", file(document("a", **layer(5_000, 10_000)), document("b", **layer(0, 5_000))))
    assert done.code == 2
    assert "in no order of single changes: pause one of them first" in done.err


def test_what_only_the_gateway_knows_is_told_with_the_files_line(program: Program, file: Write):
    path = file(document("x", state="draft"), document(**arms(5_000, 4_000, 1_000)))
    text = Path(path).read_text(encoding="utf-8").replace("'3'", "'9'")
    Path(path).write_text(text, encoding="utf-8")
    done = program("plan", path)
    assert done.code == 2
    line = text.splitlines().index("  version: '9'") + 1
    assert f"{path}:{line}: variants[2].version: '9' is not routed" in done.err


@pytest.mark.parametrize("state", ["draft", "concluded"])
def test_what_is_missing_is_deleted_where_that_is_asked_and_it_does_not_run(
    admin: FakeAdmin, program: Program, file: Write, state: str
):
    admin.put(document())
    admin.put(document("old", state=state))
    path = file(document())
    assert program("plan", path).code == 0
    done = program("plan", path, "--delete-missing")
    assert done.code == 3
    assert f"- old: delete\n    it is {state}\n    moves no unit\n" in done.out


@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_is_missing_and_lives_stays_and_is_told(admin: FakeAdmin, program: Program, file: Write, state: str):
    admin.put(document("old", state=state, **layer(0, 1)))
    done = program("plan", file(document(**layer(1, 2))), "--delete-missing")
    assert f"note: old is {state} and not in the files: it stays, until it is concluded" in done.out
    assert "0 to delete" in done.out


def test_enrolment_that_a_ramp_has_climbed_is_kept_where_the_file_does_not_say_it(
    admin: FakeAdmin, program: Program, file: Write
):
    ramp = {"ramp": {"steps_bp": [100, 1_000, 5_000]}}
    admin.put(document(enrol_bp=100, **ramp))
    admin.put(document(enrol_bp=5_000, **ramp), actor="sekisho", reason="ramp: 1000 bp held")
    assert program("plan", file(document(enrol_bp=None, **ramp))).code == 0
    changed = program("plan", file(document(enrol_bp=None, where="a == 1", **ramp)))
    assert "note: enrol_bp 5000 is kept: the ramp moves it" in changed.out
    assert "enrol_bp: 5000 → 100" in program("plan", file(document(enrol_bp=100, **ramp))).out


def test_what_was_concluded_meanwhile_is_not_started_again_by_a_file_that_still_says_running(
    admin: FakeAdmin, program: Program, file: Write
):
    admin.put(document(salt=None))
    admin.put(document(salt=None, state="concluded"), actor="sekisho", reason="rolled back: p99_ms of treatment")
    path = file(document(salt=None))
    done = program("plan", path)
    assert done.code == 2
    assert (
        f"{path}:4: state: it is concluded (`audit churn-q4` says by whom and why): to start it again, give it"
        in done.err
    )
    assert "in no order" not in done.err
    assert program("plan", file(document(salt="new"))).code == 3


def test_the_same_salt_again_is_refused_at_its_line(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    admin.put(document(state="concluded"))
    done = program("plan", file(document()))
    assert done.code == 2
    assert ":5: salt: an experiment that starts again needs a new salt" in done.err


def test_a_plan_as_json_has_every_step_and_its_diff(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    found = program("plan", file(document(enrol_bp=2_000)), "--json")
    assert found.code == 3
    step = found.json["steps"][0]
    assert (found.json["changes"], step["action"], step["units_moved_bp"], step["revision"]) == (1, "change", 1_000, 1)
    assert step["diff"] == [{"key": "enrol_bp", "old": 1_000, "new": 2_000}]


def test_a_gateway_with_files_of_its_own_is_compared_with_and_told(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    admin.from_files = True
    path = file(document(enrol_bp=2_000))
    planned = program("plan", path)
    assert planned.code == 3
    assert "note: the gateway was not asked whether it allows this" in planned.out
    applied = program("apply", path, "--yes")
    assert applied.code == 1
    assert "change those files, or start it without --experiments" in applied.err


def test_a_version_written_as_a_number_and_a_date_as_a_unit_survive_the_way(
    admin: FakeAdmin, program: Program, file: Write
):
    text = "experiment: e\nmodel: m\nunit: u\noverrides: {7: a}\nvariants:\n  - {name: a, version: 1, bp: 10000}\n"
    assert program("apply", file(text), "--yes").code == 0
    assert admin.register.entries["e"].experiment.overrides["7"].version == "1"
    assert program("plan", file(text)).code == 0


def test_a_plan_needs_a_path(program: Program):
    done = program("plan")
    assert done.code == 2
    assert "give the path of a YAML file" in done.err


def test_a_document_of_the_gateway_that_cannot_be_read_is_no_base_for_a_plan(
    admin: FakeAdmin, program: Program, file: Write
):
    admin.put(document())
    newer = admin.register.entries["churn-q4"].experiment.document
    assert isinstance(newer, dict)
    newer["quota"] = 7
    done = program("plan", file(document()))
    assert done.code == 1
    assert "holds 'churn-q4', whose document this program cannot read: it is older than the gateway" in done.err
