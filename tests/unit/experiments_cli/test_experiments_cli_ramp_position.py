from datetime import UTC, datetime, timedelta
from typing import Any

from experiments import parse_experiment
from experiments_cli.admin_answers import AuditEntry
from experiments_cli.experiment_words import ramp_position
from tests.unit.experiments_cli.documents import document

START = datetime(2026, 10, 31, 9, tzinfo=UTC)
RAMP = {"ramp": {"steps_bp": [100, 1_000, 5_000], "hold_s": 600}}


def trail(*documents: dict[str, Any]) -> list[AuditEntry]:
    """Changes a minute apart, from the first document on; the newest first."""
    entries = []
    for index, (before, after) in enumerate(zip((None, *documents), documents, strict=False)):
        at = (START + timedelta(minutes=index)).isoformat()
        told: dict[str, Any] = {"id": f"{index}-0", "at": at, "actor": "ana", "reason": "r", "action": "put"}
        entries.append(AuditEntry(before=before, after=after, **told))
    return entries[::-1]


def words(experiment: dict[str, Any], *before: dict[str, Any], now: timedelta = timedelta(minutes=5)) -> str:
    position = ramp_position(parse_experiment(experiment), trail(*before, experiment))
    assert position is not None
    return position.words(START + now)


def test_the_next_step_comes_when_the_hold_since_the_last_step_is_over():
    first, second = document(enrol_bp=100, **RAMP), document(enrol_bp=1_000, **RAMP)
    assert words(second, first) == (
        "at 10 %; the next step is 50 %, in 6 min (2026-10-31T09:11:00Z) at the earliest, "
        "once each arm has had 100 requests at this step"
    )


def test_a_change_of_anything_else_begins_no_step():
    first = document(enrol_bp=100, **RAMP)
    assert "(2026-10-31T09:10:00Z)" in words({**first, "overrides": {"p7": "control"}}, first)


def test_a_change_of_state_or_of_weights_begins_the_step_anew():
    first = document(enrol_bp=100, **RAMP)
    for before in ({**first, "state": "paused"}, {**first, "salt": "8f"}):
        assert "(2026-10-31T09:11:00Z)" in words(first, before)


def test_a_hold_that_is_over_is_due():
    assert "due since 2026-10-31T09:10:00Z" in words(document(enrol_bp=100, **RAMP), now=timedelta(hours=1))


def test_the_last_step_has_no_next_one():
    assert words(document(enrol_bp=5_000, **RAMP)) == "at 50 %, its last step"


def test_what_does_not_run_does_not_climb():
    assert words(document(enrol_bp=100, state="paused", **RAMP)) == "at 1 %; the next step is 10 %, once it runs"


def test_without_a_trail_it_is_not_known_when():
    position = ramp_position(parse_experiment(document(enrol_bp=100, **RAMP)), [])
    assert position is not None
    assert "when its hold is over" in position.words(START)


def test_without_a_ramp_there_is_no_position():
    assert ramp_position(parse_experiment(document()), []) is None
