import json
import math
from typing import Any

import pytest

from experiments import parse_experiment
from experiments.canary import (
    BINS_MAX,
    LATENCY_GROWTH,
    ArmCounts,
    Counts,
    Decision,
    Finding,
    bin_edge_ms,
    decide,
    latency_bin,
    look,
    score_bin,
)
from experiments.guardrails import ALPHA, Action
from experiments.register import Entry, Register, put

FINE = ArmCounts(requests=1_000, errors=2, fallbacks=1, latency={latency_bin(20_000): 1_000}, scores={0: 500, 9: 500})
GUARDRAILS = [
    {"metric": "error_rate", "max_abs_increase": 0.01},
    {"metric": "p99_ms", "max_rel_increase": 0.25},
    {"metric": "fallback_rate", "max_abs_increase": 0.01},
    {"metric": "score_drift", "max_abs_increase": 0.1},
]


def document(**changes: Any) -> dict[str, Any]:
    fixed = {
        "experiment": "e",
        "model": "m",
        "unit": "user",
        "state": "running",
        "enrol_bp": 100,
        "variants": [
            {"name": "treatment", "version": "2", "bp": 5_000},
            {"name": "control", "version": "1", "bp": 5_000},
        ],
        "guardrails": GUARDRAILS,
        "ramp": {"steps_bp": [100, 1_000], "hold_s": 60, "requests_min": 1_000},
    }
    return fixed | changes


def entry(since_us: int = 0, **changes: Any) -> Entry:
    return Entry(experiment=parse_experiment(document(**changes)), created_at_us=0, step_since_us=since_us)


def counted(enrol_bp: int = 100, **arms: ArmCounts) -> Counts:
    return {enrol_bp: {"control": FINE, "treatment": FINE} | arms}


def decided(found: Entry, counts: Counts, now_us: int = 60_000_000) -> Decision | None:
    return decide(found, counts, look(found.experiment, counts), now_us)


BAD = {
    "error_rate": ArmCounts(requests=1_000, errors=100),
    "fallback_rate": ArmCounts(requests=1_000, fallbacks=100),
    "p99_ms": ArmCounts(requests=1_000, latency={latency_bin(20_000): 900, latency_bin(50_000): 100}),
    "score_drift": ArmCounts(requests=1_000, scores={0: 50, 9: 950}),
}


@pytest.mark.parametrize("metric", BAD)
def test_each_guardrail_finds_what_it_guards_and_no_other_does(metric: str):
    bad = ArmCounts(requests=1_000, latency=FINE.latency, scores=FINE.scores)
    for part in ("errors", "fallbacks", "latency", "scores"):
        if getattr(BAD[metric], part):
            setattr(bad, part, getattr(BAD[metric], part))
    findings = look(entry().experiment, counted(treatment=bad))
    assert [finding.metric for finding in findings if finding.breached] == [metric]
    assert [finding.metric for finding in findings] == [guardrail["metric"] for guardrail in GUARDRAILS]


def test_equal_arms_breach_nothing():
    findings = look(entry().experiment, counted())
    assert not any(finding.breached for finding in findings)
    assert all(finding.evidence <= 1 for finding in findings)


def test_a_bad_control_breaches_nothing():
    for bad in BAD.values():
        slow = ArmCounts(requests=1_000, errors=bad.errors, fallbacks=bad.fallbacks, latency=bad.latency)
        assert not any(f.breached for f in look(entry().experiment, counted(control=slow)) if f.metric != "score_drift")


def test_a_finding_says_what_was_seen_and_what_is_allowed():
    found = look(entry().experiment, counted(treatment=BAD["error_rate"]))[0]
    assert (found.metric, found.variant, found.requests, found.action) == (
        *("error_rate", "treatment"),
        *(1_000, Action.ROLLBACK),
    )
    assert (found.control, found.treatment, found.allowed) == pytest.approx((0.002, 0.1, 0.012))
    assert str(found) == (
        "error_rate of treatment 0.1, of control 0.002, allowed 0.012; after 1000 requests to treatment"
    )


def test_a_latency_finding_has_the_quantiles_to_within_a_bin():
    found = look(entry().experiment, counted())[1]
    assert 20 <= found.control == found.treatment <= 20 * LATENCY_GROWTH
    assert found.allowed == pytest.approx(1.25 * found.control)


