from typing import Any

import pytest

from tests.unit.experiments_cli.conftest import Program
from tests.unit.experiments_cli.documents import document
from tests.unit.experiments_cli.fake_admin import FakeAdmin


def held(admin: FakeAdmin, name: str = "churn-q4") -> Any:
    return admin.register.entries[name].experiment


@pytest.mark.parametrize(("share", "bp"), [("5%", 500), ("500bp", 500), ("0.01%", 1), ("100%", 10_000), ("0%", 0)])
def test_a_share_is_percent_or_basis_points(admin: FakeAdmin, program: Program, share: str, bp: int):
    admin.put(document())
    assert program("ramp", "churn-q4", share).code == 0
    assert held(admin).enrol_bp == bp


@pytest.mark.parametrize(
    "share", ["5", "0.005%", "0.5bp", "101%", "-1%", "10001bp", "nan%", "1e9%", "%", "5 percent", ""]
)
def test_what_is_no_share_is_refused_with_how_one_is_written(admin: FakeAdmin, program: Program, share: str):
    done = program("ramp", "churn-q4", "--", share)
    assert done.code == 2
    assert "give a share from 0% to 100% as 5% or 500bp" in done.err
    assert admin.requests == []


def test_a_ramp_says_what_it_moves_and_who_signed_it(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("ramp", "churn-q4", "25%", "--reason", "held 10 %")
    assert done.code == 0
    assert done.out.splitlines() == [
        "churn-q4 is now revision 2:",
        "    enrol_bp: 1000 → 2500",
        "    moves 15 % of units",
        "Every gateway has revision 2.",
    ]
    assert (admin.trail[-1]["actor"], admin.trail[-1]["reason"]) == ("ben@laptop", "held 10 %")


def test_a_ramp_down_is_warned_of(admin: FakeAdmin, program: Program):
    admin.put(document())
    assert "warning: units leave the experiment" in program("ramp", "churn-q4", "5%").out


def test_a_share_that_is_in_force_already_writes_nothing(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("ramp", "churn-q4", "10%")
    assert (done.code, len(admin.trail)) == (0, 1)
    assert "nothing to do" in done.out
    assert program("ramp", "churn-q4", "10%", "--json").json["changed"] is False


def test_a_ramp_of_a_draft_says_when_the_share_counts(admin: FakeAdmin, program: Program):
    admin.put(document(state="draft"))
    assert "note: it is draft: the share counts once it runs" in program("ramp", "churn-q4", "5%").out


def test_stop_concludes_and_gives_the_winner_to_everybody(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("stop", "churn-q4", "--winner", "treatment")
    assert done.code == 0
    assert (held(admin).state, held(admin).winner.name) == ("concluded", "treatment")
    assert "moves 95 % of units" in done.out  # all but the tenth's half that has treatment already


def test_stop_without_a_winner_takes_an_earlier_one_back(admin: FakeAdmin, program: Program):
    admin.put(document(state="concluded", winner="treatment"))
    assert program("stop", "churn-q4").code == 0
    assert held(admin).winner is None


def test_a_winner_that_is_no_arm_is_refused_with_the_arms(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("stop", "churn-q4", "--winner", "third")
    assert done.code == 1
    assert "winner: 'third' is not one of the variants: control, treatment" in done.err
    assert held(admin).state == "running"


def test_a_pause_and_a_start_bring_everybody_back(admin: FakeAdmin, program: Program):
    admin.put(document())
    assert program("pause", "churn-q4").code == 0
    assert held(admin).state == "paused"
    begun = program("start", "churn-q4")
    assert (begun.code, "climbs anew" in begun.out) == (0, False)
    assert (held(admin).state, held(admin).salt) == ("running", "7f3c")


def test_what_is_concluded_starts_again_only_under_a_new_salt(admin: FakeAdmin, program: Program):
    admin.put(document(state="concluded", winner="treatment", enrol_bp=5_000, ramp={"steps_bp": [100, 5_000]}))
    refused = program("start", "churn-q4")
    assert (refused.code, held(admin).state) == (2, "concluded")
    assert "give --new-salt" in refused.err
    done = program("start", "churn-q4", "--new-salt")
    assert done.code == 0
    assert (held(admin).state, held(admin).winner) == ("running", None)
    assert held(admin).salt != "7f3c"
    assert "note: it begins at 50 %: `ramp churn-q4 1%` climbs anew" in done.out


def test_a_new_salt_while_it_runs_is_refused_by_the_gateway(admin: FakeAdmin, program: Program):
    admin.put(document())
    done = program("start", "churn-q4", "--new-salt")
    assert done.code == 1
    assert "salt: is immutable while an experiment runs" in done.err


def test_salts_of_another_system_are_not_replaced(admin: FakeAdmin, program: Program):
    admin.put(document(state="concluded", hash="eppo", salts={"enrol": "a", "split": "b"}))
    done = program("start", "churn-q4", "--new-salt")
    assert done.code == 2
    assert "change them in its file" in done.err


def test_a_dry_run_shows_everything_and_changes_nothing(admin: FakeAdmin, program: Program):
    admin.put(document())
    for arguments in (["ramp", "churn-q4", "25%"], ["stop", "churn-q4"], ["pause", "churn-q4"], ["kill", "churn"]):
        done = program(*arguments, "--dry-run")
        assert done.code == 0
        assert "A dry run: nothing was changed." in done.out
    assert len(admin.trail) == 1


def test_a_change_as_json_has_the_diff_and_what_it_moves(admin: FakeAdmin, program: Program):
    admin.put(document())
    found = program("ramp", "churn-q4", "25%", "--json").json
    assert found["diff"] == [{"key": "enrol_bp", "old": 1_000, "new": 2_500}]
    assert (found["changed"], found["revision"], found["units_moved_bp"]) == (True, 2, 1_500)
    assert (found["acknowledged"], found["document"]["enrol_bp"]) == (True, 2_500)


@pytest.mark.parametrize(("arguments", "killed"), [([], {"*"}), (["churn"], {"churn"})])
def test_a_kill_asks_and_takes_no_for_an_answer(
    admin: FakeAdmin, program: Program, arguments: list[str], killed: set[str]
):
    admin.put(document())
    no = program("kill", *arguments, answer="\n")
    assert (no.code, admin.register.killed) == (3, frozenset())
    assert "all units of churn-q4 get the default version" in no.out
    yes = program("kill", *arguments, answer="y\n")
    assert (yes.code, admin.register.killed) == (0, killed)
    assert "Switched off: " in yes.out


def test_a_kill_without_a_terminal_needs_yes(admin: FakeAdmin, program: Program):
    done = program("kill")
    assert (done.code, admin.register.killed) == (2, frozenset())
    assert "give --yes" in done.err
    assert program("kill", "--json").code == 2


def test_unkill_takes_back_and_tells_that_every_models_switch_is_another_one(admin: FakeAdmin, program: Program):
    admin.put(document())
    program("kill", "--yes")
    done = program("unkill", "churn", "--yes")
    assert admin.register.killed == {"*"}
    assert "`unkill` without a model" in done.err
    found = program("unkill", "--yes", "--json").json
    assert (found["killed"], found["acknowledged"]) == ([], True)
    assert admin.register.killed == frozenset()


def test_a_change_needs_a_reason(program: Program, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEKISHO_REASON")
    for arguments in (
        ["ramp", "e", "5%"],
        ["stop", "e"],
        ["pause", "e"],
        ["start", "e"],
        ["kill"],
        ["unkill"],
        ["apply", "x"],
    ):
        done = program(*arguments)
        assert done.code == 2
        assert "--reason is required (or set SEKISHO_REASON)" in done.err


def test_without_an_actor_the_login_name_and_host_sign(
    admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SEKISHO_ACTOR")
    monkeypatch.setattr("getpass.getuser", lambda: "carla")
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    admin.put(document())
    program("ramp", "churn-q4", "5%")
    assert admin.trail[-1]["actor"] == "carla@desk"


def test_a_user_without_a_name_signs_with_its_number(
    admin: FakeAdmin, program: Program, monkeypatch: pytest.MonkeyPatch
):
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("SEKISHO_ACTOR")
    monkeypatch.setattr("getpass.getuser", nobody)
    admin.put(document())
    assert program("ramp", "churn-q4", "5%").code == 0
    assert admin.trail[-1]["actor"].startswith("uid-")
