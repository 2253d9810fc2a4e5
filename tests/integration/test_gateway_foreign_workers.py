import math
from pathlib import Path

import duckdb
import pytest

from tests.integration.foreign_server import METADATA, ForeignServer
from tests.integration.gateway_client import until

pytestmark = pytest.mark.integration

ROUTES = """\
models:
  ranking:
    unit: user
    deadline_ms: 5000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{ours}"]}}
      "2":
        workers: ["http://127.0.0.1:{theirs}"]
        server: {{model: their-sum, version: null}}
        signature:
          inputs: [{{name: rows, dtype: FP64, shape: [-1, 2], features: ["user_profile:f0", "request:hour"]}}]
          outputs: [{{name: score, dtype: FP64, shape: [-1], source: sums, column: 1}}]
  sums:
    deadline_ms: 5000
    default_version: "1"
    versions:
      "1": {{workers: ["http://127.0.0.1:{theirs}"], server: {{model: their-sum, version: null}}}}
"""

EXPERIMENT = """\
experiment: ours-or-theirs
model: ranking
unit: user
state: running
variants:
  - {name: ours, version: "1", bp: 5000}
  - {name: theirs, version: "2", bp: 5000}
"""


@pytest.fixture
def configured(stack, tmp_path):
    """Start gateways whose second version, and a model without features, are on a server of another make."""
    started = []

    def start(server: ForeignServer, *, wait: bool = True):
        (tmp_path / "models.yaml").write_text(ROUTES.format(ours=stack.worker_ports["a"], theirs=server.port))
        (tmp_path / "experiments.yaml").write_text(EXPERIMENT)
        files = ("--config", str(tmp_path / "models.yaml"), "--experiments", str(tmp_path / "experiments.yaml"))
        gateway = stack.start_gateway(*files, "--shutdown-grace-s", "0", wait=wait)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        gateway.child.stop()


def test_a_split_between_our_worker_and_a_json_only_server_answers_with_the_values_of_each(stack, configured):
    with ForeignServer() as server:
        gateway = configured(server)
        with gateway.client() as client:
            seen = set()
            for user in range(40):
                request = {"entities": {"user": f"u{user}", "item": "i0"}, "features": {"hour": 3}}
                answer = client.predict("ranking", request).json
                seen.add(answer["variant"])
                if answer["variant"] == "theirs":
                    expected = float(stack.stored.users[user, 0]) + 3
                    assert answer["predictions"] == [pytest.approx(expected, rel=1e-12)]
                    assert answer["version"] == "2"
                assert answer["degraded"] == []
        assert seen == {"ours", "theirs"}
        path, sent = server.asked[0]
        assert path == "/v2/models/their-sum/infer"
        assert sent["inputs"][0].keys() == {"name", "datatype", "shape", "data"}
        assert "binary_data_output" not in sent["parameters"]
        assert sent["outputs"] == [{"name": "sums"}]
        gateway.wait_for_log()
        assert logged(gateway.log_directory, "ranking", '"f.user_profile.f0" + "f.request.hour" = "y.score"') > 0


def logged(directory: Path, model: str, condition: str) -> int:
    files = f"{directory}/predictions/model={model}/*/*/*.parquet"
    query = f"SELECT count(*) FROM read_parquet('{files}', union_by_name=true) WHERE version = '2' AND {condition}"
    ((count,),) = duckdb.sql(query).fetchall()
    return count


def test_a_model_that_only_its_servers_metadata_describes_takes_raw_tensors_and_is_logged(configured):
    with ForeignServer() as server:
        gateway = configured(server)
        with gateway.client() as client:
            tensor = {"name": "rows", "datatype": "FP64", "shape": [3, 2], "data": [1, 2, 3, 4, None, 5]}
            answer = client.post("/v2/models/sums/infer", {"inputs": [tensor]}).json
            assert answer["outputs"] == [
                {"name": "sums", "datatype": "FP64", "shape": [3, 2], "data": [0.0, 3.0, 0.0, 7.0, 0.0, 5.0]}
            ]
            refused = client.predict("sums", {"entities": {}})
            assert (refused.status, refused.json["code"]) == (422, "invalid_request")
            assert "POST /v2/models/sums/infer" in refused.json["detail"]
        gateway.wait_for_log()
        files = f"{gateway.log_directory}/predictions/model=sums/*/*/*.parquet"
        rows = duckdb.sql(
            f'SELECT "row", "f.rows.0", "f.rows.1", "y.sums.1" FROM \'{files}\' ORDER BY "row"'
        ).fetchall()
        assert [row[:2] for row in rows[:2]] == [(0, 1.0), (1, 3.0)]
        assert math.isnan(rows[2][1])  # null in JSON is NaN, and NaN is what was fed
        assert [row[3] for row in rows] == [3.0, 7.0, 5.0]


@pytest.mark.parametrize("outputs", [[], [{"name": "sums", "datatype": "FP64", "shape": [2]}]])
def test_a_server_that_does_not_say_enough_is_named_with_what_the_route_has_to_supply(configured, outputs):
    with ForeignServer({**METADATA, "outputs": outputs}) as server:
        gateway = configured(server, wait=False)

        def told() -> bool:
            try:
                versions = gateway.admin("/admin/v1/status")["models"]["sums"]["versions"]
            except OSError:
                return False  # it does not listen yet
            return "versions.1.signature in the route" in (versions["1"]["problem"] or "")

        until("the status says what is missing", told)
