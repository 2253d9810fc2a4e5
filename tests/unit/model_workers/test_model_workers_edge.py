import asyncio
import gzip
import json

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from contracts.inference import InferenceRequest, RequestedOutput, decode_response, encode_request, tensor_of
from contracts.manifest import Input, Output, encode_manifest
from model_workers import errors
from model_workers.batcher import Batcher
from model_workers.edge import STATUS_AND_REASON_BY_ERROR, WorkerApp
from model_workers.executions import Executions
from model_workers.metrics import VersionMetrics, WorkerMetrics
from model_workers.model_version import ModelVersion
from model_workers.request_rows import RowReader
from model_workers.served_models import ServedModels, ServedVersion
from tests.unit.http_server import exchanges
from tests.unit.model_workers.fake_parts import FakeRuntime, HandClock, HandExecutor
from tests.unit.model_workers.published_models import onnx_manifest
from tests.unit.model_workers.repository_bench import until

QUEUE_ROWS_MAX = 8
BODY_BYTES_MAX = 10_000
OUTPUTS = (Output("total", "FP32"), Output("both", "FP32", (-1, 2)))


def sums(inputs):
    """Answer each row with its sum and itself; a first value of -1 fails, one of -2 makes a NaN."""
    x = inputs["x"]
    if (x[:, 0] == -1).any():
        raise ValueError("a row that this model cannot take")
    return {"total": np.where(x[:, 0] == -2, np.nan, x.sum(axis=1)), "both": x}


class Answer(exchanges.Answer):
    """What an application sent."""

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        assert self.headers[b"content-type"] == b"application/json"
        return self.json["error"]


class WorkerBench:
    """An application over model `m`, versions 2 and 10, with a runtime of the test's own."""

    def __init__(self, *, executor=None, clock=None):
        self.models, self.registry = ServedModels(), CollectorRegistry()
        self.clock = clock or HandClock()
        self._executor = executor
        self.metrics = WorkerMetrics(self.registry)
        self.app = WorkerApp(self.models, self.metrics, self.registry, body_bytes_max=BODY_BYTES_MAX, release="1.2.3")

    def serve(self, *versions, model="m"):
        for version in versions:
            manifest = onnx_manifest(model, version, 2, inputs=(Input("x", "FP32", (-1, 2)),), outputs=OUTPUTS)
            metrics = VersionMetrics(
                self.metrics, model, version, clock_us=self.clock, wall_clock_ms=lambda: 1_700_000_000_000
            )
            loop = asyncio.get_running_loop()
            batcher = Batcher(
                ModelVersion(manifest, FakeRuntime(sums)).execute,
                self._executor or Executions(loop, threads=0, inline_rows_max=1 << 20, name=model),
                batch_rows_max=manifest.batch_rows_max,
                queue_rows_max=QUEUE_ROWS_MAX,
                executions_max=1,
                clock_us=self.clock,
                observer=metrics,
            )
            self.models.add(
                ServedVersion(
                    manifest=manifest,
                    document=encode_manifest(manifest),
                    reader=RowReader(manifest, QUEUE_ROWS_MAX),
                    batcher=batcher,
                    metrics=metrics,
                    datatypes={output.name: output.dtype for output in OUTPUTS},
                )
            )
        self.models.ready = True

    async def ask(self, method, path, body=b"", headers=()):
        answer = await exchanges.ask(self.app, method, path, body, headers)
        answer.__class__ = Answer
        return answer


def ask(method, path, body=b"", headers=()):
    """Ask a fresh worker one thing."""

    async def scenario():
        bench = WorkerBench()
        bench.serve("2", "10")
        return await bench.ask(method, path, body, headers)

    return asyncio.run(scenario())


def infer_json(path="/v2/models/m/infer", **fields):
    x = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    return ask("POST", path, json.dumps({"inputs": [x], **fields}).encode())


def binary_body(rows, **fields):
    x = tensor_of("x", np.array(rows, dtype=np.float32), "FP32")
    document, buffers = encode_request(InferenceRequest(inputs=(x,), **fields))
    return b"".join([document, *buffers]), [(b"inference-header-content-length", b"%d" % len(document))]


