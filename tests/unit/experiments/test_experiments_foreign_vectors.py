"""Assignments of GrowthBook's and Eppo's SDKs: vectors that `tests/golden/make_assignment_vectors.*` made."""

import json
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import duckdb
import pytest

from experiments import Experiment, Reason, assign, eppo, growthbook, parse_experiment

GOLDEN = Path(__file__).parents[2] / "golden"
GROWTHBOOK: dict[str, Any] = json.loads((GOLDEN / "assignment_vectors_growthbook.json").read_text(encoding="utf-8"))
EPPO: dict[str, Any] = json.loads((GOLDEN / "assignment_vectors_eppo.json").read_text(encoding="utf-8"))
PUBLISHED_BY_GROWTHBOOK = [
    ("seed", "a", 0.0505),
    ("seed", "b", 0.2696),
    ("foo", "ab", 0.2575),
    ("foo", "def", 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 0.124),
    ("90850943850283058242805", "123", 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 0.0128),
]
PUBLISHED_BY_EPPO = [("test", "input", 5619)]


def experiment(hash_: str, vector: dict[str, Any]) -> Experiment:
    variants = [{"name": f"v{i}", "version": str(i), "bp": bp} for i, bp in enumerate(vector["weights_bp"])]
    return parse_experiment(
        {
            "experiment": "e",
            "model": "m",
            "unit": "user",
            "state": "running",
            "hash": hash_,
            "salt": vector["seed"] if "seed" in vector else vector["salt"],
            "enrol_bp": vector["coverage_bp"],
            "variants": variants,
        }
    )


def variation(hash_: str, vector: dict[str, Any]) -> int | None:
    drawn = assign((experiment(hash_, vector),), vector["unit"], {}).variant
    return None if drawn is None else int(drawn.version)


@pytest.mark.parametrize(("seed", "unit", "share"), PUBLISHED_BY_GROWTHBOOK)
def test_the_cases_that_growthbook_publishes_for_hash_version_2_hold(seed: str, unit: str, share: float):
    assert growthbook.draw(seed)(unit) / 10_000 == share


@pytest.mark.parametrize("text", ["", "a", "ab", "foobar"])
def test_the_reference_values_of_fnv_1a_hold(text: str):
    known = {"": 0x811C9DC5, "a": 0xE40C292C, "ab": 0x4D2505CA, "foobar": 0xBF9CF968}
    assert growthbook.fnv1a_32(text) == known[text]


@pytest.mark.parametrize(("salt", "unit", "shard"), PUBLISHED_BY_EPPO)
def test_the_case_that_eppo_publishes_holds(salt: str, unit: str, shard: int):
    assert eppo.draw(salt)(unit) == shard


@pytest.mark.parametrize(("vectors", "key", "draw"), [(GROWTHBOOK, "seed", growthbook.draw), (EPPO, "salt", eppo.draw)])
def test_every_vector_of_another_make_is_what_is_drawn(vectors: dict[str, Any], key: str, draw: Callable[..., Any]):
    rows = vectors["buckets"]
    assert [draw(v[key])(v["unit"]) for v in rows] == [v["bucket"] for v in rows]


@pytest.mark.parametrize(
    ("hash_", "vector"),
    [
        pytest.param(hash_, vector, id=f"{hash_}-{number}")
        for hash_, vectors in (("growthbook-v2", GROWTHBOOK), ("eppo", EPPO))
        for number, vector in enumerate(vectors["decisions"])
    ],
)
def test_a_whole_decision_of_another_make_is_ours(hash_: str, vector: dict[str, Any]):
    assert variation(hash_, vector) == vector["variation"]


@pytest.mark.parametrize("vector", GROWTHBOOK["ranges"], ids=lambda v: f"{v['weights_bp']}-{v['coverage_bp']}")
def test_the_buckets_inside_growthbooks_ranges_are_those_of_javascripts_arithmetic(vector: dict[str, Any]):
    ranges = growthbook.covered_ranges(vector["weights_bp"], vector["coverage_bp"])
    inside = [[first, end - 1, end - first] if first < end else [None, None, 0] for first, end in ranges]
    assert inside == vector["buckets"]


