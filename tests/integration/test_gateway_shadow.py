"""Shadows on a running system: pairs in the log, and callers who notice nothing, whatever becomes of the shadow."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from experiments import assign, parse_experiment, shadow_version
from tests.integration.experiments_admin import Admin, document, experimenting
from tests.integration.gateway_client import until
from tests.integration.gateway_models import ranking_scores
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

SHADOW = {"version": "2", "sample_bp": 10_000}
USERS = 24
NOTICED_S = 1.0
"""A shadow that somebody waited for would take as long as the model's deadline, 2 s."""


@pytest.fixture(scope="module")
def stored(stack: Stack) -> Gateway:
    return stack.gateway_with_stored_experiments


@pytest.fixture
def admin(stored: Gateway) -> Iterator[Admin]:
    with experimenting(stored.admin_port) as found:
        yield found


def shadows(gateway: Gateway) -> Counter[str]:
    """Count this gateway's shadows by what became of them."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(gateway.metrics()):
        for sample in family.samples:
            if sample.name == "sekisho_shadows_total":
                found[sample.labels["outcome"]] += int(sample.value)
    return found


def asked(gateway: Gateway, users: Sequence[int], *, items: int = 1) -> dict[str, dict[str, Any]]:
    """Ask for each user's ranking of some items. Returns the answers by prediction id."""
    found = {}
    with gateway.client() as client:
        for n in users:
            instances = [{"entities": {"item": f"i{item}"}} for item in range(items)]
            reply = client.predict("ranking", {"entities": {"user": f"u{n}"}, "instances": instances})
            assert (reply.status, reply.json["degraded"]) == (200, [])
            found[reply.json["prediction_id"]] = {**reply.json, "user": n}
    return found


