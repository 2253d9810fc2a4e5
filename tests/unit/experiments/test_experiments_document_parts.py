"""The keys of a document beside the split itself: holdout, salts, ranges, shadow, guardrails, ramp, winner."""

from typing import Any

import pytest

from experiments import ExperimentError, Hash, parse_experiment
from experiments.guardrails import GUARDRAILS_MAX, STEPS_MAX, Action, Ramp
from experiments.variants import RANGES_MAX


def arms(*shares: int, **ranges: Any) -> list[dict[str, Any]]:
    names = ("control", "treatment", "other")
    return [
        {"name": name, "version": str(i + 1), "bp": bp} | ({"ranges": ranges[name]} if name in ranges else {})
        for i, (name, bp) in enumerate(zip(names, shares, strict=False))
    ]


def guarded(**changes: Any) -> list[dict[str, Any]]:
    entry = {"metric": "error_rate", "max_abs_increase": 0.01, "action": "rollback"} | changes
    return [{key: value for key, value in entry.items() if value is not None}]


WRONG: list[tuple[str, Any, str]] = [
    ("holdout", "h", "holdout"),
    ("holdout", {}, "holdout.name"),
    ("holdout", {"name": "h"}, "holdout.bp"),
    ("holdout", {"name": "a/b", "bp": 1}, "holdout.name"),
    ("holdout", {"name": "h", "bp": 10_001}, "holdout.bp"),
    ("holdout", {"name": "h", "bp": True}, "holdout.bp"),
    ("holdout", {"name": "h", "bp": 1, "unit": "user"}, "holdout.unit"),
    ("holdout", {"name": "h", "bp": 1, 7: 1}, "holdout.7"),
    ("salts", {"enrol": "a", "split": "b"}, "salts"),
    ("shadow", "3", "shadow"),
    ("shadow", {}, "shadow.version"),
    ("shadow", {"version": "../3"}, "shadow.version"),
    ("shadow", {"version": "3", "sample_bp": 10_001}, "shadow.sample_bp"),
    ("shadow", {"version": "3", "sample_bp": 0.5}, "shadow.sample_bp"),
    ("shadow", {"version": "3", "sample": 1}, "shadow.sample"),
    ("guardrails", {}, "guardrails"),
    ("guardrails", guarded() * (GUARDRAILS_MAX + 1), "guardrails"),
    ("guardrails", ["error_rate"], "guardrails[0]"),
    ("guardrails", guarded(metric=None), "guardrails[0].metric"),
    ("guardrails", guarded(metric="errors"), "guardrails[0].metric"),
    ("guardrails", guarded(metric=["error_rate"]), "guardrails[0].metric"),
    ("guardrails", guarded(metric="p00_ms"), "guardrails[0].metric"),
    ("guardrails", guarded(metric="p100_ms"), "guardrails[0].metric"),
    ("guardrails", guarded(metric="p9_ms"), "guardrails[0].metric"),
    ("guardrails", guarded(metric="p99.999_ms"), "guardrails[0].metric"),
    ("guardrails", guarded(metric="p99_ms\n"), "guardrails[0].metric"),
    ("guardrails", guarded(max_abs_increase=None), "guardrails[0]"),
    ("guardrails", guarded(max_rel_increase=0.1), "guardrails[0]"),
    ("guardrails", guarded(max_abs_increase=-0.01), "guardrails[0].max_abs_increase"),
    ("guardrails", guarded(max_abs_increase=True), "guardrails[0].max_abs_increase"),
    ("guardrails", guarded(max_abs_increase="1%"), "guardrails[0].max_abs_increase"),
    ("guardrails", guarded(max_abs_increase=float("nan")), "guardrails[0].max_abs_increase"),
    ("guardrails", guarded(max_abs_increase=float("inf")), "guardrails[0].max_abs_increase"),
    ("guardrails", guarded(metric="score_drift", max_abs_increase=None, max_rel_increase=0.1), ".max_rel_increase"),
    ("guardrails", guarded(action="stop"), "guardrails[0].action"),
    ("guardrails", guarded(action=["rollback"]), "guardrails[0].action"),
    ("guardrails", guarded(window_s=60), "guardrails[0].window_s"),
    ("guardrails", guarded() + guarded(max_abs_increase=0.02), "guardrails[1].metric"),
    ("ramp", [100], "ramp"),
    ("ramp", {}, "ramp.steps_bp"),
    ("ramp", {"steps_bp": []}, "ramp.steps_bp"),
    ("ramp", {"steps_bp": list(range(STEPS_MAX + 1))}, "ramp.steps_bp"),
    ("ramp", {"steps_bp": [100, "200"]}, "ramp.steps_bp[1]"),
    ("ramp", {"steps_bp": [100, 10_001]}, "ramp.steps_bp[1]"),
    ("ramp", {"steps_bp": [100, 100]}, "ramp.steps_bp[1]"),
    ("ramp", {"steps_bp": [100, 50]}, "ramp.steps_bp[1]"),
    ("ramp", {"steps_bp": [100], "hold_s": -1}, "ramp.hold_s"),
    ("ramp", {"steps_bp": [100], "hold_s": 1e9}, "ramp.hold_s"),
    ("ramp", {"steps_bp": [100], "hold_s": "10m"}, "ramp.hold_s"),
    ("ramp", {"steps_bp": [100], "requests_min": 0.5}, "ramp.requests_min"),
    ("ramp", {"steps_bp": [100], "requests_min": -1}, "ramp.requests_min"),
    ("ramp", {"steps_bp": [100], "promote": "yes"}, "ramp.promote"),
    ("ramp", {"steps_bp": [100], "promote": 1}, "ramp.promote"),
    ("ramp", {"steps_bp": [0], "promote": True}, "ramp.promote"),
    ("ramp", {"steps_bp": [100], "hold": 600}, "ramp.hold"),
    ("winner", "treatment", "winner"),
    ("winner", "nobody", "winner"),
    ("winner", ["treatment"], "winner"),
    ("variants", arms(9_000, 1_000, control=[[0, 9_000]]), "variants[1].ranges"),
    ("variants", arms(9_000, 1_000, treatment=[[0, 1_000]]), "variants[0].ranges"),
    ("variants", arms(9_000, 1_000, control=[[0, 9_000]], treatment=[[8_999, 9_999]]), "variants[1].ranges"),
    ("variants", arms(9_000, 1_000, control=[[0, 8_999]], treatment=[[9_000, 10_000]]), "variants[0].ranges"),
    ("variants", arms(9_000, 1_000, control=[[0, 9_000]], treatment=[[9_000, 10_001]]), "variants[1].ranges[0]"),
    ("variants", arms(9_000, 1_000, control=[[0, 9_000]], treatment=[[9_500, 10_000], [9_499, 9_999]]), "ranges[1]"),
    ("variants", arms(10_000, 0, control=[[0, 10_000]], treatment=[[0, 1]]), "variants[1].ranges"),
    ("variants", arms(9_000, 1_000, control=[], treatment=[[9_000, 10_000]]), "variants[0].ranges"),
    ("variants", arms(9_000, 1_000, control=[[i, i + 1] for i in range(RANGES_MAX + 1)]), "variants[0].ranges"),
]