@pytest.mark.parametrize("metric", BAD)
def test_a_breach_has_evidence_of_at_least_its_share_of_alpha(metric: str):
    found = next(f for f in look(entry().experiment, counted(treatment=BAD[metric])) if f.metric == metric)
    assert found.breached
    assert found.evidence >= len(GUARDRAILS) / ALPHA * (1 - 1e-9)
    assert math.isfinite(found.evidence)


def test_alpha_is_shared_by_guardrails_and_treatments():
    def breached(guardrails: list[dict[str, Any]], treatments: int, errors: int) -> bool:
        names = ["control", *(f"t{i}" for i in range(treatments))]
        variants = [{"name": n, "version": "1", "bp": 10_000 if n == "control" else 0} for n in names]
        read = parse_experiment(document(variants=variants, guardrails=guardrails, ramp=None))
        arms = {"control": ArmCounts(requests=1_000), "t0": ArmCounts(requests=1_000, errors=errors)}
        return any(f.breached for f in look(read, {100: arms}))

    def first_breach(guardrails: list[dict[str, Any]], treatments: int) -> int:
        return next(errors for errors in range(1_000) if breached(guardrails, treatments, errors))

    alone = first_breach(GUARDRAILS[:1], 1)
    assert alone < first_breach(GUARDRAILS, 1) == first_breach(GUARDRAILS[:1], 4) < first_breach(GUARDRAILS, 4)


def test_counts_of_all_steps_are_judged_together():
    parts = [ArmCounts(requests=100, errors=10) for _ in range(10)]
    steps = {bp: {"control": ArmCounts(requests=100), "treatment": part} for bp, part in enumerate(parts)}
    once = look(entry().experiment, {100: {"control": ArmCounts(requests=1_000), "treatment": BAD["error_rate"]}})
    assert look(entry().experiment, steps)[0] == once[0]
    assert not look(entry().experiment, {0: steps[0]})[0].breached


@pytest.mark.parametrize("counts", [{}, {100: {}}, {100: {"treatment": BAD["error_rate"]}}, {100: {"control": FINE}}])
def test_an_arm_that_has_counted_nothing_yet_is_no_breach(counts: Counts):
    assert not any(f.breached for f in look(entry().experiment, counts) if f.metric != "score_drift")


def test_a_breach_rolls_back_and_says_why():
    decision = decided(entry(), counted(treatment=BAD["error_rate"]), now_us=0)
    assert decision is not None
    assert decision.document == document(state="concluded")
    assert decision.reason.startswith("rolled back: error_rate of treatment 0.1, of control 0.002")


def test_a_breach_that_only_alerts_changes_nothing():
    alerting = [guardrail | {"action": "alert"} for guardrail in GUARDRAILS]
    found = entry(guardrails=alerting)
    counts = counted(treatment=BAD["error_rate"])
    assert any(f.breached for f in look(found.experiment, counts))
    assert decided(found, counts, now_us=0) is None


def test_a_breach_comes_before_the_ramps_next_step():
    decision = decided(entry(), counted(treatment=BAD["p99_ms"]))
    assert decision is not None
    assert decision.document["state"] == "concluded"


@pytest.mark.parametrize(("held_us", "climbs"), [(0, False), (59_999_999, False), (60_000_000, True)])
def test_a_step_is_held_for_its_time(held_us: int, climbs: bool):
    decision = decided(entry(since_us=5), counted(), now_us=5 + held_us)
    assert (decision is not None) is climbs
    if decision is not None:
        assert decision.document == document(enrol_bp=1_000)
        assert decision.reason == "ramp: 100 bp held for 60 s; the next step is 1000 bp"


@pytest.mark.parametrize("arm", ["control", "treatment"])
def test_a_step_is_held_until_each_arm_has_its_requests(arm: str):
    few = ArmCounts(requests=999, latency=FINE.latency)
    assert decided(entry(), counted(**{arm: few})) is None
    assert decided(entry(), {100: {"control": FINE}}) is None
    assert decided(entry(), {}) is None


def test_only_requests_of_the_step_itself_count_for_it():
    counts = {100: counted()[100], 1_000: {"control": FINE, "treatment": ArmCounts(requests=999)}}
    assert (
        decided(entry(enrol_bp=1_000, ramp={"steps_bp": [100, 1_000, 2_000], "hold_s": 60}), {100: counts[100]}) is None
    )
    assert decided(entry(enrol_bp=1_000, ramp={"steps_bp": [100, 1_000, 2_000], "hold_s": 60}), counts) is not None


