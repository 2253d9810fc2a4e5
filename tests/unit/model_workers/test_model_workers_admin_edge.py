import asyncio
import gzip
import json

import pytest

from model_workers.admin_edge import AdminApp
from tests.unit.http_server import exchanges
from tests.unit.model_workers.repository_bench import RepositoryBench


class Reads:
    """Stands for the data port's application; keeps the paths that reached it."""

    def __init__(self):
        self.paths = []

    def serve(self, exchange):
        self.paths.append(exchange.path)
        exchange.respond(200, b"", b"null")


def ask_all(folder, *requests):
    """Ask an admin port over churn@1 and churn@2, of which the latest is loaded. Returns (status, document) of each."""

    async def scenario():
        bench, reads = RepositoryBench(folder, latest=1), Reads()
        bench.publish("churn@1", "churn@2")
        await bench.control.apply_policy()
        bench.damage("churn@1")
        app = AdminApp(bench.control, reads)
        return [await ask(app, *request) for request in requests], bench, reads

    return asyncio.run(scenario())


async def ask(app, method, path, body=b"", headers=()):
    answer = await exchanges.ask(app, method, path, body, headers)
    return answer.status, json.loads(answer.body)


LOAD, UNLOAD = "/v2/repository/models/churn/load", "/v2/repository/models/churn/unload"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_index_lists_every_version_also_one_that_was_published_just_now(tmp_path, method):
    async def scenario():
        bench = RepositoryBench(tmp_path, latest=1)
        bench.publish("churn@1")
        await bench.control.apply_policy()
        bench.publish("churn@2")
        return await ask(AdminApp(bench.control, Reads()), method, "/v2/repository/index")

    status, entries = asyncio.run(scenario())
    assert status == 200
    assert entries == [
        {"name": "churn", "version": "1", "state": "READY", "reason": ""},
        {"name": "churn", "version": "2", "state": "UNAVAILABLE", "reason": "not loaded"},
    ]


def test_the_index_of_ready_versions_has_only_those(tmp_path):
    ((status, entries),), _, _ = ask_all(tmp_path, ("POST", "/v2/repository/index", b'{"ready": true, "name": "x"}'))
    assert (status, [entry["version"] for entry in entries]) == (200, ["2"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/models/churn/versions/2/unload", b""),
        (UNLOAD, b'{"parameters": {"version": "2", "unload_dependents": false}}'),
        (UNLOAD, b"{}"),
    ],
)
def test_an_unload_is_an_empty_object_and_the_version_is_gone(tmp_path, path, body):
    (answer,), bench, _ = ask_all(tmp_path, ("POST", path, body))
    assert answer == (200, {})
    assert bench.served == []


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v2/repository/models/churn/versions/2/load", b""), (LOAD, b'{"parameters": {"version": "2"}}'), (LOAD, b"")],
)
def test_a_load_is_an_empty_object_and_the_version_answers(tmp_path, path, body):
    answers, bench, _ = ask_all(tmp_path, ("POST", UNLOAD), ("POST", path, body))
    assert answers == [(200, {}), (200, {})]
    assert bench.served == ["churn@2"]


def test_a_load_that_fails_is_a_400_that_says_why(tmp_path):
    (answer,), bench, _ = ask_all(tmp_path, ("POST", "/v2/repository/models/churn/versions/1/load"))
    assert answer == (400, {"error": "churn@1 was not loaded: it is damaged"})
    assert bench.served == ["churn@2"]


@pytest.mark.parametrize("operation", ["load", "unload"])
def test_a_model_that_is_nowhere_is_a_404(tmp_path, operation):
    ((status, document),), _, _ = ask_all(tmp_path, ("POST", f"/v2/repository/models/fraud/{operation}"))
    assert (status, "fraud" in document["error"]) == (404, True)


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_a_load_that_brings_its_own_model_is_refused_with_the_reason(tmp_path, name):
    body = json.dumps({"parameters": {name: "{}"}}).encode()
    ((status, document),), _, _ = ask_all(tmp_path, ("POST", LOAD, body))
    assert status == 400
    assert "a version is served as it was published" in document["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (LOAD, b"{"),
        (LOAD, b"[]"),
        (LOAD, b"\xff"),
        (LOAD, b"[" * 10_000),
        (LOAD, b'{"parameters": []}'),
        (LOAD, b'{"parameters": {"version": 2}}'),
        (LOAD, b'{"parameters": {"version": ""}}'),
        ("/v2/repository/models/churn/versions/1/load", b'{"parameters": {"version": "2"}}'),
        ("/v2/repository/index", b'{"ready": "yes"}'),
    ],
)
def test_a_body_that_is_no_request_is_a_400(tmp_path, path, body):
    ((status, document),), bench, _ = ask_all(tmp_path, ("POST", path, body))
    assert (status, len(document["error"]) > 10) == (400, True)
    assert bench.served == ["churn@2"]


def test_a_body_beyond_the_limit_is_a_413(tmp_path):
    bomb = gzip.compress(b" " * (64 * 1024 + 1))
    ((status, _),), _, _ = ask_all(tmp_path, ("POST", LOAD, bomb, [(b"content-encoding", b"gzip")]))
    assert status == 413
    assert AdminApp(None, Reads()).body_bytes_max(LOAD.encode()) == 64 * 1024


@pytest.mark.parametrize(("method", "path"), [("GET", LOAD), ("DELETE", UNLOAD), ("PUT", "/v2/repository/index")])
def test_a_wrong_method_is_a_405(tmp_path, method, path):
    ((status, document),), _, _ = ask_all(tmp_path, (method, path))
    assert (status, "POST" in document["error"]) == (405, True)


@pytest.mark.parametrize(
    "path", ["/v2/repository/", "/v2/repository/models/churn", "/v2/repository/models/a/b/load", "/v2/repository/x"]
)
def test_a_path_below_the_repository_that_leads_nowhere_is_a_404(tmp_path, path):
    ((status, _),), _, _ = ask_all(tmp_path, ("POST", path))
    assert status == 404


def test_inference_is_a_404_that_names_the_data_port_and_reads_are_passed_on(tmp_path):
    answers, _, reads = ask_all(
        tmp_path, ("POST", "/v2/models/churn/infer"), ("GET", "/v2/health/ready"), ("GET", "/v2/models/churn/stats")
    )
    assert answers[0][0] == 404
    assert "--port" in answers[0][1]["error"]
    assert reads.paths == ["/v2/health/ready", "/v2/models/churn/stats"]


def test_a_repository_that_is_gone_is_a_503(tmp_path):
    async def scenario():
        bench = RepositoryBench(tmp_path / "gone")
        return await ask(AdminApp(bench.control, Reads()), "POST", "/v2/repository/index")

    status, document = asyncio.run(scenario())
    assert (status, "is not a directory" in document["error"]) == (503, True)


def test_a_fault_of_the_worker_is_a_500_that_keeps_its_innards_for_the_log(tmp_path, caplog):
    async def scenario():
        bench = RepositoryBench(tmp_path)
        bench.publish("churn@1")
        bench.faults["churn@1"] = KeyError("secret")
        return await ask(AdminApp(bench.control, Reads()), "POST", LOAD)

    status, document = asyncio.run(scenario())
    assert (status, "secret" in document["error"], "secret" in caplog.text) == (500, False, True)