def infer_binary(rows, **fields):
    return ask("POST", "/v2/models/m/infer", *binary_body(rows, **fields))


def decoded(answer):
    length = answer.headers.get(b"inference-header-content-length")
    return decode_response(answer.body, None if length is None else int(length))


def test_the_server_tells_its_name_release_and_extensions():
    extensions = ["binary_tensor_data", "statistics", "sekisho_manifest"]
    assert ask("GET", "/v2").json == {"name": "sekisho-worker", "version": "1.2.3", "extensions": extensions}


def test_a_model_tells_its_inputs_outputs_and_loaded_versions():
    document = ask("GET", "/v2/models/m").json
    assert document["versions"] == ["2", "10"]
    assert document["platform"] == "onnxruntime_onnx"
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert document["outputs"][1] == {"name": "both", "datatype": "FP32", "shape": [-1, 2]}


def test_a_version_shows_its_manifest_as_it_was_published():
    manifest = onnx_manifest("m", "2", 2, inputs=(Input("x", "FP32", (-1, 2)),), outputs=OUTPUTS)
    assert ask("GET", "/v2/models/m/versions/2/manifest").body == encode_manifest(manifest)


def test_without_a_version_the_highest_one_answers_and_ten_is_above_two():
    assert infer_json().json["model_version"] == "10"
    assert infer_json("/v2/models/m/versions/2/infer").json["model_version"] == "2"


def test_a_json_request_that_asks_nothing_gets_every_output_as_json_and_its_id_back():
    answer = infer_json(id="a-1")
    assert answer.headers[b"content-type"] == b"application/json"
    assert answer.json == {
        "model_name": "m",
        "model_version": "10",
        "id": "a-1",
        "outputs": [
            {"name": "total", "datatype": "FP32", "shape": [2], "data": [3.0, 7.0]},
            {"name": "both", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]},
        ],
    }


def test_only_the_requested_outputs_are_answered_in_the_order_asked():
    outputs = infer_json(outputs=[{"name": "both"}, {"name": "total"}]).json["outputs"]
    assert [output["name"] for output in outputs] == ["both", "total"]
    assert [output["name"] for output in infer_json(outputs=[{"name": "both"}]).json["outputs"]] == ["both"]


def test_a_binary_request_gets_binary_outputs_where_it_asks_for_them():
    answer = infer_binary([[1, 2], [3, 4]], binary_output=True, id="b")
    assert answer.headers[b"content-type"] == b"application/octet-stream"
    response = decoded(answer)
    assert response.id == "b"
    assert [output.array().tolist() for output in response.outputs] == [[3, 7], [[1, 2], [3, 4]]]


def test_a_binary_request_that_asks_nothing_gets_json():
    answer = infer_binary([[1, 2]])
    assert b"inference-header-content-length" not in answer.headers
    assert answer.json["outputs"][0]["data"] == [3.0]


def test_what_an_output_says_of_itself_wins_over_what_the_request_says_of_all():
    asked = (RequestedOutput("total", binary=False), RequestedOutput("both"))
    answer = infer_binary([[1, 2]], binary_output=True, outputs=asked)
    length = int(answer.headers[b"inference-header-content-length"])
    total, both = json.loads(answer.body[:length])["outputs"]
    assert total["data"] == [3.0]
    assert both["parameters"] == {"binary_data_size": 8}
    assert len(answer.body) - length == 8


def test_a_nan_is_null_in_json_and_a_nan_in_binary():
    answer = infer_json(inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [-2, 0]}])
    assert answer.json["outputs"][0]["data"] == [None]
    assert np.isnan(decoded(infer_binary([[-2, 0]], binary_output=True)).outputs[0].array()).all()


def test_rows_that_the_model_cannot_take_are_a_500_that_says_so_and_no_traceback():
    answer = infer_binary([[-1, 0]])
    assert answer.status == 500
    assert answer.error == "m@10 failed on 1 row: ValueError: a row that this model cannot take"


HOSTILE_DOCUMENTS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"inputs": []}',
    b"[" * 10_000,
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, NaN]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1e99]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, "2"]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, -2], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [268435456, 268435456], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 2], "data": []}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP99", "shape": [1, 2], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "outputs": [{"name": "no"}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": -8}}]}',
]


