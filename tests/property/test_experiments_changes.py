"""Whom a change moves: counted unit by unit, and no more of them than arithmetic asks for."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import Experiment, State, buckets, changes, definition, fields, growthbook, parse_experiment, variants
from experiments.assignment import assign_one
from experiments.changes import least_moving_ranges, share_moved, with_ranges
from experiments.variants import NOBODY, RANGES_MAX, Variant, ranges_in_turn

BUCKETS = buckets.BUCKETS
FEW = 3
"""Buckets, where every combination of every draw is tried."""

FALSE_ALARM = 1e-6
"""Of one comparison; the seeds are fixed, so that a run that passes passes again."""

UNITS = [f"user-{i}" for i in range(20_000)]
EPPO_SALTS = [None, {"enrol": "t", "split": "s"}, {"enrol": "t", "split": "s2"}, {"enrol": "t2", "split": "s"}]


@contextmanager
def few_buckets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (buckets, changes, definition, fields, growthbook, variants):
            patch.setattr(module, "BUCKETS", FEW)
        patch.setattr(changes, "_NOTHING", bytes([NOBODY]) * FEW)
        yield


def cut(chance: random.Random, total: int, parts: int) -> list[int]:
    edges = [0, *sorted(chance.randint(0, total) for _ in range(parts - 1)), total]
    return [end - first for first, end in pairwise(edges)]


def some_ranges(chance: random.Random, shares: list[int], total: int) -> list[list[list[int]]]:
    """Share the buckets out in pieces: each arm gets its number of them, from anywhere."""
    size = max(1, total // 20)
    pieces = [[first, min(total, first + size)] for first in range(0, total, size)]
    chance.shuffle(pieces)
    found: list[list[list[int]]] = []
    for share in shares:
        own: list[list[int]] = []
        while (missing := share - sum(end - first for first, end in own)) > 0:
            first, end = pieces.pop()
            taken = min(missing, end - first)
            own.append([first, first + taken])
            if first + taken < end:
                pieces.append([first + taken, end])
        found.append(own)
    return found


def some_document(chance: random.Random, total: int) -> dict[str, Any]:
    names = chance.sample("abc", chance.choice([1, 2, 2, 3]))
    shares = cut(chance, total, len(names))
    document: dict[str, Any] = {
        "experiment": "e",
        "model": "m",
        "unit": "user",
        "hash": chance.choice(["v1", "v1", "growthbook-v2", "eppo"]),
        "salt": chance.choice(["s1", "s1", "s2"]),
        "state": chance.choice(["running"] * 6 + ["draft", "paused", "concluded", "concluded"]),
        "enrol_bp": chance.choice([0, total, chance.randint(0, total)]),
        "variants": [{"name": name, "version": "1", "bp": bp} for name, bp in zip(names, shares, strict=True)],
    }
    if document["state"] == "concluded" and chance.random() < 0.8:
        document["winner"] = chance.choice(names)
    if document["hash"] == "eppo":
        document["salts"] = chance.choice(EPPO_SALTS)
    if document["hash"] != "growthbook-v2" and chance.random() < 0.5:
        document = with_ranges(document, some_ranges(chance, shares, total))
    if chance.random() < 0.5:
        first, end = sorted(chance.sample(range(total + 1), 2))
        document["layer"] = {"name": chance.choice(["page", "page", "box"]), "slots": [[first, end]]}
    if chance.random() < 0.5:
        document["holdout"] = {"name": chance.choice(["h", "h", "g"]), "bp": chance.randint(0, total)}
    return document


def two_documents(chance: random.Random, total: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two that have much in common, as a change has, or nothing."""
    one, other = some_document(chance, total), some_document(chance, total)
    if chance.random() < 0.7:
        kept = chance.sample(["layer", "holdout", "enrol_bp", "draw", "variants"], 3)
        for key in [k for k in kept if k not in ("draw", "variants")]:
            other.pop(key, None)
            other |= {key: one[key]} if key in one else {}
        if "draw" in kept and (one["hash"] != "growthbook-v2" or "ranges" not in other["variants"][0]):
            other.pop("salts", None)
            other |= {key: one[key] for key in ("hash", "salt", "salts") if key in one}
        if "variants" in kept and (other["hash"] != "growthbook-v2" or "ranges" not in one["variants"][0]):
            other |= {"variants": one["variants"], "state": one["state"]}
            other.pop("winner", None)
            other |= {"winner": one["winner"]} if "winner" in one else {}
    return one, other


def arm_of(experiment: Experiment | None, unit: str) -> str | None:
    variant = assign_one(experiment, unit, {}).variant if experiment is not None else None
    return None if variant is None else variant.name


def counted_share(before: Experiment | None, after: Experiment | None) -> Fraction:
    """Try every combination of the buckets of every draw: those of equal draws are equal, all others independent."""
    at: dict[Any, int] = {}

    def drawn_by(experiment: Experiment) -> Experiment:
        enrol, split = ((experiment.hash, experiment.hash == "v1" and kind, experiment.salts[kind]) for kind in (0, 1))
        layer, holdout = ("layer", experiment.layer), experiment.holdout and ("holdout", experiment.holdout.name)
        at.update(dict.fromkeys([enrol, split, layer, *([holdout] if holdout else [])], 0))

        def draw(key: Any) -> buckets.Draw:
            return lambda _: at[key]

        return replace(
            experiment,
            enrol=draw(enrol),
            split=draw(split),
            layer_draw=experiment.layer_draw and draw(layer),
            holdout_draw=experiment.holdout_draw and draw(holdout),
        )

    one, other = (experiment and drawn_by(experiment) for experiment in (before, after))
    moved = 0
    for combination in product(range(FEW), repeat=len(at)):
        at.update(zip(at, combination, strict=True))
        moved += arm_of(one, "u") != arm_of(other, "u")
    return Fraction(moved, FEW ** len(at))


