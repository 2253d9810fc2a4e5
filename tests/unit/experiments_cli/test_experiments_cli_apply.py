from collections.abc import Callable

import pytest

from experiments.register import Register
from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin

Write = Callable[..., str]


def test_the_plan_is_shown_and_asked_about_and_done(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    path = file(document(enrol_bp=2_000), document("fraud", model="fraud"))
    done = program("apply", path, "--reason", "more traffic", answer="y\n")
    assert done.code == 0
    assert done.err.startswith("Apply? [y/N] ")
    assert done.out.splitlines()[-4:] == [
        "Plan: 1 to create, 1 to change, 0 to delete, 0 unchanged.",
        "churn-q4: changed, revision 2, epoch 1",
        "fraud: created, revision 3, epoch 1",
        "Every gateway has revision 3.",
    ]
    assert [entry["reason"] for entry in admin.trail] == ["because", "more traffic", "more traffic"]


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "yes please\n"])
def test_whatever_is_no_yes_changes_nothing_and_leaves_changes_to_be_made(
    admin: FakeAdmin, program: Program, file: Write, answer: str
):
    done = program("apply", file(document()), answer=answer)
    assert (done.code, admin.trail) == (3, [])
    assert done.out.endswith("Nothing was changed.\n")


def test_without_a_terminal_yes_is_needed(admin: FakeAdmin, program: Program, file: Write):
    done = program("apply", file(document()))
    assert (done.code, admin.trail) == (2, [])
    assert "there is no terminal to ask on: give --yes" in done.err


def test_where_there_is_nothing_to_do_nobody_is_asked(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    path = file(document())
    assert program("apply", path).code == 0
    assert program("apply", path, "--json", "--yes").json["applied"] == []
    assert len(admin.trail) == 1


def test_what_is_missing_is_deleted_after_all_else(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document("old", state="concluded"))
    done = program("apply", file(document()), "--delete-missing", "--yes")
    assert done.code == 0
    assert [entry["action"] for entry in admin.trail] == ["put", "put", "delete"]
    assert set(admin.register.entries) == {"churn-q4"}


def test_what_changed_meanwhile_is_told_with_who_did_it_and_not_overwritten(
    admin: FakeAdmin, program: Program, file: Write
):
    admin.put(document())
    admin.before_write = lambda: admin.put(document(enrol_bp=7_000), actor="zoe@phone", reason="hotfix")
    done = program("apply", file(document(enrol_bp=2_000), document("fraud", model="fraud")), "--yes")
    assert done.code == 1
    assert admin.register.entries["churn-q4"].experiment.enrol_bp == 7_000
    assert (
        "churn-q4: not changed: 'churn-q4' was revision 1 and is now revision 2, by zoe@phone at "
        "2026-10-31T09:02:00Z (put: hotfix); nothing was overwritten: look at it, and plan again"
    ) in done.err
    assert "fraud: created" in done.out


def test_what_was_made_meanwhile_is_not_overwritten_either(admin: FakeAdmin, program: Program, file: Write):
    admin.before_write = lambda: admin.put(document(enrol_bp=7_000))
    done = program("apply", file(document()), "--yes")
    assert done.code == 1
    assert "'churn-q4' was not there and is now revision 1, by ana" in done.err
    assert admin.register.entries["churn-q4"].experiment.enrol_bp == 7_000


def test_what_was_deleted_meanwhile_does_not_come_back(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document(state="draft"))

    def gone() -> None:
        assert program("apply", file(document("other"), name="other.yaml"), "--delete-missing", "--yes").code == 0

    admin.before_write = gone
    done = program("apply", file(document(state="draft", enrol_bp=1)), "--yes")
    assert done.code == 1
    assert set(admin.register.entries) == {"other"}


def test_a_conflict_that_came_up_meanwhile_is_told_with_file_and_line(admin: FakeAdmin, program: Program, file: Write):
    admin.before_write = lambda: admin.put(document("other"))
    path = file(document())
    done = program("apply", path, "--yes")
    assert done.code == 1
    assert f"churn-q4: not created: {path}:1: layer: 'other' and 'churn-q4' overlap" in done.err
    admin.register = Register()
    admin.before_write = lambda: admin.put(document("other"))
    failed = program("apply", path, "--yes", "--json").json["failed"][0]
    assert (failed["file"], failed["line"], failed["field"]) == (path, 1, "layer")


def test_where_the_store_goes_away_what_was_not_tried_is_told(admin: FakeAdmin, program: Program, file: Write):
    path = file(document(), document("fraud", model="fraud"), document("spam", model="spam"))
    original = admin.answer
    calls = {"puts": 0}

    def failing(method: str, target: str, headers: dict[str, str], body: bytes) -> object:
        if method == "PUT" and "dry_run" not in target:
            calls["puts"] += 1
            admin.unavailable = calls["puts"] == 2
        return original(method, target, headers, body)

    admin.answer = failing  # type: ignore[method-assign,assignment]
    done = program("apply", path, "--yes", "--no-wait")
    assert done.code == 1
    assert "churn-q4: created" in done.out
    assert "fraud: not created: Redis does not answer (wait 1 s); the gateway cannot reach Redis" in done.err
    assert "not tried: spam" in done.err


def test_an_application_as_json_has_the_plan_and_what_became_of_it(admin: FakeAdmin, program: Program, file: Write):
    admin.put(document())
    admin.before_write = lambda: admin.put(document(enrol_bp=7_000))
    path = file(document(enrol_bp=2_000), document("fraud", model="fraud"))
    done = program("apply", path, "--json", "--yes")
    assert done.code == 1
    assert done.json["plan"]["changes"] == 2
    assert [step["experiment"] for step in done.json["applied"]] == ["fraud"]
    assert done.json["failed"][0] | {"message": ""} == {
        "experiment": "churn-q4",
        "message": "",
        "revision_read": 1,
        "revision": 2,
    }
    assert (done.json["not_tried"], done.json["acknowledged"]) == ([], True)


def test_json_asks_nobody(program: Program, file: Write):
    done = program("apply", file(document()), "--json", answer="y\n")
    assert done.code == 2
    assert "with --json nobody is asked: give --yes as well" in done.err
