import math

import pytest

from experiments import UNASSIGNED, Assignment, Experiment, Reason, assign, parse_experiment
from experiments.canary import ArmCounts, latency_bin, score_bin
from gateway.arm_counts import ArmCounter
from tests.unit.gateway.experiment_fakes import document
from tests.unit.gateway.gateway_fakes import HandClock

GUARDED = {"guardrails": [{"metric": "error_rate", "max_abs_increase": 0.01}]}


def experiment_of(**changed) -> Experiment:
    return parse_experiment(document(**{**GUARDED, **changed}), revision=1, epoch=1)


def drawn(experiment: Experiment, arm: str = "treatment") -> Assignment:
    """Draw some unit that is in an arm."""
    decisions = (assign((experiment,), f"u{n}", {}) for n in range(1_000))
    return next(d for d in decisions if d.variant is not None and d.variant.name == arm)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def counter(clock) -> ArmCounter:
    return ArmCounter(clock)


def answered(counter: ArmCounter, assignment: Assignment, score: object = 0.5, **said: bool) -> None:
    said = {"stepped_down": False, "degraded": False, **said}
    counter.answered(assignment, 1_500, [[score, 9.0]], **said)


def counted(counter: ArmCounter) -> dict[str, ArmCounts]:
    """Take what was counted, of the one experiment that there is."""
    taken = list(counter.take())
    assert len(taken) <= 1
    return taken[0][1] if taken else {}


def test_an_answer_is_a_request_of_its_arm_with_its_latency_and_its_first_score(counter):
    answered(counter, drawn(experiment_of()), -0.25)
    assert counted(counter) == {
        "treatment": ArmCounts(requests=1, latency={latency_bin(1_500): 1}, scores={score_bin(-0.25): 1})
    }


def test_an_answer_of_the_fallback_version_is_an_error_of_the_arm_and_its_score_is_none_of_the_arms(counter):
    answered(counter, drawn(experiment_of()), stepped_down=True, degraded=True)
    assert counted(counter)["treatment"] == ArmCounts(
        requests=1, errors=1, fallbacks=1, latency={latency_bin(1_500): 1}
    )


def test_a_default_of_a_feature_is_a_fallback_and_no_error(counter):
    answered(counter, drawn(experiment_of()), degraded=True)
    counts = counted(counter)["treatment"]
    assert (counts.requests, counts.errors, counts.fallbacks) == (1, 0, 1)


def test_a_request_without_an_answer_is_an_error_and_took_as_long_as_it_took(counter, clock):
    received_at = clock.now_s
    clock.now_s += 0.25
    counter.failed(drawn(experiment_of()), received_at)
    assert counted(counter)["treatment"] == ArmCounts(requests=1, errors=1, latency={latency_bin(250_000): 1})


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, "text", None, [1.0]])
def test_a_score_that_is_no_number_is_counted_as_none(counter, score):
    answered(counter, drawn(experiment_of()), score)
    assert counted(counter)["treatment"].scores == {}


@pytest.mark.parametrize("score", [0, True, 1e308, -1e308, 5e-324])
def test_every_finite_score_has_its_bin(counter, score):
    answered(counter, drawn(experiment_of()), score)
    assert sum(counted(counter)["treatment"].scores.values()) == 1


@pytest.mark.parametrize("outputs", [[], [[]]])
def test_an_answer_without_outputs_has_no_score(counter, outputs):
    counter.answered(drawn(experiment_of()), 10, outputs, stepped_down=False, degraded=False)
    assert counted(counter)["treatment"].scores == {}


@pytest.mark.parametrize(
    "assignment",
    [
        UNASSIGNED,
        drawn(experiment_of())._replace(reason=Reason.OVERRIDE),
        drawn(experiment_of())._replace(reason=Reason.FORCED),
        drawn(experiment_of())._replace(reason=Reason.WINNER),
        assign((experiment_of(enrol_bp=0),), "u1", {}),
        drawn(experiment_of(guardrails=None)),
    ],
    ids=["no experiment", "override", "forced", "winner", "not enrolled", "neither guardrails nor ramp"],
)
def test_what_is_not_drawn_or_not_watched_counts_nothing(counter, assignment):
    answered(counter, assignment)
    counter.failed(assignment, 0.0)
    assert counted(counter) == {}


def test_the_requests_of_a_ramp_are_counted_without_guardrails_too(counter):
    answered(counter, drawn(experiment_of(guardrails=None, ramp={"steps_bp": [10_000]})))
    assert counted(counter)["treatment"].requests == 1


def test_what_is_taken_is_not_taken_again(counter):
    answered(counter, drawn(experiment_of()))
    assert counted(counter)
    assert counted(counter) == {}


def test_each_revision_is_counted_for_itself(counter):
    before, after = experiment_of(enrol_bp=5_000), experiment_of()
    answered(counter, drawn(before))
    answered(counter, drawn(after))
    answered(counter, drawn(after))
    taken = [(experiment.enrol_bp, arms["treatment"].requests) for experiment, arms in counter.take()]
    assert taken == [(5_000, 1), (10_000, 2)]


def test_what_could_not_be_passed_on_is_counted_with_what_came_since(counter):
    experiment = experiment_of()
    answered(counter, drawn(experiment))
    taken = list(counter.take())
    answered(counter, drawn(experiment))
    answered(counter, drawn(experiment, "control"))
    counter.give_back(*taken[0])
    assert {name: arm.requests for name, arm in counted(counter).items()} == {"treatment": 2, "control": 1}