@pytest.mark.parametrize(("key", "value", "at_fault"), WRONG)
def test_a_wrong_part_is_refused_with_the_key_at_fault(document: dict[str, Any], key: str, value: Any, at_fault: str):
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document | {key: value})
    assert caught.value.key.endswith(at_fault)
    assert caught.value.key.startswith(key)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("salts", "at_fault"),
    [
        ("ab", "salts"),
        ({"enrol": "a"}, "salts.split"),
        ({"enrol": "", "split": "b"}, "salts.enrol"),
        ({"enrol": "a\n", "split": "b"}, "salts.enrol"),
        ({"enrol": "a", "split": "\ud800"}, "salts.split"),
        ({"enrol": "a" * 257, "split": "b"}, "salts.enrol"),
        ({"enrol": "a", "split": 7}, "salts.split"),
        ({"enrol": "a", "split": "b", "layer": "c"}, "salts.layer"),
        ({"enrol": "a", "split": "a"}, "salts.split"),
    ],
)
def test_eppos_salts_are_two_printable_texts_that_differ(document: dict[str, Any], salts: Any, at_fault: str):
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document | {"hash": "eppo", "salts": salts})
    assert caught.value.key == at_fault


def test_growthbooks_ranges_cannot_be_given(document: dict[str, Any]):
    given = arms(9_000, 1_000, control=[[0, 9_000]], treatment=[[9_000, 10_000]])
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document | {"hash": Hash.GROWTHBOOK_V2.value, "variants": given})
    assert caught.value.key == "variants[0].ranges"


def test_ranges_that_are_given_are_the_arms_buckets(document: dict[str, Any]):
    given = arms(9_000, 1_000, control=[[500, 9_500]], treatment=[[0, 500], [9_500, 10_000]])
    read = parse_experiment(document | {"variants": given})
    assert [read.variant_at(bucket).name for bucket in (0, 499, 500, 9_499, 9_500, 9_999)] == [
        *("treatment", "treatment", "control"),
        *("control", "treatment", "treatment"),
    ]


