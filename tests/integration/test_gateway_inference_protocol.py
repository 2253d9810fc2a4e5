import json

import duckdb
import numpy as np
import pytest

from contracts.inference import InferenceRequest, RequestedOutput, decode_response, encode_request, tensor_of
from tests.integration.gateway_models import ranking_scores

pytestmark = pytest.mark.integration

INFER = "/v2/models/ranking/infer"


def tensor(rows: np.ndarray, name: str = "X") -> dict:
    data = rows.astype(float).ravel().tolist()
    return {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": data}


def input_name(version: str) -> str:
    return {"1": "X", "2": "features"}[version]


def unit_of_variant(client, variant: str) -> str:
    for n in range(200):
        if client.predict("ranking", {"entities": {"user": f"u{n}", "item": "i0"}}).json["variant"] == variant:
            return f"u{n}"
    raise AssertionError(variant)


@pytest.mark.parametrize(("variant", "version"), [("control", "1"), ("treatment", "2")])
def test_tensors_go_through_the_split_that_predict_goes_through(stack, client, variant, version):
    unit = unit_of_variant(client, variant)
    rows = stack.stored.rows([(int(unit[1:]), i) for i in range(3)])
    body = {"inputs": [tensor(rows, input_name(version))], "id": "mine", "parameters": {"unit": unit}}
    reply = client.post(INFER, body)
    answer = reply.json
    assert (reply.status, answer["model_name"], answer["model_version"]) == (200, "ranking", version)
    assert answer["id"] == "mine"
    assert answer["parameters"]["variant"] == variant
    assert answer["parameters"]["experiment"] == "ranking-lightgbm"
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP32", [3])
    assert output["data"] == pytest.approx(ranking_scores(stack.repository, version, rows), abs=1e-6)
    assert reply.headers["server-timing"].startswith("features;dur=")


def test_raw_bytes_go_in_and_come_out(stack, client):
    unit = unit_of_variant(client, "control")
    rows = stack.stored.rows([(1, 1), (2, 2)])
    request = InferenceRequest(
        inputs=(tensor_of("X", rows, "FP32"),),
        outputs=(RequestedOutput("score", True),),
        parameters={"unit": unit},
    )
    head, parts = encode_request(request)
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    reply = client.ask("POST", INFER, head + b"".join(map(bytes, parts)), headers)
    answer = decode_response(reply.body, int(reply.headers["inference-header-content-length"]))
    assert answer.outputs[0].array() == pytest.approx(ranking_scores(stack.repository, "1", rows), abs=1e-6)


def test_every_row_is_logged_with_its_unit_and_features_and_without_a_look_into_the_store(stack, client, gateway):
    unit = unit_of_variant(client, "control")
    rows = stack.stored.rows([(5, 1), (6, 2)])
    answer = client.post(INFER, {"inputs": [tensor(rows)], "parameters": {"unit": unit}}).json
    gateway.wait_for_log()
    files = f"{gateway.log_directory}/predictions/model=ranking/*/*/*.parquet"
    found = duckdb.sql(
        'SELECT "row", unit, variant_served, "status.user_profile", "f.user_profile.f0", "y.score" '
        f"FROM read_parquet('{files}', union_by_name=true) "
        f"WHERE prediction_id = '{answer['parameters']['prediction_id']}' ORDER BY \"row\""
    ).fetchall()
    assert [row[:4] for row in found] == [(0, unit, "control", None), (1, unit, "control", None)]
    assert [row[4] for row in found] == pytest.approx(rows[:, 0].tolist())
    assert [row[5] for row in found] == pytest.approx(answer["outputs"][0]["data"])


def test_the_server_and_its_models_are_described(client):
    assert client.ask("GET", "/v2").json["extensions"] == ["binary_tensor_data"]
    assert client.ask("GET", "/v2/health/live").json == {"live": True}
    assert client.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert client.ask("GET", "/v2/models/ranking/ready").json["ready"] is True
    metadata = client.ask("GET", "/v2/models/basket").json
    assert metadata["versions"] == ["1", "2"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("amounts", "FP32", [-1, 3]),
        ("visits", "INT64", [-1]),
        ("tier", "BYTES", [-1]),
    ]


def basket() -> list[dict]:
    return [
        {"name": "amounts", "datatype": "FP32", "shape": [2, 3], "data": [[4, 1, 9], [0, 0, -1]]},
        {"name": "visits", "datatype": "INT64", "shape": [2], "data": [3, 4]},
        {"name": "tier", "datatype": "BYTES", "shape": [2], "data": ["gold", "é"]},
    ]


def test_only_the_asked_outputs_come_in_their_order_and_a_nan_is_null(client):
    body = {"inputs": basket(), "outputs": [{"name": "tier_echo"}, {"name": "roots"}], "parameters": {"unit": "u1"}}
    answer = client.post("/v2/models/basket/infer", body).json
    assert [output["name"] for output in answer["outputs"]] == ["tier_echo", "roots"]
    assert answer["outputs"][0]["data"] == ["gold", "é"]
    assert answer["outputs"][1]["data"] == [2.0, 1.0, 3.0, 0.0, 0.0, None]


def test_a_version_can_be_named_where_the_route_lets_callers_choose_and_is_logged_as_forced(client, gateway):
    reply = client.post("/v2/models/basket/versions/2/infer", {"inputs": basket()})
    answer = reply.json
    assert (reply.status, answer["model_version"]) == (200, "2")
    assert "experiment" not in answer["parameters"]
    gateway.wait_for_log()
    files = f"{gateway.log_directory}/predictions/model=basket/*/*/*.parquet"
    found = duckdb.sql(
        f"SELECT DISTINCT forced, experiment, version FROM read_parquet('{files}', union_by_name=true) "
        f"WHERE prediction_id = '{answer['parameters']['prediction_id']}'"
    ).fetchall()
    assert found == [(True, None, "2")]


X = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/v2/models/nothing/infer", {"inputs": [X]}, 404, "no model 'nothing'"),
        ("POST", "/v2/models/ranking/versions/9/infer", {"inputs": [X]}, 404, "no version '9'"),
        ("POST", "/v2/models/ranking/versions/1/infer", {"inputs": [X]}, 403, "split by an experiment"),
        ("GET", "/v2/models/nothing", None, 404, "no model 'nothing'"),
        ("GET", "/v2/models/ranking/versions/9/ready", None, 404, "no version '9'"),
        ("GET", "/v2/models", None, 404, "nothing at"),
        ("GET", "/v2/repository/index", None, 404, "nothing at"),
        ("GET", INFER, None, 405, "use POST"),
        ("POST", "/v2/health/live", None, 405, "use GET"),
        ("POST", INFER, b"{", 400, "truncated"),
        ("POST", INFER, {"inputs": []}, 400, "length"),
        ("POST", INFER, {"inputs": [X]}, 422, "give `unit`"),
        ("POST", INFER, {"inputs": [X], "parameters": {"unit": True}}, 422, "unit must be"),
        ("POST", INFER, {"inputs": [X], "parameters": {"unit": "u1"}}, 422, "has shape [1, 1]"),
        ("POST", INFER, {"inputs": [{**X, "name": "Z"}], "parameters": {"unit": "u1"}}, 422, "the inputs are ['Z']"),
        ("POST", INFER, {"inputs": [{**X, "datatype": "FP64"}], "parameters": {"unit": "u1"}}, 422, "FP64"),
        ("POST", INFER, {"inputs": [{**X, "shape": [0, 1], "data": []}], "parameters": {"unit": "u1"}}, 422, "no rows"),
        ("POST", INFER, {"inputs": [X, {**X, "name": "Y", "shape": [2], "data": [1, 2]}]}, 422, "must be alike"),
        ("POST", INFER, {"inputs": [X], "outputs": [{"name": "no"}], "parameters": {"unit": 1}}, 422, "output 'no'"),
    ],
)  # fmt: skip
def test_an_error_is_the_protocols_and_says_what_was_wrong(client, method, path, body, status, said):
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = client.ask(method, path, content, {"content-type": "application/json"})
    assert (reply.status, list(reply.json)) == (status, ["error"])
    assert said in reply.json["error"]
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("length", ["99999999999", "-1", "1e3", "x", "9" * 400])
def test_a_false_length_of_the_json_part_is_refused(client, length):
    body = json.dumps({"inputs": [X]}).encode()
    reply = client.ask("POST", INFER, body, {"inference-header-content-length": length})
    assert (reply.status, list(reply.json)) == (400, ["error"])


def test_more_rows_than_the_route_takes_are_refused_before_they_are_scored(client):
    amounts = {"name": "amounts", "datatype": "FP32", "shape": [21, 3], "data": [0] * 63}
    visits = {"name": "visits", "datatype": "INT64", "shape": [21], "data": [0] * 21}
    tier = {"name": "tier", "datatype": "BYTES", "shape": [21], "data": ["t"] * 21}
    body = {"inputs": [amounts, visits, tier], "parameters": {"unit": "u1"}}
    reply = client.post("/v2/models/basket/infer", body)
    assert (reply.status, "at most 20" in reply.json["error"]) == (413, True)