@pytest.mark.parametrize("document", HOSTILE_DOCUMENTS, ids=range(len(HOSTILE_DOCUMENTS)))
def test_a_document_that_is_no_request_is_a_400_that_names_the_fault(document):
    answer = ask("POST", "/v2/models/m/infer", document)
    assert answer.status == 400
    assert len(answer.error) > 10


@pytest.mark.parametrize("length", [b"99999999999", b"-1", b"", b"ten", b"9" * 10_000, b"1"])
def test_a_wrong_header_length_is_a_400(length):
    body, _ = binary_body([[1, 2]])
    answer = ask("POST", "/v2/models/m/infer", body, [(b"inference-header-content-length", length)])
    assert answer.status == 400


@pytest.mark.parametrize("cut", [1, 7, 8, 60])
def test_a_body_that_is_cut_short_is_a_400(cut):
    body, headers = binary_body([[1, 2]])
    assert ask("POST", "/v2/models/m/infer", body[:-cut], headers).status == 400


def test_bytes_that_no_tensor_declares_are_a_400():
    body, headers = binary_body([[1, 2]])
    assert ask("POST", "/v2/models/m/infer", body + b"\0", headers).status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/models/m",
        "/v2/models",
        "/v2/models/",
        "/v2/models/other/infer",
        "/v2/models/m/versions/3/infer",
        "/v2/models/m/versions//infer",
        "/v2/models/../m/infer",
        "/v2/models/../../etc/passwd",
        "/v2/models/m/versions/../2/infer",
        "/v2/models/m\n/infer",
        "/v2/models/" + "m" * 10_000 + "/infer",
        "/v2/models/m/unload",
    ],
)
def test_a_path_that_leads_nowhere_is_a_short_404(path):
    answer = ask("POST", path)
    assert answer.status == 404
    assert len(answer.error) < 500


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/m/infer", b"POST"),
        ("DELETE", "/v2/models/m", b"GET, HEAD"),
        ("POST", "/v2/models/m/versions/2/manifest", b"GET, HEAD"),
        ("PUT", "/v2", b"GET, HEAD"),
        ("POST", "/metrics", b"GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(method, path, allowed):
    answer = ask(method, path)
    assert (answer.status, answer.headers[b"allow"]) == (405, allowed)


def test_the_bound_of_a_body_is_the_servers_and_that_of_what_it_inflates_to():
    bench = WorkerBench()
    assert bench.app.body_bytes_max(b"/v2/models/m/infer") == BODY_BYTES_MAX
    bomb = gzip.compress(b" " * (BODY_BYTES_MAX + 1))
    assert ask("POST", "/v2/models/m/infer", bomb, [(b"content-encoding", b"gzip")]).status == 413


@pytest.mark.parametrize("status", [400, 408, 413, 431, 503])
def test_what_the_server_refuses_by_itself_is_the_protocols_error_and_is_counted(status):
    bench = WorkerBench()
    head, body = bench.app.refusal(status, "why", b"/v2", [])
    assert head.startswith(b"content-type: application/json\r\n")
    assert json.loads(body) == {"error": "why"}
    (counted,) = [value for labels, value in bench.metrics.failures.values.items() if labels[:2] == ("", "")]
    assert counted == 1


def test_a_request_of_more_rows_than_ever_fit_is_a_413():
    answer = infer_binary([[1, 2]] * (QUEUE_ROWS_MAX + 1))
    assert answer.status == 413
    assert answer.error == "rows of one request: 9 given, at most 8 taken"


def test_an_unknown_content_encoding_is_a_415():
    assert ask("POST", "/v2/models/m/infer", b"x", [(b"content-encoding", b"br")]).status == 415


def test_full_queue_expired_budget_and_shutdown_are_told_apart():
    async def scenario():
        executor = HandExecutor()
        bench = WorkerBench(executor=executor)
        bench.serve("1")
        infer = "/v2/models/m/infer"
        running = asyncio.create_task(bench.ask("POST", infer, *binary_body([[1, 2]])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = asyncio.create_task(bench.ask("POST", infer, *binary_body([[1, 2]], parameters={"timeout": 100})))
        filling = asyncio.create_task(bench.ask("POST", infer, *binary_body([[1, 2]] * (QUEUE_ROWS_MAX - 1))))
        await asyncio.sleep(0)
        full = await bench.ask("POST", infer, *binary_body([[1, 2]]))
        scrape = await bench.ask("GET", "/metrics")
        bench.clock.now_us += 100
        executor.run_next()
        answers = [await running, await late]
        next(iter(bench.models)).batcher.abort()
        return full, scrape, *answers, await filling, await bench.ask("GET", "/metrics")

    full, scrape, running, late, filling, after = asyncio.run(scenario())
    assert (full.status, full.headers[b"retry-after"]) == (503, b"1")
    assert running.status == 200
    assert (late.status, late.error) == (504, "waited 100 µs of a timeout of 100 µs; the model was not run")
    assert (filling.status, filling.headers[b"retry-after"]) == (503, b"1")
    assert b'sekisho_worker_waiting_rows{model="m",version="1"} 8.0' in scrape.body
    assert b'sekisho_worker_failures_total{model="m",reason="expired",version="1"} 1.0' in after.body
    assert b'sekisho_worker_requests_total{model="m",version="1"} 2.0' in after.body


def test_a_version_that_answers_is_ready_while_others_of_the_worker_still_load():
    async def scenario():
        bench = WorkerBench()
        bench.serve("1")
        bench.models.ready = False
        bench.models.expect("m", "2")
        paths = ("/health/ready", "/models/m/ready", "/models/m/versions/1/ready", "/models/m/versions/2/ready")
        return [(await bench.ask("GET", f"/v2{path}")).status for path in paths]

    assert asyncio.run(scenario()) == [503, 200, 200, 503]


def test_readiness_follows_loading_and_draining():
    async def scenario():
        bench = WorkerBench()
        bench.models.expect("m", "1")
        before = [(await bench.ask("GET", path)).status for path in ("/v2/health/live", "/v2/health/ready")]
        loading = await bench.ask("GET", "/v2/models/m/ready")
        bench.serve("1")
        bench.models.fail("m", "2", "its artifact is damaged")
        ready = [(await bench.ask("GET", f"/v2{path}")).status for path in ("/health/ready", "/models/m/ready")]
        damaged = await bench.ask("POST", "/v2/models/m/versions/2/infer")
        bench.models.draining = True
        leaving = [
            await bench.ask("GET", f"/v2{path}") for path in ("/health/ready", "/models/m/ready", "/health/live")
        ]
        served = await bench.ask("POST", "/v2/models/m/infer", *binary_body([[1, 2]]))
        return before, loading, ready, damaged, leaving, served

    before, loading, ready, damaged, leaving, served = asyncio.run(scenario())
    assert before == [200, 503]
    assert (loading.status, loading.error) == (503, "m@1 is not ready: it is loading")
    assert ready == [200, 200]
    assert (damaged.status, damaged.error) == (503, "m@2 is not ready: its artifact is damaged")
    assert [answer.status for answer in leaving] == [503, 503, 200]
    assert served.status == 200


def test_a_fault_of_the_worker_itself_is_a_500_that_keeps_its_innards_for_the_log(monkeypatch, caplog):
    def broken(*_):
        raise KeyError("secret")

    monkeypatch.setattr(RowReader, "outputs", broken)
    answer = infer_json()
    assert (answer.status, answer.error) == (500, "the worker failed on this request; its log says why")
    assert "secret" in caplog.text


def test_a_version_that_is_swapped_while_a_body_inflates_is_looked_up_again():
    async def scenario():
        bench = WorkerBench()
        bench.serve("1")
        body, headers = binary_body([[1, 2]])
        headers = [*headers, (b"content-encoding", b"gzip")]
        answer = asyncio.create_task(bench.ask("POST", "/v2/models/m/infer", gzip.compress(body), headers))
        await asyncio.sleep(0)  # it has been taken, and inflates on a thread
        bench.serve("2")
        bench.models.remove("m", "1")
        return await answer

    answer = asyncio.run(scenario())
    assert (answer.status, answer.json["model_version"]) == (200, "2")


def test_what_is_not_served_is_refused_before_its_body_is_inflated():
    assert ask("POST", "/v2/models/other/infer", b"no gzip", [(b"content-encoding", b"gzip")]).status == 404


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/m/load"])
def test_the_model_repository_is_not_on_the_data_port_and_the_answer_says_where_it_is(path):
    answer = ask("POST", path)
    assert (answer.status, "--admin-port" in answer.error) == (404, True)


def statistics_after(*requests, path="/v2/models/m/stats", versions=("1",)):
    async def scenario():
        bench = WorkerBench()
        bench.serve(*versions)
        for rows in requests:
            await bench.ask("POST", "/v2/models/m/infer", *binary_body(rows))
        return await bench.ask("GET", path)

    return asyncio.run(scenario())


def test_statistics_count_requests_rows_executions_and_failures():
    (stats,) = statistics_after([[1, 2]], [[1, 2]] * 3, [[-1, 0]]).json["model_stats"]
    assert (stats["name"], stats["version"], stats["last_inference"]) == ("m", "1", 1_700_000_000_000)
    assert (stats["inference_count"], stats["execution_count"]) == (5, 3)
    counts = {name: duration["count"] for name, duration in stats["inference_stats"].items()}
    assert counts == {
        "success": 2,
        "fail": 1,
        "queue": 3,
        "compute_infer": 3,
        **dict.fromkeys(("compute_input", "compute_output", "cache_hit", "cache_miss"), 0),
    }
    sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]}
    assert sizes == {1: 2, 4: 1}


def test_statistics_measure_the_wait_the_execution_and_the_whole():
    async def scenario():
        executor = HandExecutor()
        bench = WorkerBench(executor=executor)
        bench.serve("1")
        asking = asyncio.create_task(bench.ask("POST", "/v2/models/m/infer", *binary_body([[1, 2]])))
        await until(lambda: executor.started)
        bench.clock.now_us += 70
        executor.run_next()
        await asking
        return await bench.ask("GET", "/v2/models/m/versions/1/stats")

    (stats,) = asyncio.run(scenario()).json["model_stats"]
    assert stats["inference_stats"]["success"] == {"count": 1, "ns": 70_000}
    assert stats["inference_stats"]["queue"] == {"count": 1, "ns": 0}


def test_statistics_of_a_model_are_those_of_each_version_and_without_a_model_of_all():
    versions = ("2", "10")
    of_model = statistics_after(versions=versions).json["model_stats"]
    assert [stats["version"] for stats in of_model] == ["2", "10"]
    assert statistics_after(versions=versions, path="/v2/models/stats").json["model_stats"] == of_model
    (one,) = statistics_after(versions=versions, path="/v2/models/m/versions/2/stats").json["model_stats"]
    assert one == of_model[0]


@pytest.mark.parametrize("path", ["/v2/models/x/stats", "/v2/models/m/versions/3/stats"])
def test_statistics_of_what_is_not_served_are_a_404(path):
    assert statistics_after(path=path).status == 404


def test_a_model_called_stats_answers_on_every_path_but_the_one_of_all_statistics():
    async def scenario():
        bench = WorkerBench()
        bench.serve("1", model="stats")
        paths = ("", "/versions/1", "/ready", "/stats", "/manifest")
        answers = [await bench.ask("GET", f"/v2/models/stats{path}") for path in paths]
        return [*answers, await bench.ask("POST", "/v2/models/stats/infer", *binary_body([[1, 2]]))]

    answers = asyncio.run(scenario())
    assert {answer.status for answer in answers} == {200}
    assert "model_stats" in answers[0].json
    assert answers[1].json["name"] == "stats"
    assert answers[-1].json["model_name"] == "stats"


def test_every_error_that_a_request_can_meet_has_a_status():
    of_artifacts = {errors.ArtifactMismatch, errors.FileChanged}
    while_loading_only = {errors.WorkerError, errors.ModelMismatch, errors.RuntimeMissing, *of_artifacts}
    told = {error for error in STATUS_AND_REASON_BY_ERROR if issubclass(error, errors.WorkerError)}
    every = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.WorkerError)}
    assert told == every - while_loading_only
