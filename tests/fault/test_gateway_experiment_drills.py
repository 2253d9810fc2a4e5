"""Experiments edited, watched and rolled back by real processes under load, in the short form of two programs."""

from collections.abc import Iterator

import pytest

from tests.fault.canary_runs import ERRORS, MEDIAN, Canary, climb, climb_without_leader, roll_back
from tests.fault.drill import Timing
from tests.fault.experimenting_stack import FAILING, SLOW, ExperimentingStack
from tests.fault.split_edits import edit_under_load

pytestmark = pytest.mark.fault

IN_FORCE_MS_MAX = 1_000.0


@pytest.fixture(scope="module")
def experimenting(tmp_path_factory) -> Iterator[ExperimentingStack]:
    system = ExperimentingStack(tmp_path_factory.mktemp("experimenting"))
    try:
        system.start()
        yield system
    finally:
        system.stop()


def ramp(timing: Timing) -> dict[str, object]:
    steps_bp = [2_000, 10_000] if timing.mode == "fast" else [500, 2_000, 5_000, 10_000]
    hold_s = 0.4 if timing.mode == "fast" else 2.0
    return {"steps_bp": steps_bp, "hold_s": hold_s, "requests_min": 10, "promote": True}


def assert_climbed(canary: Canary, timing: Timing) -> None:
    assert (canary.document["state"], canary.document["winner"]) == ("concluded", "treatment")
    steps_bp = ramp(timing)["steps_bp"]
    assert isinstance(steps_bp, list)
    climbed = [f"the next step is {step} bp" for step in steps_bp[1:]]
    assert len(canary.decisions) == len(climbed) + 1, "each step is taken once, and there is one promotion"
    assert all(reason.endswith(step) for reason, step in zip(canary.decisions, climbed, strict=False))
    assert canary.decisions[-1].startswith("promoted: ")
    assert canary.callers.keys() == {"whole"}


def test_no_edit_of_two_writers_at_once_is_lost_or_late_and_every_row_follows_from_its_revision(experimenting, timing):
    fast = timing.mode == "fast"
    edits = edit_under_load(
        experimenting,
        edits=24 if fast else 100,
        pause_s=0.02 if fast else 0.05,
        before_s=timing.before_s,
        rate_per_s=60.0 if fast else 100.0,
    )
    print(edits)
    assert len(edits.answered) == (24 if fast else 100)
    assert edits.lost == []
    assert max(edits.propagation_ms) < IN_FORCE_MS_MAX
    assert not edits.failures
    assert (edits.rows, edits.unexplained) == (edits.asked, [])
    assert len(edits.rows_by_revision) > 1


def test_a_version_that_fails_three_rows_in_a_hundred_is_rolled_back_and_no_caller_has_an_error(experimenting, timing):
    fast = timing.mode == "fast"
    guardrail = {**ERRORS, "max_abs_increase": 0.002} if fast else ERRORS
    canary = roll_back(experimenting, FAILING, guardrail, 400.0 if fast else 200.0)
    print(canary)
    assert (canary.document["state"], "winner" in canary.document) == ("concluded", False)
    (reason,) = canary.decisions
    assert reason.startswith("rolled back: error_rate of treatment ")
    assert canary.noticed == {}
    assert canary.callers["variant_fallback"] > 0


def test_a_version_that_takes_twice_as_long_is_rolled_back(experimenting, timing):
    canary = roll_back(experimenting, SLOW, MEDIAN, 200.0)
    print(canary)
    assert (canary.document["state"], "winner" in canary.document) == ("concluded", False)
    (reason,) = canary.decisions
    assert reason.startswith("rolled back: p50_ms of treatment ")
    assert canary.callers.keys() == {"whole"}


def test_a_version_that_is_as_good_climbs_its_ramp_step_by_step_and_is_promoted(experimenting, timing):
    canary = climb(experimenting, ramp(timing), 200.0)
    print(canary)
    assert_climbed(canary, timing)


def test_where_the_gateway_that_watches_is_killed_the_other_one_goes_on_up_the_ramp(experimenting, timing):
    canary = climb_without_leader(experimenting, ramp(timing), 200.0)
    print(canary)
    assert_climbed(canary, timing)
    assert canary.took_over_s is not None