@pytest.mark.parametrize("group", range(8))
def test_the_share_moved_is_exactly_that_counted_over_every_combination_of_buckets(group: int):
    with few_buckets():
        for seed in range(group * 25, group * 25 + 25):
            documents = two_documents(random.Random(seed), FEW)
            before, after = map(parse_experiment, documents)
            assert share_moved(before, after) == counted_share(before, after), (seed, documents)


@pytest.mark.parametrize("group", range(4))
def test_the_share_that_a_new_or_a_deleted_experiment_moves_is_exactly_that_counted(group: int):
    with few_buckets():
        for seed in range(group * 25, group * 25 + 25):
            only = parse_experiment(some_document(random.Random(seed), FEW))
            counted = counted_share(None, only)
            assert share_moved(None, only) == share_moved(only, None) == counted, (seed, only.document)


@pytest.mark.parametrize("seed", range(30))
def test_the_share_moved_is_that_of_20_000_units_within_binomial_bounds(seed: int):
    before, after = map(parse_experiment, two_documents(random.Random(seed), BUCKETS))
    moved = sum(arm_of(before, unit) != arm_of(after, unit) for unit in UNITS)
    assert stats.binomtest(moved, len(UNITS), float(share_moved(before, after))).pvalue > FALSE_ALARM


def test_no_experiment_before_and_after_moves_nobody():
    assert share_moved(None, None) == 0


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_moving_there_and_back_moves_the_same_share_and_staying_moves_nobody(seed: int):
    before, after = map(parse_experiment, two_documents(random.Random(seed), BUCKETS))
    assert share_moved(before, after) == share_moved(after, before)
    assert 0 <= share_moved(before, after) <= 1
    assert share_moved(before, before) == 0


@pytest.mark.parametrize("state", [state for state in State if state is not State.RUNNING])
def test_a_change_of_what_assigns_nobody_moves_nobody(state: State):
    chance = random.Random(state)
    one, other = (parse_experiment(some_document(chance, BUCKETS) | {"state": state, "winner": None}) for _ in "ab")
    assert share_moved(one, other) == 0


def shares_of(chance: random.Random, names: list[str]) -> list[tuple[str, int]]:
    return list(zip(names, cut(chance, BUCKETS, len(names)), strict=True))


def arms_of(wanted: list[tuple[str, int]], ranges: list[fields.Ranges]) -> list[Variant]:
    return [Variant(name, "1", bp, own) for (name, bp), own in zip(wanted, ranges, strict=True)]


def owners(arms: list[Variant]) -> list[str | None]:
    """Name the arm of each bucket; refuses an overlap."""
    found: list[str | None] = [None] * BUCKETS
    for arm in arms:
        for first, end in arm.ranges:
            assert set(found[first:end]) == {None}
            found[first:end] = [arm.name] * (end - first)
    return found


@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_new_weights_move_exactly_what_arms_lose_and_give_each_its_share(seed: int, counts: list[int]):
    chance = random.Random(seed)
    wanted = shares_of(chance, chance.sample("abcdefg", counts[0]))
    arms = arms_of(wanted, ranges_in_turn([bp for _, bp in wanted]))
    for count in counts[1:]:
        wanted = shares_of(chance, chance.sample("abcdefg", count))
        after = arms_of(wanted, least_moving_ranges(arms, wanted))
        held, holds = owners(arms), owners(after)
        assert None not in holds
        assert [holds.count(name) for name, _ in wanted] == [bp for _, bp in wanted]
        moved = sum(one != other for one, other in zip(held, holds, strict=True))
        # No sharing out moves less: what an arm had and may not keep must go.
        assert moved == sum(max(0, arm.bp - dict(wanted).get(arm.name, 0)) for arm in arms)
        assert all(arm.ranges == fields.joined(arm.ranges) for arm in after)
        arms = after


@pytest.mark.parametrize(("arms_min", "arms_max", "times"), [(2, 2, 300), (2, 5, 300), (2, 20, 100), (100, 100, 40)])
def test_after_hundreds_of_changes_an_arm_has_tens_of_ranges_and_not_thousands(
    arms_min: int, arms_max: int, times: int
):
    chance = random.Random(arms_max)
    wanted = shares_of(chance, [f"v{i}" for i in range(arms_max)])
    arms = arms_of(wanted, ranges_in_turn([bp for _, bp in wanted]))
    for _ in range(times):
        wanted = shares_of(chance, [f"v{i}" for i in range(chance.randint(arms_min, arms_max))])
        arms = arms_of(wanted, least_moving_ranges(arms, wanted))
        assert max(len(arm.ranges) for arm in arms) < 100


def test_the_changes_that_cut_ranges_most_leave_a_document_that_can_be_read():
    bp = [100] * 100
    arms = arms_of([(f"v{i}", 100) for i in range(100)], ranges_in_turn(bp))
    for turn in range(98):  # two arms grow in turn, each by one bucket of every other arm
        bp = [share - 1 for share in bp]
        bp[turn % 2] += 99
        bp[1 - turn % 2] += 1
        wanted = [(f"v{i}", share) for i, share in enumerate(bp)]
        arms = arms_of(wanted, least_moving_ranges(arms, wanted))
    assert 4_000 < max(len(arm.ranges) for arm in arms) <= RANGES_MAX
    document = {
        "experiment": "e",
        "model": "m",
        "unit": "user",
        "variants": [{"name": arm.name, "version": "1", "bp": arm.bp} for arm in arms],
    }
    read = parse_experiment(with_ranges(document, [arm.ranges for arm in arms]))
    assert [read.variant_at(bucket).name for bucket in range(BUCKETS)] == owners(arms)
