import re
from typing import Any

import pytest

from experiments import ExperimentError, Hash, State, parse_experiment
from experiments.definition import OVERRIDES_MAX, SLOTS_MAX
from experiments.variants import VARIANTS_MAX

ABSENT = object()
HUGE = 16**5_000
"""YAML has it, as 0x1000…; Python refuses to write it out in decimal digits."""


def arm(name: Any = "a", version: Any = "1", bp: Any = 10_000, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": version, "bp": bp, **more}


def test_a_whole_document_is_read(document: dict[str, Any]):
    read = parse_experiment(document)
    assert (read.name, read.model, read.unit, read.state, read.salt) == (
        "diagnosis-2026q4",
        "diagnosis",
        "patient",
        State.RUNNING,
        "7f3c",
    )
    assert (read.layer, read.slots, read.enrol_bp) == ("default", ((0, 10_000),), 10_000)
    assert [(v.name, v.version, v.bp, v.ranges) for v in read.variants] == [
        ("control", "1", 9_000, ((0, 9_000),)),
        ("treatment", "2", 1_000, ((9_000, 10_000),)),
    ]
    assert read.overrides == {"p7": read.variants[1]}
    assert read.document == document


def test_what_is_left_out_has_a_default_that_enrols_nobody():
    read = parse_experiment({"experiment": "e", "model": "m", "unit": "user", "variants": [arm()]})
    assert (read.state, read.layer, read.slots, read.enrol_bp) == (State.DRAFT, "default", ((0, 10_000),), 10_000)
    assert (read.where, read.overrides, read.hash) == (None, {}, Hash.V1)
    assert (read.holdout, read.shadow, read.winner, read.guardrails, read.ramp, read.metrics) == (
        *(None, None, None),
        *((), None, None),
    )


def test_a_salt_that_is_left_out_is_made_from_the_name_alone(document: dict[str, Any]):
    del document["salt"]
    salt = parse_experiment(document).salt
    assert salt == parse_experiment(document | {"enrol_bp": 1, "state": "draft"}).salt
    assert salt != parse_experiment(document | {"experiment": "another"}).salt


@pytest.mark.parametrize(
    ("key", "value", "at_fault"),
    [
        ("experiment", ABSENT, "experiment"),
        ("experiment", "", "experiment"),
        ("experiment", "../e", "experiment"),
        ("experiment", "e\n", "experiment"),
        ("experiment", 7, "experiment"),
        ("model", ABSENT, "model"),
        ("model", None, "model"),
        ("unit", ABSENT, "unit"),
        ("unit", ["user"], "unit"),
        ("state", "runing", "state"),
        ("state", None, "state"),
        ("state", ["running"], "state"),
        ("state", True, "state"),
        ("hash", "v2", "hash"),
        ("hash", None, "hash"),
        ("hash", "growthbook-v1", "hash"),
        ("hash", "growthbook", "hash"),
        ("hash", ["v1"], "hash"),
        ("salt", "", "salt"),
        ("salt", "a/b", "salt"),
        ("salt", "a b", "salt"),
        ("salt", "s" * 65, "salt"),
        ("salt", "7f3c\n", "salt"),
        ("salt", 7, "salt"),
        ("salt", None, "salt"),
        ("layer", "default", "layer"),
        ("layer", {"name": "default", "slot": []}, "layer.slot"),
        ("layer", {"name": "a/b"}, "layer.name"),
        ("layer", {"name": None}, "layer.name"),
        ("layer", {"slots": []}, "layer.slots"),
        ("layer", {"slots": None}, "layer.slots"),
        ("layer", {"slots": [[0, 1]] * (SLOTS_MAX + 1)}, "layer.slots"),
        ("layer", {"slots": [[0, 10_001]]}, "layer.slots[0]"),
        ("layer", {"slots": [[-1, 5]]}, "layer.slots[0]"),
        ("layer", {"slots": [[5, 5]]}, "layer.slots[0]"),
        ("layer", {"slots": [[0, 5], [7, 6]]}, "layer.slots[1]"),
        ("layer", {"slots": [[0, 5], [4, 6]]}, "layer.slots[1]"),
        ("layer", {"slots": [[0, True]]}, "layer.slots[0]"),
        ("layer", {"slots": [[0, 5.0]]}, "layer.slots[0]"),
        ("layer", {"slots": [[0, 5, 6]]}, "layer.slots[0]"),
        ("layer", {"slots": ["05"]}, "layer.slots[0]"),
        ("enrol_bp", -1, "enrol_bp"),
        ("enrol_bp", 10_001, "enrol_bp"),
        ("enrol_bp", True, "enrol_bp"),
        ("enrol_bp", 100.0, "enrol_bp"),
        ("enrol_bp", "100", "enrol_bp"),
        ("enrol_bp", None, "enrol_bp"),
        ("where", 7, "where"),
        ("where", ["age > 3"], "where"),
        ("where", "", "where"),
        ("where", "age.real > 3", "where"),
        ("variants", ABSENT, "variants"),
        ("variants", [], "variants"),
        ("variants", {"a": 1}, "variants"),
        ("variants", [arm(f"a{i}", bp=0) for i in range(VARIANTS_MAX + 1)], "variants"),
        ("variants", ["a"], "variants[0]"),
        ("variants", [{"name": "a", "version": "1"}], "variants[0]"),
        ("variants", [arm(weight=1)], "variants[0]"),
        ("variants", [arm(name="a b")], "variants[0].name"),
        ("variants", [arm(name=None)], "variants[0].name"),
        ("variants", [arm(bp=5_000), arm(version="2", bp=5_000)], "variants[1].name"),
        ("variants", [arm(version="../1")], "variants[0].version"),
        ("variants", [arm(version=True)], "variants[0].version"),
        ("variants", [arm(version=1.0)], "variants[0].version"),
        ("variants", [arm(version=-1)], "variants[0].version"),
        ("variants", [arm(version=[1])], "variants[0].version"),
        ("variants", [arm(bp=True)], "variants[0].bp"),
        ("variants", [arm(bp=10_001)], "variants[0].bp"),
        ("variants", [arm(bp="10000")], "variants[0].bp"),
        ("variants", [arm(bp=9_999)], "variants"),
        ("variants", [arm(bp=5_000), arm("b", bp=5_001)], "variants"),
        ("variants", [arm(bp=0)], "variants"),
        ("overrides", ["p7"], "overrides"),
        ("overrides", {str(i): "control" for i in range(OVERRIDES_MAX + 1)}, "overrides"),
        ("overrides", {"p7": "teatment"}, "overrides.p7"),
        ("overrides", {"p7": ["treatment"]}, "overrides.p7"),
        ("overrides", {"p7": None}, "overrides.p7"),
        ("overrides", {"": "treatment"}, "overrides.''"),
        ("overrides", {"\ud800": "treatment"}, "overrides.'\\ud800'"),
        ("overrides", {True: "treatment"}, "overrides.True"),
        ("overrides", {1.5: "treatment"}, "overrides.1.5"),
        ("overrides", {None: "treatment"}, "overrides.None"),
        ("overrides", {7: "control", "7": "treatment"}, "overrides.7"),
        ("enroll_bp", 100, "enroll_bp"),
        (7, 100, "7"),
    ],
)
def test_a_wrong_document_is_refused_with_the_key_at_fault(
    document: dict[str, Any], key: Any, value: Any, at_fault: str
):
    if value is ABSENT:
        del document[key]
    else:
        document[key] = value
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document)
    assert caught.value.key == at_fault
    assert str(caught.value) == f"{at_fault}: {caught.value.problem}"
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [None, [], "e", 7])
def test_what_is_no_document_is_refused(value: Any):
    with pytest.raises(ExperimentError, match="a document is a mapping"):
        parse_experiment(value)