class Ended:
    """Waits for shadows one by one: on a busy machine one that comes while another waits is dropped, as it must be."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._before = gateway, shadows(gateway)
        self._expected = 0

    def wait_for(self, count: int) -> None:
        """Wait until so many more have come to an end."""
        self._expected += count
        until("each shadow has come to an end", lambda: sum(self.counts.values()) >= self._expected)

    @property
    def counts(self) -> dict[str, int]:
        """What became of them."""
        return dict(shadows(self._gateway) - self._before)


def logged(gateway: Gateway, answers: dict[str, Any], columns: str = "*") -> list[dict[str, Any]]:
    """Read the rows of some answers, shadows among them."""
    gateway.wait_for_log()
    files = f"{gateway.log_directory}/predictions/model=ranking/**/*.parquet"
    table = duckdb.sql(f"SELECT {columns} FROM read_parquet('{files}', union_by_name=true)").to_arrow_table()
    return [row for row in table.to_pylist() if row["prediction_id"] in answers]


def test_every_row_of_an_enrolled_unit_has_a_pair_that_the_other_version_scored_on_the_same_features(
    admin, stored, stack
):
    revision = int(admin.create(document("shadowed", shadow=SHADOW)).json["revision"])
    ended = Ended(stored)
    answers = {}
    for n in range(USERS):
        answers.update(asked(stored, [n], items=3))
        ended.wait_for(1)
    assert ended.counts == {"scored": USERS}
    pairs: dict[tuple[str, int], dict[bool, dict[str, Any]]] = {}
    for row in logged(stored, answers):
        assert pairs.setdefault((row["prediction_id"], row["row"]), {}).setdefault(row["shadow"], row) is row
    assert len(pairs) == 3 * USERS
    alike = ["experiment", "revision", "epoch", "unit", "variant_assigned", "enrol_bucket", "split_bucket"]
    alike += ["assignment_probability", "request_id", "entity.user", "entity.item"]
    alike += [name for name in next(iter(pairs.values()))[True] if name.startswith("f.")]
    versions = set()
    for (prediction_id, number), pair in pairs.items():
        answered, shadow = pair[False], pair[True]
        versions.add((answered["version"], shadow["version"]))
        assert {name: shadow[name] for name in alike} == {name: answered[name] for name in alike}
        assert (shadow["variant_served"], shadow["forced"], shadow["revision"]) == (None, False, revision)
        assert answered["variant_served"] == answered["variant_assigned"]
        (expected,) = ranking_scores(
            stack.repository, shadow["version"], stack.stored.rows([(answers[prediction_id]["user"], number)])
        )
        assert shadow["y.score"] == pytest.approx(float(expected), abs=1e-5)
    assert versions == {("1", "2"), ("2", "1")}, "units of both arms have a pair"


def test_a_share_of_the_units_is_sampled_and_always_the_same(admin, stored):
    made = admin.create(document("shadowed", shadow={"version": "2", "sample_bp": 5_000}))
    experiment = parse_experiment(made.json["document"])
    decisions = {n: assign((experiment,), f"u{n}", {}) for n in range(USERS)}
    sampled = {n for n, d in decisions.items() if shadow_version(d, f"u{n}", d.variant.version) is not None}
    assert 0 < len(sampled) < USERS
    ended = Ended(stored)
    for _ in range(2):
        for n in range(USERS):
            asked(stored, [n])
            ended.wait_for(n in sampled)
    assert ended.counts == {"scored": 2 * len(sampled)}


def test_overridden_forced_and_unenrolled_rows_have_no_pair(admin, stored):
    basket = {"entities": {"user": "u1"}, "features": {"hour": 1}}
    variants = document("x")["variants"]
    admin.create(document("on-basket", model="basket", shadow=SHADOW, overrides={"u2": "control"}, variants=variants))
    ended = Ended(stored)
    with stored.client() as client:
        assert client.predict("basket", basket, {"x-sekisho-variant": "treatment"}).json["variant"] == "treatment"
        assert client.predict("basket", {**basket, "entities": {"user": "u2"}}).json["variant"] == "control"
        admin.set("on-basket", enrol_bp=0)
        assert client.predict("basket", basket).json["variant"] is None
        admin.set("on-basket", enrol_bp=10_000)
        assert client.predict("basket", basket).status == 200
    ended.wait_for(1)
    assert ended.counts == {"scored": 1}, "the one that was drawn"


def test_raw_tensors_have_pairs_too(admin, stored):
    admin.create(document("tensors", model="basket", shadow=SHADOW))
    ended = Ended(stored)
    with stored.client() as client:
        for n in range(4):
            reply = client.post("/v2/models/basket/infer", basket_tensors(n, f"json-{n}"))
            assert reply.status == 200, reply.body[:300]
            ended.wait_for(1)
            content, length = with_binary_amounts(basket_tensors(n, f"binary-{n}"))
            headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(length)}
            reply = client.post("/v2/models/basket/infer", content, headers)
            assert reply.status == 200, reply.body[:300]
            ended.wait_for(1)
    assert ended.counts == {"scored": 8}
    stored.wait_for_log()
    files = f"{stored.log_directory}/predictions/model=basket/**/*.parquet"
    rows = duckdb.sql(
        'SELECT prediction_id, "y.tier_echo", count(*), sum(shadow::int), count(DISTINCT version)'
        f" FROM read_parquet('{files}', union_by_name=true)"
        " WHERE \"y.tier_echo\" LIKE 'json-%' OR \"y.tier_echo\" LIKE 'binary-%' GROUP BY ALL"
    ).fetchall()
    assert sorted(row[1:] for row in rows) == [
        (f"{form}-{n}", 2, 1, 2) for form in ("binary", "json") for n in range(4)
    ]


def basket_tensors(n: int, tier: str) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "amounts", "datatype": "FP32", "shape": [1, 3], "data": [n, 1, 4]},
            {"name": "visits", "datatype": "INT64", "shape": [1], "data": [n]},
            {"name": "tier", "datatype": "BYTES", "shape": [1], "data": [tier]},
        ],
        "parameters": {"unit": f"u{n}"},
    }


def with_binary_amounts(body: dict[str, Any]) -> tuple[bytes, int]:
    """Move the first tensor's numbers behind the JSON. Returns the whole, and how long the JSON is."""
    amounts = body["inputs"][0]
    raw = np.array(amounts.pop("data"), "<f4").tobytes()
    amounts["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps(body).encode()
    return head + raw, len(head)


def test_raw_tensors_that_the_shadows_version_does_not_take_are_its_failure_and_not_the_callers(admin, stored, stack):
    admin.create(document("tensors", shadow=SHADOW))
    rows, ended = stack.stored.rows([(1, 2)]), Ended(stored)
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 9], "data": rows.ravel().tolist()}
    serves = {n: admin.get(f"/admin/v1/explain?unit=u{n}")["serves"]["ranking"]["version"] for n in range(9)}
    unit = next(n for n, version in serves.items() if version == "1")
    with stored.client() as client:
        body = {"inputs": [tensor], "parameters": {"unit": f"u{unit}"}}
        assert client.post("/v2/models/ranking/infer", body).status == 200
    ended.wait_for(1)
    assert ended.counts == {"failed": 1}


def test_a_shadow_whose_worker_hangs_or_is_gone_makes_nobody_wait(admin, stored, stack):
    worker = stack.workers["b"]
    admin.create(document("shadowed", shadow=SHADOW, variants=only_control()))
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        ended = Ended(stored)
        longest_ms = max(asked_ms(stored, 60))
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert longest_ms < NOTICED_S * 1000
    ended.wait_for(60)
    assert ended.counts["dropped_busy"] > 0
    worker.stop()
    try:
        until(
            "it is noticed", lambda: not stored.admin("/admin/v1/status")["models"]["ranking"]["versions"]["2"]["ready"]
        )
        ended = Ended(stored)
        assert max(asked_ms(stored, 30)) < NOTICED_S * 1000
        ended.wait_for(30)
        assert ended.counts == {"failed": 30}
    finally:
        stack.start_worker("b")
    until("it is back", lambda: all(gateway.all_ready() for gateway in stack.gateways if gateway.child.ended() is None))


def only_control() -> list[dict[str, Any]]:
    return [{"name": "control", "version": "1", "bp": 10_000}, {"name": "treatment", "version": "2", "bp": 0}]


def asked_ms(gateway: Gateway, count: int) -> list[float]:
    """Ask for version 1, and say how long each answer took by its own account."""
    took = []
    with gateway.client() as client:
        for n in range(count):
            reply = client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i1"}})
            assert (reply.status, reply.json["version"], reply.json["degraded"]) == (200, "1", [])
            stages = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
            took.append(float(stages["total"]))
    return took
