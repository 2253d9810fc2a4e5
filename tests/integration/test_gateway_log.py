import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from feature_store import open_redis, row_key
from tests.integration.gateway_client import until
from tests.integration.gateway_models import STALE_USER
from tests.integration.gateway_stack import Gateway, Stack

pytestmark = pytest.mark.integration

APPENDED_AFTER_S = 1.0
"""Older than this at a kill, an answered row must be in the log; rows are appended every 0.2 s."""


@pytest.fixture
def logging_gateway(stack: Stack) -> Iterator[Gateway]:
    """A gateway whose log holds nothing but what one test asks."""
    gateway = stack.start_gateway("--shutdown-grace-s", "0")
    yield gateway
    gateway.child.stop()


def rows(log: Path, query: str = "SELECT * FROM log") -> list[dict[str, Any]]:
    source = f"read_parquet('{log}/predictions/**/*.parquet', hive_partitioning=true, union_by_name=true)"
    with duckdb.connect() as connection:
        found = connection.sql(f"WITH log AS (SELECT * FROM {source}) {query}").to_arrow_table()
    return found.to_pylist()


def counter(page: str, name: str) -> float:
    families = text_string_to_metric_families(page)
    return sum(s.value for family in families for s in family.samples if s.name == name)


def test_one_row_is_logged_for_every_scored_instance_with_what_was_answered(stack, logging_gateway):
    gateway = logging_gateway
    requests = [{"entities": {"user": f"u{n}", "item": f"i{n % 40}"}} for n in range(60)]
    requests += [
        {"entities": {"user": f"u{n}"}, "instances": [{"entities": {"item": f"i{i}"}} for i in range(n + 1)]}
        for n in range(10)
    ]
    requests += [{"entities": {"user": "nobody", "item": "i1"}}, {"entities": {"user": STALE_USER, "item": "nothing"}}]
    expected = {}
    with gateway.client() as client:
        for number, request in enumerate(requests):
            reply = client.predict("ranking", request, {"x-request-id": f"request-{number}"})
            assert reply.status == 200, reply.body
            answer = reply.json
            for row, (score, instance) in enumerate(
                zip(answer["predictions"], request.get("instances", [{}]), strict=True)
            ):
                entity = {**request["entities"], **instance.get("entities", {})}
                expected[answer["prediction_id"], row] = (f"request-{number}", answer, score, entity)
    gateway.wait_for_log()

    logged = rows(gateway.log_directory)
    assert len(logged) == len(expected) == 60 + 55 + 2
    assert {(r["prediction_id"], r["row"]) for r in logged} == set(expected)
    for row in logged:
        request_id, answer, score, entity = expected[row["prediction_id"], row["row"]]
        assert row["request_id"] == request_id
        assert row["unit"] == row["entity.user"] == entity["user"]
        assert row["entity.item"] == entity["item"]
        assert (row["version"], row["variant_served"]) == (answer["version"], answer["variant"])
        assert (row["variant_assigned"], row["experiment"]) == (answer["variant"], "ranking-lightgbm")
        assert row["assignment_probability"] == {"control": 0.9, "treatment": 0.1}[answer["variant"]]
        assert row["y.score"] == pytest.approx(score, abs=1e-7)
        assert row["degraded"] == answer["degraded"]
        assert (row["forced"], row["shadow"], row["error_code"]) == (False, False, None)
        assert row["total_us"] >= row["features_us"] + row["queue_us"] + row["infer_us"] - 3
        assert_features_as_fed(stack, row, entity)


def assert_features_as_fed(stack: Stack, row: dict[str, Any], entity: dict[str, str]) -> None:
    stored = stack.stored
    user = {"nobody": np.full(6, 0.5), STALE_USER: stored.users[0]}.get(entity["user"])
    item = np.full(3, 0.5) if entity["item"] == "nothing" else stored.items[int(entity["item"][1:])]
    user = stored.users[int(entity["user"][1:])] if user is None else user
    assert [row[f"f.user_profile.f{i}"] for i in range(6)] == [float(value) for value in user]
    assert [row[f"f.item_stats.g{i}"] for i in range(3)] == [float(value) for value in item]
    statuses = {"nobody": "MISSING", STALE_USER: "STALE"}
    assert row["status.user_profile"] == statuses.get(entity["user"], "PRESENT")
    assert row["status.item_stats"] == ("MISSING" if entity["item"] == "nothing" else "PRESENT")
    event_time = row["event_time.user_profile"]
    if entity["user"] == "nobody":
        assert event_time is None
    elif entity["user"] != STALE_USER:
        assert event_time.timestamp() * 1e6 == pytest.approx(stored.event_time_us, abs=1)


