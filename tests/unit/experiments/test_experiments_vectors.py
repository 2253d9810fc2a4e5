import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from experiments.buckets import bucket, bucket_prefix, draw

GOLDEN = Path(__file__).parents[2] / "golden" / "assignment_vectors.json"
VECTORS: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
KEY_OF = {"enrol": "salt", "split": "salt", "layer": "layer"}


def by_the_formula(purpose: str, key: str, unit: str) -> int:
    """The docstring's formula, written again: hexadecimal digits in place of bytes."""
    message = f"sekisho/v1/{purpose}/{key}/{unit}"
    return int(hashlib.new("sha256", message.encode("utf-8")).hexdigest()[:16], 16) % 10_000


@pytest.mark.parametrize("purpose", KEY_OF)
def test_the_published_vectors_are_what_is_assigned(purpose: str):
    published = [v[f"{purpose}_bucket"] for v in VECTORS]
    assert [bucket(bucket_prefix(purpose, v[KEY_OF[purpose]]), v["unit"].encode()) for v in VECTORS] == published
    assert [draw(purpose, v[KEY_OF[purpose]])(v["unit"]) for v in VECTORS] == published


@pytest.mark.parametrize("purpose", KEY_OF)
def test_the_published_vectors_follow_from_the_documented_formula(purpose: str):
    recomputed = [by_the_formula(purpose, v[KEY_OF[purpose]], v["unit"]) for v in VECTORS]
    assert recomputed == [v[f"{purpose}_bucket"] for v in VECTORS]


@pytest.mark.parametrize("purpose", KEY_OF)
def test_a_warehouse_recomputes_the_published_vectors_in_sql(purpose: str):
    rows = [(number, v[KEY_OF[purpose]], v["unit"]) for number, v in enumerate(VECTORS)]
    with duckdb.connect() as warehouse:
        warehouse.execute("CREATE TABLE vectors (number INTEGER, key VARCHAR, unit VARCHAR)")
        warehouse.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
        recomputed = warehouse.execute(
            f"""
            SELECT ('0x' || substr(sha256('sekisho/v1/{purpose}/' || key || '/' || unit), 1, 16))::UBIGINT % 10000
            FROM vectors ORDER BY number
            """
        ).fetchall()
    assert [row[0] for row in recomputed] == [v[f"{purpose}_bucket"] for v in VECTORS]


def test_a_process_with_another_hash_seed_draws_the_same_buckets():
    program = (
        "import json, sys; from experiments import parse_experiment\n"
        "e = parse_experiment(json.loads(sys.argv[1]))\n"
        "units = json.load(sys.stdin)\n"
        "print(json.dumps([[e.enrol(u), e.split(u)] for u in units]"
        " + [[e.revision, e.epoch]]))"
    )
    document = json.dumps(
        {
            "experiment": "e",
            "model": "m",
            "unit": "user",
            "salt": "7f3c",
            "variants": [{"name": "a", "version": "1", "bp": 10_000}],
            "overrides": {"p7": "a", "p8": "a"},
        }
    )
    vectors = [v for v in VECTORS if v["salt"] == "7f3c"]
    answers = []
    for seed in ("0", "1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", program, document],
            input=json.dumps([v["unit"] for v in vectors]),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][:-1] == [[v["enrol_bucket"], v["split_bucket"]] for v in vectors]


def test_the_vectors_have_both_edges_of_every_draw_and_every_kind_of_id():
    for purpose in KEY_OF:
        assert {0, 9_999} <= {v[f"{purpose}_bucket"] for v in VECTORS}
    units = {v["unit"] for v in VECTORS}
    assert all(any(character in unit for unit in units) for character in "/:| \né東\U0001f600")
    assert {"7", "007"} <= units
    assert max(len(unit.encode()) for unit in units) >= 255
    assert "" not in units
