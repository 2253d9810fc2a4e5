"""The JSON Schema of experiments and the code that reads them are one rule in two languages."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments import ExperimentError, Hash, State, fields, guardrails, metrics, parse_experiment, variants
from experiments.definition import KEYS, OVERRIDES_MAX, SLOTS_MAX
from experiments.targeting import EXPRESSION_CHARACTERS_MAX

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "experiments" / "experiments.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# What a JSON Schema cannot say: of several values together, of a language within a string, or of Python's numbers,
# where 1.0 is no whole number. Each is a message of the code, by key.
BEYOND_A_SCHEMA = (
    r"variants: bp add up to",
    r"variants\[\d+\]\.name: '.*' is used twice",
    r"variants\[\d+\]\.ranges: (they hold|either all variants|\[.*\) overlaps another)",
    r".*\[\d+\]: .*(overlaps another range|\[first, end\) within)",
    r"where: ",
    r"overrides\.",
    r"winner: .* is not one of the variants",
    r"ramp\.steps_bp\[\d+\]: each step is larger",
    r"guardrails\[\d+\]\.metric: .* is guarded twice",
    r"metrics\.secondary\[\d+\]\.name: .* is used twice",
    r"salts\.(enrol|split): .* printable characters",
    r"salts\.split: is that of enrolment",
    r".*: -?\d+\.\d+(e[+-]?\d+)?: a whole number of",
    r".*version: \d+\.\d+(e[+-]?\d+)? is not a name",
)

RIGHT = {
    "experiment": "churn-q4",
    "model": "churn",
    "unit": "user",
    "state": "running",
    "hash": "v1",
    "salt": "7f3c",
    "layer": {"name": "default", "slots": [[0, 5_000], [6_000, 10_000]]},
    "holdout": {"name": "global", "bp": 500},
    "enrol_bp": 1_000,
    "where": "age >= 18",
    "variants": [
        {"name": "control", "version": "1", "bp": 9_000, "ranges": [[0, 9_000]]},
        {"name": "treatment", "version": 2, "bp": 1_000, "ranges": [[9_000, 10_000]]},
    ],
    "overrides": {"p7": "treatment"},
    "shadow": {"version": "3", "sample_bp": 500},
    "guardrails": [
        {"metric": "error_rate", "max_abs_increase": 0.01, "action": "rollback"},
        {"metric": "p99.9_ms", "max_rel_increase": 0.25},
    ],
    "ramp": {"steps_bp": [100, 1_000], "hold_s": 600, "requests_min": 10, "promote": True},
    "metrics": {
        "primary": "correct",
        "secondary": [
            {"name": "ctr", "numerator": "click", "denominator": "view", "better": "increase"},
            {"name": "spend", "of": "per_unit"},
            "latency_ms",
        ],
        "mde_rel": 0.02,
        "power": 0.8,
        "alpha": 0.05,
        "window_s": 3_600,
        "covariate_days": 14,
        "units_planned": 10_000,
    },
}
OTHERS: tuple[dict[str, Any], ...] = (
    {"hash": "eppo", "salts": {"enrol": "traffic 1", "split": "split-1"}},
    {
        "hash": "growthbook-v2",
        "variants": [{"name": "a", "version": "1", "bp": 10_000}],
        "guardrails": [],
        "ramp": None,
        "overrides": None,
    },
    {"state": "concluded", "winner": "control"},
    {
        "variants": [
            {"name": "treatment", "version": "1", "bp": 10_000},
            {"name": "b", "version": "1", "bp": 0, "ranges": None},
        ],
        "ramp": None,
    },
    dict.fromkeys(("layer", "holdout", "where", "overrides", "shadow", "guardrails", "ramp", "metrics", "winner")),
)
WORDS = (
    "draft",
    "concluded",
    "eppo",
    "growthbook-v2",
    "control",
    "a",
    "",
    "a/b",
    "error_rate",
    "p00_ms",
    "p50_ms",
    "score",
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 10_001) | st.sampled_from([0, 1, 50, 101, 10_000]),
    st.sampled_from([0.0, 1.0, 0.5, -0.5, 1e-7, 1e9, 2.5]),
    st.sampled_from([*WORDS, *(word.value for kind in (metrics.Of, metrics.Better) for word in kind), "n\n", "é"]),
    st.just([]),
    st.just({}),
    st.lists(st.lists(st.integers(-1, 10_001), min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(0, 10_000), max_size=4),
    st.fixed_dictionaries({"name": st.just("a"), "version": st.just("1"), "bp": st.integers(0, 10_000)}).map(
        lambda v: [v]
    ),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))]


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """A right document in which up to three places hold something else, or nothing, or a key too many."""
    made: Any = {**copy.deepcopy(RIGHT), **copy.deepcopy(draw(st.sampled_from([{}, *OTHERS])))}
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(paths(made)[1:] or [()]))
        if not path:
            break
        inside = made
        for key in path[:-1]:
            inside = inside[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if what == "replace":
            inside[path[-1]] = draw(VALUES)
        elif what == "remove":
            del inside[path[-1]]
        elif isinstance(inside, dict):
            key = draw(
                st.sampled_from([*KEYS, "of", "numerator", "denominator", "ranges", "max_abs_increase", "extra"])
            )
            inside[key] = draw(VALUES)
        else:
            inside.append(draw(VALUES))
    return made


def fault_of(document: Any) -> str | None:
    try:
        parse_experiment(document)
    except ExperimentError as error:
        return str(error)
    return None


def agree(document: Any) -> None:
    fault, says_no = fault_of(document), not VALIDATOR.is_valid(document)
    if fault is None:
        assert not says_no, f"the code reads it, the schema does not: {next(VALIDATOR.iter_errors(document)).message}"
    elif not says_no:
        assert any(re.match(rule, fault, re.DOTALL) for rule in BEYOND_A_SCHEMA), f"only the code refuses it: {fault}"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("changes", [{}, *OTHERS])
def test_right_documents_of_every_kind_are_right_to_both(changes: dict[str, Any]):
    document = RIGHT | changes
    assert (fault_of(document), VALIDATOR.is_valid(document)) == (None, True)


@given(documents())
@example(RIGHT | {"variants": []})
@settings(max_examples=400, deadline=None)
def test_code_and_schema_agree_on_a_document_but_for_the_rules_that_no_schema_can_say(document: Any):
    agree(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("experiment",), "e" * 128),
        (("experiment",), "e" * 129),
        (("experiment",), "e\n"),
        (("salt",), "s" * 64),
        (("salt",), "s" * 65),
        (("where",), "a" * EXPRESSION_CHARACTERS_MAX),
        (("where",), "a" * (EXPRESSION_CHARACTERS_MAX + 1)),
        (("layer", "slots"), [[i, i + 1] for i in range(SLOTS_MAX)]),
        (("layer", "slots"), [[i, i + 1] for i in range(SLOTS_MAX + 1)]),
        (("variants",), [{"name": f"v{i}", "version": "1", "bp": 100} for i in range(variants.VARIANTS_MAX)]),
        (("variants",), [{"name": f"v{i}", "version": "1", "bp": 0} for i in range(variants.VARIANTS_MAX + 1)]),
        (("overrides",), {str(i): "control" for i in range(OVERRIDES_MAX)}),
        (("overrides",), {str(i): "control" for i in range(OVERRIDES_MAX + 1)}),
        (
            ("guardrails",),
            [{"metric": f"p{10 + i}_ms", "max_abs_increase": 1} for i in range(guardrails.GUARDRAILS_MAX)],
        ),
        (("guardrails",), [{"metric": f"p{10 + i}_ms", "max_abs_increase": 1} for i in range(21)]),
        (("guardrails", 0), {"metric": "score_drift", "max_rel_increase": 0.1}),
        (("guardrails", 0), {"metric": "score_drift", "max_abs_increase": 0.1}),
        (("guardrails", 0), {"metric": "p00.01_ms", "max_abs_increase": 1e6}),
        (("guardrails", 0), {"metric": "p00.00_ms", "max_abs_increase": 1}),
        (("guardrails", 0), {"metric": "p99_ms", "max_abs_increase": 1.1e6}),
        (("guardrails", 0), {"metric": "p100_ms", "max_abs_increase": 1}),
        (("ramp", "steps_bp"), list(range(guardrails.STEPS_MAX))),
        (("ramp", "steps_bp"), list(range(guardrails.STEPS_MAX + 1))),
        (("ramp", "hold_s"), guardrails.HOLD_S_MAX),
        (("ramp", "hold_s"), guardrails.HOLD_S_MAX + 1),
        (("ramp", "requests_min"), guardrails.REQUESTS_MAX),
        (("ramp", "requests_min"), guardrails.REQUESTS_MAX + 1),
        (("metrics", "secondary"), [f"m{i}" for i in range(metrics.SECONDARY_MAX)]),
        (("metrics", "secondary"), [f"m{i}" for i in range(metrics.SECONDARY_MAX + 1)]),
        (("metrics", "window_s"), metrics.WINDOW_S_MAX),
        (("metrics", "window_s"), metrics.WINDOW_S_MAX + 1),
        (("metrics", "covariate_days"), metrics.COVARIATE_DAYS_MAX),
        (("metrics", "covariate_days"), metrics.COVARIATE_DAYS_MAX + 1),
        (("metrics", "units_planned"), metrics.UNITS_PLANNED_MAX),
        (("metrics", "units_planned"), metrics.UNITS_PLANNED_MAX + 1),
        (("metrics", "primary"), {"name": "a", "of": "per_unit", "numerator": "score"}),
        (("metrics", "primary"), {"name": "score", "of": "per_unit"}),
        (("metrics", "primary"), {"name": "score", "of": "per_unit", "numerator": "a"}),
        (("metrics", "primary"), {"name": "a", "numerator": "b", "denominator": "score"}),
        (("metrics", "primary"), {"name": "a", "denominator": "b"}),
        (("metrics", "primary"), {"name": "a", "of": "ratio"}),
        (("metrics", "primary"), {"name": "a", "of": None}),
    ],
)
def test_both_have_the_same_bounds(path: tuple[Any, ...], value: Any):
    document: Any = copy.deepcopy(RIGHT)
    document["ramp"]["promote"] = False
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    if path == ("variants",):
        document["overrides"] = None
    agree(document)


def test_the_schema_names_every_key_that_the_code_reads_and_no_other():
    assert set(SCHEMA["properties"]) == set(KEYS)
    plan = SCHEMA["properties"]["metrics"]["properties"]
    assert set(plan) == set(metrics._PLAN_KEYS)
    assert set(SCHEMA["$defs"]["metric"]["anyOf"][1]["properties"]) == set(metrics._METRIC_KEYS)
    assert set(SCHEMA["$defs"]["guardrail"]["properties"]) == set(guardrails._KEYS)


def test_defaults_and_words_are_those_of_the_code():
    top, plan = SCHEMA["properties"], SCHEMA["properties"]["metrics"]["properties"]
    assert top["state"]["enum"] == [state.value for state in State]
    assert top["hash"]["enum"] == [kind.value for kind in Hash]
    read = parse_experiment({key: RIGHT[key] for key in ("experiment", "model", "unit", "variants")})
    assert (top["state"]["default"], top["hash"]["default"]) == (read.state, read.hash)
    assert top["enrol_bp"]["default"] == read.enrol_bp
    assert top["layer"]["properties"]["name"]["default"] == read.layer
    assert top["layer"]["properties"]["slots"]["default"] == [list(pair) for pair in read.slots]
    ramp = guardrails.parse_ramp({"steps_bp": [1]})
    assert ramp is not None
    assert {key: top["ramp"]["properties"][key]["default"] for key in ("hold_s", "requests_min", "promote")} == {
        "hold_s": ramp.hold_s,
        "requests_min": ramp.requests_min,
        "promote": ramp.promote,
    }
    planned = metrics.parse_metrics({"primary": "a"})
    for key in ("mde_rel", "power", "alpha", "window_s", "covariate_days"):
        assert plan[key]["default"] == getattr(planned, key)
    assert SCHEMA["$defs"]["guardrail"]["properties"]["action"]["enum"] == [a.value for a in guardrails.Action]


def test_every_key_has_a_description_and_every_example_is_right():
    described, examples = [], []

    def walk(schema: Any, at: str) -> None:
        for key, inner in schema.get("properties", {}).items():
            if at.startswith("$then"):
                continue
            described.append((f"{at}.{key}", "description" in inner or "$ref" in inner))
            walk(inner, f"{at}.{key}")
        if "examples" in schema:
            examples.append((at, {**schema, "$defs": SCHEMA["$defs"]}, schema["examples"]))

    walk(SCHEMA, "")
    for name, schema in SCHEMA["$defs"].items():
        walk(schema, name)
        for choice in schema.get("anyOf", ()):
            walk(choice, name)
    assert [at for at, is_described in described if not is_described] == []
    assert len(examples) > 8
    for at, schema, values in examples:
        for value in values:
            assert jsonschema.Draft202012Validator(schema).is_valid(value), (at, value)


def test_the_documents_of_the_page_are_right_and_name_the_schema_for_editors():
    page = (ROOT / "docs" / "experiments-cli.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    found = re.search(r"# yaml-language-server: \$schema=(\S+)", blocks[0])
    assert found is not None
    assert found[1].endswith("experiments/experiments.schema.json")
    for block in blocks:
        for document in yaml.safe_load_all(block):
            assert (fault_of(document), VALIDATOR.is_valid(document)) == (None, True)


def test_a_name_is_bounded_as_in_the_code():
    pattern = SCHEMA["properties"]["experiment"]["pattern"]
    for text in ("a", "a.b-c_d", "-a", ".a", "a b", "", "a" * 128, "a" * 129, "a\n"):
        assert bool(re.search(pattern, text)) == bool(fields.NAME.match(text))
