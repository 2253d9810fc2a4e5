import json
from pathlib import Path

import pytest

from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin


def write_changes(admin: FakeAdmin, count: int) -> None:
    for i in range(count):
        admin.put(document(enrol_bp=i), actor=f"actor-{i}", reason=f"step {i}")


def test_an_empty_trail_says_so(program: Program):
    assert program("audit").out == "Nothing was changed yet.\n"


def test_the_newest_change_comes_first_with_who_why_and_what(admin: FakeAdmin, program: Program):
    admin.put(document(), actor="ana@desk", reason="begin")
    program("kill", "churn", "--yes", "--reason", "wrong scores")
    admin.put(document(enrol_bp=2_000), actor="zoe", reason="more")
    assert program("audit").out.splitlines() == [
        "2026-10-31T09:03:00Z  put churn-q4  by zoe, revision 3, epoch 1",
        "    more",
        "    enrol_bp: 1000 → 2000",
        "    moves 10 % of units",
        "2026-10-31T09:02:00Z  kill  by ben@laptop, revision 2",
        "    wrong scores",
        "2026-10-31T09:01:00Z  put churn-q4  by ana@desk, revision 1, epoch 1",
        "    begin",
        "    moves 10 % of units",
    ]


def test_a_limit_and_a_name_narrow_it(admin: FakeAdmin, program: Program):
    write_changes(admin, 5)
    admin.put(document("fraud", model="fraud"))
    entries = program("audit", "churn-q4", "--limit", "2", "--json").json["entries"]
    assert [entry["reason"] for entry in entries] == ["step 4", "step 3"]


def test_pages_are_read_until_there_are_enough(admin: FakeAdmin, program: Program):
    write_changes(admin, 9)
    admin.page_max = 2
    entries = program("audit", "--limit", "7", "--json").json["entries"]
    assert [entry["actor"] for entry in entries] == [f"actor-{i}" for i in range(8, 1, -1)]


def test_an_export_has_the_whole_trail_oldest_first_with_every_key_as_answered(
    admin: FakeAdmin, program: Program, tmp_path: Path
):
    write_changes(admin, 9)
    admin.trail[3]["from_the_future"] = {"a": [1]}
    admin.page_max = 2
    path = tmp_path / "trail.jsonl"
    done = program("audit", "--export", str(path))
    assert (done.code, done.out) == (0, f"{path}: 9 changes, the oldest first\n")
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == admin.trail
    assert program("audit", "--export", "-").out == path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["trail.jsonl"]


def test_an_export_that_fails_leaves_the_file_before_it(admin: FakeAdmin, program: Program, tmp_path: Path):
    path = tmp_path / "trail.jsonl"
    path.write_text("before\n")
    admin.unavailable = True
    assert program("audit", "--export", str(path)).code == 1
    assert path.read_text() == "before\n"
    admin.unavailable = False
    done = program("audit", "--export", str(tmp_path / "absent" / "trail.jsonl"))
    assert done.code == 1
    assert "No such file or directory" in done.err


def test_a_page_may_be_empty_and_still_not_the_last(
    admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch
):
    write_changes(admin, 3)
    original = admin._audit

    def audit(query: dict[str, str]) -> object:
        if "before" not in query:
            return {"entries": [], "next": "skipped"}
        return original({key: value for key, value in query.items() if value != "skipped"})

    monkeypatch.setattr(admin, "_audit", audit)
    assert len(program("audit", "--json").json["entries"]) == 3


def test_a_trail_that_goes_round_in_a_circle_ends(admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin, "_audit", lambda _query: {"entries": [], "next": "1-0"})
    done = program("audit")
    assert done.code == 1
    assert "the audit trail does not end" in done.err


def test_following_prints_what_was_there_and_then_each_change_once(
    admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch
):
    write_changes(admin, 3)
    admin.page_max = 2
    rounds = iter([0, 1, 0, 3])

    def sleep(_duration_s: float) -> None:
        following = next(rounds, None)
        if following is None:
            raise KeyboardInterrupt
        for _ in range(following):
            admin.put(document(enrol_bp=len(admin.trail) + 100), reason=f"change {len(admin.trail)}")

    monkeypatch.setattr("time.sleep", sleep)
    done = program("audit", "--follow", "--limit", "2", "--json")
    assert done.code == 130
    reasons = [json.loads(line)["reason"] for line in done.out.splitlines()]
    assert reasons == ["step 1", "step 2", "change 3", "change 4", "change 5", "change 6"]


def test_export_and_follow_are_two_things(program: Program):
    assert program("audit", "--follow", "--export", "x").code == 2