def test_an_error_repeats_only_the_beginning_of_a_wrong_value(document: dict[str, Any]):
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document | {"salt": "/" * 1_000_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("at_fault", ["enrol_bp", "salt", "layer.name", "variants[0].version", "overrides."])
def test_a_number_of_thousands_of_digits_is_refused_with_its_key(document: dict[str, Any], at_fault: str):
    huge = {
        "enrol_bp": HUGE,
        "salt": HUGE,
        "layer": {"name": [HUGE]},
        "variants": [arm(version=HUGE)],
        "overrides": {HUGE: "treatment"},
    }
    key = re.match(r"\w+", at_fault)[0]
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(document | {key: huge[key]})
    assert caught.value.key.startswith(at_fault)
    assert len(str(caught.value)) < 300


def test_weights_that_do_not_add_up_are_told_with_their_sum(document: dict[str, Any]):
    document["variants"][0]["bp"] = 8_000
    with pytest.raises(ExperimentError, match="bp add up to 9000, not to 10000"):
        parse_experiment(document)


def test_a_version_written_as_a_number_is_its_decimal_text(document: dict[str, Any]):
    document["variants"][0]["version"] = 1
    assert parse_experiment(document).variants[0].version == "1"


def test_an_override_of_a_number_is_of_its_decimal_text(document: dict[str, Any]):
    document["overrides"] = {7: "treatment", "p8": "control"}
    assert {unit: v.name for unit, v in parse_experiment(document).overrides.items()} == {
        "7": "treatment",
        "p8": "control",
    }


def test_a_revision_does_not_depend_on_the_order_of_keys_be_they_numbers_or_texts(document: dict[str, Any]):
    document["overrides"] = {7: "treatment", "p8": "control"}
    turned = dict(reversed(document.items())) | {"overrides": {"p8": "control", 7: "treatment"}}
    assert parse_experiment(document).revision == parse_experiment(turned).revision


@pytest.mark.parametrize(
    ("weights", "bucket", "name"),
    [
        ([9_000, 1_000], 0, "v0"),
        ([9_000, 1_000], 8_999, "v0"),
        ([9_000, 1_000], 9_000, "v1"),
        ([9_000, 1_000], 9_999, "v1"),
        ([0, 10_000], 0, "v1"),
        ([10_000, 0], 9_999, "v0"),
        ([5_000, 0, 5_000], 4_999, "v0"),
        ([5_000, 0, 5_000], 5_000, "v2"),
        ([0, 0, 1, 9_999], 0, "v2"),
        ([0, 0, 1, 9_999], 1, "v3"),
    ],
)
def test_arms_take_half_open_ranges_in_their_order(weights: list[int], bucket: int, name: str):
    variants = [arm(f"v{i}", bp=bp) for i, bp in enumerate(weights)]
    read = parse_experiment({"experiment": "e", "model": "m", "unit": "user", "variants": variants})
    assert read.variant_at(bucket).name == name


def test_a_variant_is_found_by_its_name(document: dict[str, Any]):
    read = parse_experiment(document)
    assert read.variant_named("treatment") is read.variants[1]
    assert read.variant_named("nobody") is None


def test_guardrails_without_anything_to_compare_with_are_refused(document: dict[str, Any]):
    alone = document | {"variants": [arm("control", bp=0), arm("treatment", "2")], "overrides": {}}
    with pytest.raises(ExperimentError, match="control has no share"):
        parse_experiment(alone)