@pytest.mark.parametrize(
    ("weights_bp", "coverage_bp", "shares"),
    [
        ([5_000] * 2, 10_000, [(0, 0.5), (0.5, 1)]),
        ([5_000] * 2, 5_000, [(0, 0.25), (0.5, 0.75)]),
        ([5_000] * 2, 0, [(0, 0), (0.5, 0.5)]),
        ([2_500] * 4, 10_000, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([4_000, 6_000], 10_000, [(0, 0.4), (0.4, 1)]),
        ([2_000, 3_000, 5_000], 10_000, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
    ],
)
def test_the_ranges_that_growthbook_publishes_hold(
    weights_bp: list[int], coverage_bp: int, shares: list[tuple[float, float]]
):
    ranges = growthbook.covered_ranges(weights_bp, coverage_bp)
    assert [(first / 10_000, end / 10_000) for first, end in ranges] == shares


def test_a_unit_beyond_growthbooks_coverage_is_not_enrolled_and_its_bucket_is_told():
    vector = next(v for v in GROWTHBOOK["decisions"] if v["variation"] is None)
    drawn = assign((experiment("growthbook-v2", vector),), vector["unit"], {})
    assert (drawn.reason, drawn.variant, drawn.enrolled) == (Reason.NOT_ENROLLED, None, False)
    assert drawn.enrol_bucket == drawn.split_bucket == growthbook.draw(vector["seed"])(vector["unit"])


def test_eppos_own_salts_are_taken_as_they_are():
    salts = {"enrol": "checkout flag/traffic é", "split": "checkout flag/split"}
    variants = [{"name": "a", "version": "1", "bp": 10_000}]
    document = {"experiment": "e", "model": "m", "unit": "user", "state": "running", "hash": "eppo"}
    read = parse_experiment(document | {"salts": salts, "variants": variants})

    def shard(text: str) -> int:
        return int(md5(text.encode()).hexdigest()[:8], 16) % 10_000

    assert [read.enrol("p7"), read.split("p7")] == [
        shard("checkout flag/traffic é-p7"),
        shard("checkout flag/split-p7"),
    ]


def test_a_warehouse_recomputes_eppos_vectors_in_sql():
    rows = EPPO["buckets"]
    with duckdb.connect() as warehouse:
        warehouse.execute("CREATE TABLE vectors (number INTEGER, salt VARCHAR, unit VARCHAR)")
        warehouse.executemany(
            "INSERT INTO vectors VALUES (?, ?, ?)", [(number, v["salt"], v["unit"]) for number, v in enumerate(rows)]
        )
        recomputed = warehouse.execute(
            "SELECT ('0x' || substr(md5(salt || '-' || unit), 1, 8))::BIGINT % 10000 FROM vectors ORDER BY number"
        ).fetchall()
    assert [row[0] for row in recomputed] == [v["bucket"] for v in rows]


@pytest.mark.parametrize(("vectors", "key"), [(GROWTHBOOK, "seed"), (EPPO, "salt")])
def test_the_vectors_of_another_make_have_every_kind_of_id_and_an_empty_seed(vectors: dict[str, Any], key: str):
    units = {v["unit"] for v in vectors["buckets"]}
    assert all(any(character in unit for unit in units) for character in "/:|- \né東\U0001f600")
    assert {"7", "007"} <= units
    assert {"", "日本\U0001f600"} <= {v[key] for v in vectors["buckets"]}
    assert max(len(unit.encode()) for unit in units) >= 255


def test_growthbooks_vectors_have_both_edges():
    assert {0, 9_999} <= {v["bucket"] for v in GROWTHBOOK["buckets"]}
