"""A real MLServer as a worker of the gateway, in a split with a worker of ours."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.conformance.check import Verdict
from tests.conformance.documented import PAGE, documented_tables
from tests.conformance.kit import run_checks
from tests.conformance.target import discover
from tests.conformance.wire import Address
from tests.integration.mlserver_system import MODELS, MlServerSystem
from tests.integration.peers import needs_peers

pytestmark = [pytest.mark.integration, needs_peers]

USERS = 100
VERSIONS = {"ours": "1", "mlserver": "2"}


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[MlServerSystem]:
    with MlServerSystem(tmp_path_factory.mktemp("mlserver")) as running:
        yield running


def offline(system: MlServerSystem, model: str, variant: str) -> np.ndarray:
    sklearn = model == "churn" and variant == "mlserver"
    return system.offline.scores["churn-sklearn" if sklearn else "churn-lightgbm"]


def logged(system: MlServerSystem) -> dict[tuple[str, int], dict[str, Any]]:
    system.gateway.wait_for_log()
    files = f"{system.gateway.log_directory}/predictions/**/*.parquet"
    with duckdb.connect() as connection:
        found = connection.read_parquet(files, hive_partitioning=True, union_by_name=True).to_arrow_table()
    rows = found.to_pylist()
    return {(row["prediction_id"], row["row"]): row for row in rows}


@pytest.mark.parametrize("model", MODELS)
def test_both_servers_of_a_split_answer_as_their_models_do_offline_and_are_logged_with_what_they_were_fed(
    system, model
):
    answers = {}
    with system.client() as client:
        for user in range(USERS):
            reply = client.predict(model, {"entities": {"user": f"u{user}"}})
            assert reply.status == 200, reply.body
            answers[user] = reply.json
    variants = {user: answer["variant"] for user, answer in answers.items()}
    assert set(variants.values()) == set(VERSIONS)
    assert 0.3 < sum(variant == "ours" for variant in variants.values()) / USERS < 0.7
    log = logged(system)
    for user, answer in answers.items():
        assert answer["version"] == VERSIONS[answer["variant"]]
        assert answer["degraded"] == []
        expected = offline(system, model, answer["variant"])[user]
        assert answer["predictions"] == pytest.approx([expected], abs=1e-6)
        row = log[answer["prediction_id"], 0]
        assert (row["model"], row["version"], row["variant_served"]) == (model, answer["version"], answer["variant"])
        assert row["y.score"] == pytest.approx(expected, abs=1e-6)
        assert [row[f"f.user_profile.f{i}"] for i in range(3)] == system.offline.rows[user].tolist()
        assert (row["unit"], row["status.user_profile"], row["error_code"]) == (f"u{user}", "PRESENT", None)


@pytest.mark.parametrize("model", MODELS)
def test_more_instances_than_one_batch_of_mlserver_s_takes_come_back_in_their_order(system, model):
    users = range(150)
    instances = [{"entities": {"user": f"u{user}"}} for user in users]
    seen = set()
    with system.client() as client:
        for unit in range(20):
            reply = client.predict(model, {"instances": instances, "unit": f"unit-{unit}"})
            assert reply.status == 200, reply.body
            answer = reply.json
            seen.add(answer["variant"])
            expected = offline(system, model, answer["variant"])[: len(users)]
            np.testing.assert_allclose(answer["predictions"], expected, rtol=0, atol=1e-6)
    assert seen == set(VERSIONS)


@pytest.mark.parametrize("model", MODELS)
def test_raw_tensors_go_through_the_same_split_to_either_server(system, model):
    rows = system.offline.rows[:3]
    given = {"name": "X", "datatype": "FP32", "shape": [3, 3], "data": rows.ravel().tolist()}
    seen = set()
    with system.client() as client:
        for user in range(20):
            body = {"inputs": [given], "parameters": {"unit": f"u{user}"}}
            reply = client.post(f"/v2/models/{model}/infer", body)
            assert reply.status == 200, reply.body
            variant = reply.json["parameters"]["variant"]
            seen.add(variant)
            assert (reply.json["model_name"], reply.json["model_version"]) == (model, VERSIONS[variant])
            (output,) = reply.json["outputs"]
            assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP64", [3])
            np.testing.assert_allclose(output["data"], offline(system, model, variant)[:3], rtol=0, atol=1e-6)
    assert seen == set(VERSIONS)


def test_mlserver_s_version_can_be_named_in_the_url(system):
    given = {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": system.offline.rows[0].tolist()}
    with system.client() as client:
        reply = client.post("/v2/models/churn/versions/2/infer", {"inputs": [given]})
    assert reply.status == 200, reply.body
    assert reply.json["model_version"] == "2"
    assert reply.json["outputs"][0]["data"] == pytest.approx([system.offline.scores["churn-sklearn"][0]], abs=1e-6)


def test_the_gateway_before_mlserver_deviates_from_the_protocol_in_nothing_that_it_does_not_deviate_in_alone(system):
    with system.client() as client:
        served = {
            unit: client.predict("churn", {"entities": {"user": unit}}).json["variant"]
            for unit in (f"u{user}" for user in range(20))
        }
    unit = next(unit for unit, variant in served.items() if variant == "mlserver")
    target = discover(
        Address("127.0.0.1", system.gateway.port, ""),
        model="churn",
        version=None,
        inputs=(),
        parameters={"unit": unit},
        identity=False,
    )
    deviating = [result.check.id for result in run_checks(target) if result.verdict is Verdict.DEVIATES]
    documented = documented_tables(PAGE.read_text(encoding="utf-8"))["gateway"]
    assert [check for check in deviating if f"`{check}`" not in documented] == []
