from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

pytestmark = pytest.mark.integration

GOOD_ID = "01a209df-a83a-758f-8dc8-11b1420c261b"
GOOD = {"prediction_id": GOOD_ID, "row": 0, "metric": "purchase", "value": 1.0}


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}


WRONG = {
    "a prediction id that is no UUID": (changed(prediction_id="7"), 422, "prediction_id"),
    "a UUID of another version": (changed(prediction_id=GOOD_ID.replace("-7", "-4")), 422, "prediction_id"),
    "both keys": (changed(unit="u1"), 422, "prediction_id"),
    "neither key": (changed(prediction_id=..., row=...), 422, "prediction_id"),
    "a row of a unit": (changed(prediction_id=..., unit="u1"), 422, "row"),
    "a negative row": (changed(row=-1), 422, "row"),
    "a row beyond 32 bits": (changed(row=1 << 31), 422, "row"),
    "a row that is a float": (changed(row=0.5), 422, "row"),
    "an empty unit": (changed(prediction_id=..., row=..., unit=""), 422, "unit"),
    "a unit that is too long": (changed(prediction_id=..., row=..., unit="u" * 257), 422, "unit"),
    "NaN": (b'{"unit": "u1", "metric": "m", "value": NaN}', 400, None),
    "1e999": (b'{"unit": "u1", "metric": "m", "value": 1e999}', 422, "value"),
    "a value that is text": (changed(value="1"), 422, "value"),
    "a value that is true": (changed(value=True), 422, "value"),
    "no value": (changed(value=...), 422, None),
    "no metric": (changed(metric=...), 422, None),
    "a metric that is no name": (changed(metric="two words"), 422, "metric"),
    "a metric that is too long": (changed(metric="m" * 129), 422, "metric"),
    "an unknown field": (changed(weight=1), 422, None),
    "a time in the future": (changed(at="2300-01-01T00:00:00Z"), 422, "at"),
    "a time without a zone": (changed(at="2026-01-01T00:00:00"), 422, "at"),
    "a time that is no time": (changed(at="yesterday"), 422, "at"),
    "a time before the calendar in UTC": (changed(at="0001-01-01T00:00:00+14:00"), 422, "at"),
    "a time after the calendar in UTC": (changed(at="9999-12-31T23:59:59-14:00"), 422, "at"),
    "no outcome": ([], 422, None),
    "a wrong one in a list": ([GOOD, changed(row=-1)], 422, "[1].row"),
    "a wrong one alone in a list": ([changed(unit="u1")], 422, "[0].prediction_id"),
    "too many": ([GOOD] * 10_001, 413, None),
    "a number": (7, 422, None),
    "broken JSON": (b"[{", 400, None),
    "a list in a list": ([[GOOD]], 422, "[0]"),
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_wrong_outcome_is_refused_with_a_problem_that_names_the_field(client, claim):
    content, status, field = WRONG[claim]
    reply = client.post("/v1/outcomes", content, {"x-request-id": "mine"})
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status, reply.json["status"], reply.json.get("field")) == (status, status, field), reply.json
    assert reply.headers["x-request-id"] == reply.json["request_id"] == "mine"
    assert client.post("/v1/outcomes", GOOD).status == 202


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_outcomes_are_posted(client, method):
    reply = client.ask(method, "/v1/outcomes", b"")
    assert (reply.status, reply.headers["allow"], reply.json["code"]) == (405, "POST", "method_not_allowed")


def test_accepted_outcomes_are_in_the_outcome_log_exactly_once_and_refused_ones_are_not(stack):
    gateway = stack.start_gateway("--shutdown-grace-s", "0")
    at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    with gateway.client() as client:
        begun = datetime.now(UTC)
        assert client.post("/v1/outcomes", changed(metric="single", at=at.isoformat())).json == {"accepted": 1}
        listed = [changed(metric="listed", row=row) for row in range(500)]
        assert client.post("/v1/outcomes", listed).json == {"accepted": 500}
        assert client.post("/v1/outcomes", {"unit": "u1", "metric": "by_unit", "value": -2}).json == {"accepted": 1}
        assert client.post("/v1/outcomes", [*listed, changed(metric="listed", row=-1)]).status == 422
    gateway.child.stop()
    rows = outcome_rows(gateway.log_directory)
    assert sorted(row["row"] for row in rows if row["metric"] == "listed") == list(range(500))
    (single,) = (row for row in rows if row["metric"] == "single")
    assert (single["prediction_id"], single["row"], single["unit"]) == (GOOD_ID, 0, None)
    assert (single["at"], single["value"]) == (at, 1.0)
    (by_unit,) = (row for row in rows if row["metric"] == "by_unit")
    assert (by_unit["prediction_id"], by_unit["row"], by_unit["unit"], by_unit["value"]) == (None, None, "u1", -2.0)
    assert by_unit["at"] == by_unit["received_at"]
    assert begun - timedelta(seconds=1) < by_unit["received_at"] < datetime.now(UTC)
    assert len(rows) == 502


def outcome_rows(log: Path) -> list[dict[str, Any]]:
    return ds.dataset(log / "outcomes", partitioning="hive").to_table().to_pylist()
