import pytest

from experiments.errors import ExperimentError
from experiments.metrics import SECONDARY_MAX, Better, Metric, Of, parse_metric, parse_metrics


def test_a_bare_name_is_a_mean_of_outcomes_of_which_more_is_better():
    plan = parse_metrics({"primary": "correct"})
    assert plan.primary == Metric(
        name="correct", of=Of.PER_OUTCOME, numerator="correct", denominator=None, better=Better.INCREASE
    )
    assert (plan.secondary, plan.mde_rel, plan.power, plan.alpha) == ((), 0.02, 0.8, 0.05)
    assert (plan.window_s, plan.covariate_days, plan.units_planned) == (604_800, 14, None)


def test_a_plan_is_read_as_it_was_written():
    plan = parse_metrics(
        {
            "primary": {"name": "spent", "of": "per_unit", "better": "decrease"},
            "secondary": ["purchase", {"name": "ctr", "numerator": "click", "denominator": "view"}],
            "mde_rel": 0.1,
            "power": 0.9,
            "alpha": 0.01,
            "window_s": 3600,
            "covariate_days": 0,
            "units_planned": 50_000,
        }
    )
    assert [metric.name for metric in plan.metrics] == ["spent", "purchase", "ctr"]
    assert (plan.primary.of, plan.primary.better) == (Of.PER_UNIT, Better.DECREASE)
    assert plan.metrics[2].outcomes == ("click", "view")
    assert (plan.mde_rel, plan.power, plan.alpha, plan.window_s) == (0.1, 0.9, 0.01, 3600)
    assert (plan.covariate_days, plan.units_planned) == (0, 50_000)


@pytest.mark.parametrize("name", ["latency_ms", "error_rate", "fallback_rate"])
def test_what_the_log_holds_of_cost_is_better_smaller_and_needs_no_outcome(name):
    metric = parse_metric(name, "m")
    assert (metric.logged, metric.outcomes, metric.better) == (True, (), Better.DECREASE)


def test_two_metrics_may_read_one_outcome_under_names_of_their_own():
    plan = parse_metrics(
        {"primary": "spent", "secondary": [{"name": "spent_by_unit", "of": "per_unit", "numerator": "spent"}]}
    )
    assert plan.secondary[0].outcomes == ("spent",)


@pytest.mark.parametrize(
    ("metrics", "key", "problem"),
    [
        ([], "metrics", "a mapping"),
        ({}, "metrics.primary", "is required"),
        ({"primary": "x", "goal": 1}, "metrics.goal", "no such key"),
        ({"primary": "9lives"}, "metrics.primary", "is not a name"),
        ({"primary": 7}, "metrics.primary", "a mapping"),
        ({"primary": {"of": "per_unit"}}, "metrics.primary.name", "is required"),
        ({"primary": {"name": "x", "per": "unit"}}, "metrics.primary.per", "no such key"),
        ({"primary": {"name": "x", "of": "per_row"}}, "metrics.primary.of", "one of per_outcome, per_unit, ratio"),
        ({"primary": {"name": "x", "better": "more"}}, "metrics.primary.better", "one of increase, decrease"),
        ({"primary": {"name": "x", "denominator": "y"}}, "metrics.primary.numerator", "is required"),
        ({"primary": {"name": "x", "of": "ratio"}}, "metrics.primary.denominator", "is required"),
        (
            {"primary": {"name": "x", "of": "per_unit", "numerator": "a", "denominator": "b"}},
            "metrics.primary.of",
            "leave `of` out",
        ),
        (
            {"primary": {"name": "x", "numerator": "a", "denominator": "latency_ms"}},
            "metrics.primary.denominator",
            "is no outcome",
        ),
        ({"primary": {"name": "score", "of": "per_unit"}}, "metrics.primary.of", "a mean over the logged rows"),
        ({"primary": "x", "secondary": "y"}, "metrics.secondary", "a list"),
        ({"primary": "x", "secondary": ["y"] * (SECONDARY_MAX + 1)}, "metrics.secondary", "at most 50"),
        ({"primary": "x", "secondary": ["y", "x"]}, "metrics.secondary[1].name", "used twice"),
        ({"primary": "x", "secondary": [{"name": "y", "of": 3}]}, "metrics.secondary[0].of", "one of"),
        ({"primary": "x", "mde_rel": 0}, "metrics.mde_rel", "a number from"),
        ({"primary": "x", "power": 1}, "metrics.power", "a number from"),
        ({"primary": "x", "alpha": True}, "metrics.alpha", "a number from"),
        ({"primary": "x", "window_s": 0.5}, "metrics.window_s", "a number from"),
        ({"primary": "x", "covariate_days": -1}, "metrics.covariate_days", "a number from"),
        ({"primary": "x", "units_planned": 1.5}, "metrics.units_planned", "a whole number of units"),
        ({"primary": "x", "mde_rel": float("nan")}, "metrics.mde_rel", "a number from"),
    ],
)
def test_a_wrong_plan_names_the_key_and_what_is_expected(metrics, key, problem):
    with pytest.raises(ExperimentError) as found:
        parse_metrics(metrics)
    assert found.value.key == key
    assert problem in found.value.problem