def test_an_arm_without_a_share_has_no_range(document: dict[str, Any]):
    for given in (arms(10_000, 0), arms(10_000, 0, control=[[0, 10_000]], treatment=[])):
        assert parse_experiment(document | {"variants": given}).variants[1].ranges == ()


def test_as_many_ranges_as_an_arm_can_have_are_read(document: dict[str, Any]):
    even, odd = ([[i, i + 1] for i in range(first, 10_000, 2)] for first in (0, 1))
    assert len(even) == RANGES_MAX
    read = parse_experiment(document | {"variants": arms(5_000, 5_000, control=even, treatment=odd)})
    assert [read.variant_at(bucket).name for bucket in (0, 1, 9_998, 9_999)] == ["control", "treatment"] * 2


@pytest.mark.parametrize(
    ("names", "control"),
    [(("a", "b"), "a"), (("a", "control"), "control"), (("control", "a"), "control"), (("a", "Control"), "a")],
)
def test_control_is_the_arm_of_that_name_or_else_the_first(
    document: dict[str, Any], names: tuple[str, str], control: str
):
    variants = [{"name": name, "version": "1", "bp": 5_000} for name in names]
    assert parse_experiment(document | {"overrides": {}, "variants": variants}).control.name == control


def test_a_shadow_takes_every_unit_unless_it_says_otherwise(document: dict[str, Any]):
    shadow = parse_experiment(document | {"shadow": {"version": 3}}).shadow
    assert shadow is not None
    assert (shadow.version, shadow.sample_bp) == ("3", 10_000)


def test_a_ramp_begins_with_its_first_step_unless_the_enrolment_is_said(document: dict[str, Any]):
    ramp = {"steps_bp": [100, 1_000]}
    assert parse_experiment(document | {"ramp": ramp, "enrol_bp": 50}).enrol_bp == 50
    del document["enrol_bp"]
    read = parse_experiment(document | {"ramp": ramp})
    assert (read.enrol_bp, read.ramp) == (100, Ramp(steps_bp=(100, 1_000), hold_s=600, requests_min=100, promote=False))


@pytest.mark.parametrize(("enrol_bp", "step"), [(0, 100), (99, 100), (100, 1_000), (500, 1_000), (1_000, None)])
def test_the_next_step_is_the_first_that_is_larger(enrol_bp: int, step: int | None):
    assert Ramp(steps_bp=(100, 1_000), hold_s=0, requests_min=0, promote=False).after(enrol_bp) == step


@pytest.mark.parametrize(
    ("variants", "promotes"),
    [(arms(9_000, 1_000), True), (arms(9_000, 500, 500), False), (arms(10_000), False), (arms(10_000, 0), False)],
)
def test_a_ramp_promotes_only_one_treatment_that_somebody_gets(
    document: dict[str, Any], variants: list[dict[str, Any]], promotes: bool
):
    wanted = document | {"overrides": {}, "guardrails": [], "variants": variants}
    wanted["ramp"] = {"steps_bp": [100], "promote": True}
    if promotes:
        assert parse_experiment(wanted).ramp.promote
        return
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(wanted)
    assert caught.value.key == "ramp.promote"


@pytest.mark.parametrize(
    ("metric", "quantile"),
    [("p99_ms", 0.99), ("p50_ms", 0.5), ("p99.9_ms", 0.999), ("p01_ms", 0.01), ("error_rate", None)],
)
def test_a_latency_guardrail_has_its_quantile(document: dict[str, Any], metric: str, quantile: float | None):
    read = parse_experiment(document | {"guardrails": guarded(metric=metric)}).guardrails[0]
    assert read.quantile == (None if quantile is None else pytest.approx(quantile))


def test_a_guardrail_rolls_back_unless_it_says_otherwise(document: dict[str, Any]):
    read = parse_experiment(document | {"guardrails": guarded(action=None)}).guardrails[0]
    assert (read.action, read.max_abs_increase, read.max_rel_increase) == (Action.ROLLBACK, 0.01, None)


def test_guardrails_need_an_arm_beside_control(document: dict[str, Any]):
    alone = document | {"overrides": {}, "variants": arms(10_000), "guardrails": guarded()}
    with pytest.raises(ExperimentError, match="no arm to compare with control"):
        parse_experiment(alone)


def test_a_concluded_experiment_may_name_a_winner(document: dict[str, Any]):
    read = parse_experiment(document | {"state": "concluded", "winner": "treatment"})
    assert read.winner is read.variants[1]


@pytest.mark.parametrize("state", ["draft", "running", "paused"])
def test_an_experiment_that_is_not_concluded_has_no_winner(document: dict[str, Any], state: str):
    with pytest.raises(ExperimentError, match="once it is concluded"):
        parse_experiment(document | {"state": state, "winner": "treatment"})