def test_request_features_overrides_and_typed_outputs_are_logged_as_they_were_fed(stack, logging_gateway):
    with logging_gateway.client() as client:
        request = {"entities": {"user": "u8"}, "features": {"hour": -4, "user_profile:f0": 6.25}}
        (prediction,) = client.predict("basket", request).json["predictions"]
        assert client.predict("basket", request, {"x-sekisho-variant": "treatment"}).status == 200
    logging_gateway.wait_for_log()
    row, forced = rows(logging_gateway.log_directory, "SELECT * FROM log ORDER BY forced")
    assert (row["f.user_profile.f0"], row["f.request.hour"], row["f.account.visits"]) == (6.25, -4.0, 8)
    assert row["f.account.tier"] == row["y.tier_echo"] == prediction["tier_echo"] == "tier-2"
    assert (row["y.roots.0"], row["y.visits_twice"]) == (2.5, 16)
    assert np.isnan(row["y.roots.1"])
    assert row["degraded"] == ["score_not_finite:roots"]
    assert (forced["forced"], forced["variant_assigned"], forced["assignment_probability"]) == (True, "treatment", None)


def test_the_log_answers_a_question_in_one_line_of_duckdb(logging_gateway):
    with logging_gateway.client() as client:
        for n in range(100):
            assert client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i0"}}).status == 200
    logging_gateway.wait_for_log()
    found = duckdb.sql(
        f"""SELECT version, count(*), avg("y.score") FROM read_parquet('{logging_gateway.log_directory}/predictions/**/*.parquet', hive_partitioning=true, union_by_name=true) GROUP BY version"""  # noqa: E501 - one line is the claim
    ).fetchall()
    assert {version for version, _, _ in found} == {"1", "2"}
    assert sum(count for _, count, _ in found) == 100
    assert all(0 < mean < 1 for _, _, mean in found)


def test_sigterm_right_after_a_burst_loses_no_row(logging_gateway):
    requests = [{"entities": {"user": f"u{n}", "item": "i0"}} for n in range(300)]
    with logging_gateway.client() as client:
        answered = [client.predict("ranking", request).json["prediction_id"] for request in requests]
        logging_gateway.child.stop()
    assert logging_gateway.child.ended() == "exit code 0"
    assert sorted(r["prediction_id"] for r in rows(logging_gateway.log_directory)) == sorted(answered)


def test_sigkill_loses_nothing_that_was_answered_a_second_before(stack, logging_gateway):
    answered: list[tuple[float, str]] = []

    def ask() -> None:
        try:
            with logging_gateway.client() as client:
                for n in range(100_000):
                    request = {"entities": {"user": f"u{n % 600}", "item": "i0"}}
                    reply = client.predict("ranking", request)
                    answered.append((time.monotonic(), reply.json["prediction_id"]))
        except (OSError, http.client.HTTPException):
            return

    asking = threading.Thread(target=ask)
    asking.start()
    begun = time.monotonic()
    until("enough was answered", lambda: len(answered) > 200 and time.monotonic() - begun > 2 * APPENDED_AFTER_S)
    killed_at = time.monotonic()
    os.kill(logging_gateway.child.pid, signal.SIGKILL)
    asking.join()
    recovered = stack.start_gateway("--shutdown-grace-s", "0", log_directory=logging_gateway.log_directory)
    recovered.child.stop()
    logged = [r["prediction_id"] for r in rows(logging_gateway.log_directory)]
    assert len(logged) == len(set(logged))
    old = {prediction_id for at, prediction_id in answered if at < killed_at - APPENDED_AFTER_S}
    assert len(old) > 50
    assert old <= set(logged)
    assert list((logging_gateway.log_directory / "spool").iterdir()) == []


def test_rows_offered_are_rows_written_dropped_or_pending(logging_gateway):
    with logging_gateway.client() as client:
        for n in range(200):
            client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i0"}})
            if n % 20 == 0:
                page = logging_gateway.metrics()
                names = ("offered_total", "written_total", "dropped_total", "pending")
                offered, written, dropped, pending = (counter(page, f"sekisho_log_rows_{name}") for name in names)
                assert offered == written + dropped + pending == n + 1
    logging_gateway.wait_for_log()
    page = logging_gateway.metrics()
    assert counter(page, "sekisho_log_rows_written_total") == 200
    assert counter(page, "sekisho_log_rows_dropped_total") == 0


def test_a_corrupt_stored_row_is_answered_by_defaults_and_logged_as_missing(stack, logging_gateway):
    async def corrupt() -> None:
        redis = open_redis(stack.redis.url)
        await redis.set(row_key("user_profile", "corrupt"), b"\x00garbage")
        await redis.aclose()

    asyncio.run(corrupt())
    with logging_gateway.client() as client:
        answer = client.predict("ranking", {"entities": {"user": "corrupt", "item": "i0"}}).json
    assert answer["degraded"] == ["feature_default:user_profile"]
    logging_gateway.wait_for_log()
    (row,) = rows(logging_gateway.log_directory)
    assert (row["status.user_profile"], json.dumps(row["degraded"])) == ("MISSING", '["feature_default:user_profile"]')
