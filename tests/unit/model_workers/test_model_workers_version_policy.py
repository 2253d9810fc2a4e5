import pytest

from model_workers.version_holds import VersionHolds
from model_workers.version_policy import ModelNameError, VersionPolicy, read_policy

VERSIONS = ["9", "10", "11", "v2"]


def selected(names=(), latest=None, model="churn", versions=VERSIONS):
    return read_policy(names, latest).select(model, versions)


def test_without_names_every_version_is_selected_in_natural_order():
    assert selected(versions=["10", "v2", "9"]) == ["v2", "9", "10"]


@pytest.mark.parametrize(("latest", "expected"), [(1, ["11"]), (2, ["10", "11"]), (9, ["v2", "9", "10", "11"])])
def test_latest_selects_the_highest_in_natural_order(latest, expected):
    assert selected(latest=latest) == expected


def test_a_named_version_is_selected_however_old_and_latest_does_not_touch_its_model():
    assert selected(["churn@9"], latest=1) == ["9"]
    assert selected(["churn@9", "churn@10"], latest=1) == ["9", "10"]


def test_a_model_that_is_named_with_and_without_a_version_gets_both():
    assert selected(["churn@9", "churn"], latest=1) == ["9", "11"]


def test_a_named_version_that_is_not_there_is_not_selected():
    assert selected(["churn@3"]) == []


def test_a_policy_covers_the_models_that_it_names_and_without_names_all():
    assert read_policy(["churn@1"], None).covers("churn")
    assert not read_policy(["churn@1"], None).covers("fraud")
    assert VersionPolicy().covers("fraud")


@pytest.mark.parametrize("text", ["", "@1", "churn@", "../churn", "churn@1@2", "churn@../1", "c" * 1_000])
def test_a_text_that_is_no_model_name_is_refused_shortly(text):
    with pytest.raises(ModelNameError) as refusal:
        read_policy([text], None)
    assert str(refusal.value).endswith("is no model: write NAME or NAME@VERSION")
    assert len(str(refusal.value)) < 400


def test_an_unloaded_version_stays_out_and_latest_counts_the_others():
    holds = VersionHolds()
    holds.unload("churn", "11")
    assert holds.select(VersionPolicy(latest=1), "churn", VERSIONS) == ["10"]
    holds.load("churn", "11")
    assert holds.select(VersionPolicy(latest=1), "churn", VERSIONS) == ["11"]


def test_a_version_that_was_loaded_by_name_stays_beside_what_the_policy_selects():
    holds = VersionHolds()
    holds.load("churn", "9")
    assert holds.select(VersionPolicy(latest=1), "churn", VERSIONS) == ["9", "11"]
    holds.unload("churn", "9")
    assert holds.select(VersionPolicy(latest=1), "churn", VERSIONS) == ["11"]


def test_an_unloaded_model_stays_out_with_whatever_is_published_later_until_it_is_loaded():
    holds = VersionHolds()
    holds.unload("churn", None)
    assert holds.select(VersionPolicy(), "churn", [*VERSIONS, "12"]) == []
    holds.load("churn", "10")
    assert holds.select(VersionPolicy(), "churn", VERSIONS) == ["10"]
    holds.load("churn", None)
    assert holds.select(VersionPolicy(latest=1), "churn", VERSIONS) == ["10", "11"]


def test_a_model_beyond_the_policy_that_was_loaded_is_covered():
    policy, holds = read_policy(["fraud"], 1), VersionHolds()
    assert not holds.covers(policy, "churn")
    holds.load("churn", None)
    assert holds.covers(policy, "churn")
    assert holds.select(policy, "churn", VERSIONS) == ["11"]


def test_holds_of_versions_that_are_gone_from_a_model_are_forgotten_but_not_those_of_a_model_that_is_not_there():
    holds = VersionHolds()
    holds.unload("churn", "9")
    holds.unload("fraud", "1")
    holds.forget_versions_not_in({"churn": ["10"]})
    assert holds.select(VersionPolicy(), "churn", ["9", "10"]) == ["9", "10"]
    assert holds.select(VersionPolicy(), "fraud", ["1", "2"]) == ["2"]


@pytest.mark.parametrize(
    ("names", "latest", "expected"),
    [
        ((), 1, ["10", "9", "v2"]),
        ((), 2, ["9", "v2"]),
        ((), 9, []),
        ((), None, []),
        (["churn"], 1, ["10", "9", "v2"]),
        (["churn@9"], 1, []),
        (["churn", "churn@10"], 1, ["9", "v2"]),
    ],
)
def test_what_lies_below_the_latest_may_stand_in_highest_first_but_never_for_a_named_version(names, latest, expected):
    assert read_policy(names, latest).stand_ins("churn", VERSIONS) == expected


def test_what_was_unloaded_does_not_stand_in():
    holds, policy = VersionHolds(), VersionPolicy(latest=1)
    holds.unload("churn", "10")
    assert holds.stand_ins(policy, "churn", VERSIONS) == ["9", "v2"]
    holds.unload("churn", None)
    assert holds.stand_ins(policy, "churn", VERSIONS) == []