def test_a_step_of_nobody_is_held_for_its_time_alone():
    decision = decided(entry(enrol_bp=0, ramp={"steps_bp": [0, 100], "hold_s": 60}), {})
    assert decision is not None
    assert decision.document["enrol_bp"] == 100


def test_the_last_step_of_a_ramp_is_the_end_of_it():
    assert decided(entry(enrol_bp=1_000), counted(1_000)) is None


def test_after_the_last_step_the_treatment_is_promoted_where_the_ramp_says_so():
    ramp = {"steps_bp": [100, 1_000], "hold_s": 60, "promote": True}
    decision = decided(entry(enrol_bp=1_000, ramp=ramp), counted(1_000))
    assert decision is not None
    assert decision.document == document(enrol_bp=1_000, ramp=ramp, state="concluded", winner="treatment")
    assert decision.reason.startswith("promoted: ")


@pytest.mark.parametrize("state", ["draft", "paused", "concluded"])
def test_an_experiment_that_does_not_run_is_left_alone(state: str):
    assert decided(entry(state=state), counted(treatment=BAD["error_rate"])) is None


def test_an_experiment_without_a_ramp_is_left_alone_while_nothing_is_breached():
    assert decided(entry(ramp=None), counted()) is None


def test_a_decision_is_a_change_that_the_register_takes():
    register = put(Register(), document(ramp={"steps_bp": [100, 1_000], "hold_s": 60, "promote": True}), 0).register
    for now_us, enrol_bp, state in ((60_000_000, 1_000, "running"), (120_000_000, 1_000, "concluded")):
        found = register.entries["e"]
        decision = decided(found, counted(found.experiment.enrol_bp), now_us)
        assert decision is not None
        register = put(register, json.loads(json.dumps(decision.document)), now_us).register
        made = register.entries["e"].experiment
        assert (made.enrol_bp, made.state, made.epoch) == (enrol_bp, state, 1)
    assert made.winner is not None
    assert made.winner.name == "treatment"


def test_counts_are_added_to_counts():
    own = ArmCounts(requests=1, errors=1, latency={3: 1}, scores={-2: 1})
    own.add(ArmCounts(requests=2, fallbacks=1, latency={3: 1, 4: 1}, scores={0: 1}))
    assert own == ArmCounts(requests=3, errors=1, fallbacks=1, latency={3: 2, 4: 1}, scores={-2: 1, 0: 1})


@pytest.mark.parametrize("latency_us", [-5, 0, 1, 49, 50, 51, 1_000, 20_000, 999_999, 60_000_000, 10**12])
def test_a_latency_lies_in_the_bin_whose_edges_hold_it(latency_us: int):
    index = latency_bin(latency_us)
    assert index == BINS_MAX or latency_us / 1000 <= bin_edge_ms(index) * (1 + 1e-12)
    assert index == 0 or latency_us / 1000 > bin_edge_ms(index - 1) * (1 - 1e-12)


@pytest.mark.parametrize(
    "score", [0.0, -0.0, 5e-324, 0.5, 1.0, -1.0, 1e6, -1e6, 1e300, 1.7976931348623157e308, -1.7976931348623157e308]
)
def test_every_finite_score_has_a_bin(score: float):
    assert -BINS_MAX <= score_bin(score) <= BINS_MAX


def test_bins_of_scores_are_in_the_order_of_scores():
    scores = [-1e308, -1e9, -5.0, -1.0, -0.5, -0.01, 0.0, 0.001, 0.01, 0.5, 0.55, 1.0, 5.0, 1e9, 1e308]
    bins = [score_bin(score) for score in scores]
    assert bins == sorted(bins)
    assert bins[3] < bins[4] < bins[5] < bins[7] <= bins[8] < bins[9] < bins[10]


def test_a_finding_of_no_requests_can_be_told():
    finding = Finding(
        metric="error_rate",
        variant="treatment",
        breached=False,
        action=Action.ALERT,
        control=0.0,
        treatment=0.0,
        allowed=0.01,
        evidence=1.0,
        requests=0,
    )
    assert "after 0 requests" in str(finding)
