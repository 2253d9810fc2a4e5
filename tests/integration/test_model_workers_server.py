import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import zlib

import numpy as np
import pytest

from contracts.manifest import FILE_NAME, Input, Output
from tests.unit.model_workers.published_models import (
    lightgbm_manifest,
    publish,
    publish_lightgbm_classifier,
    publish_lightgbm_multiclass,
    publish_onnx_classifier,
)
from tests.unit.model_workers.running_worker import (
    HUGE_ARTIFACT_BYTES,
    ROOT,
    binary_request,
    running_worker,
    start_worker,
    wait_until,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def offline(repository):
    """Every published version, by runtime."""
    return {
        "onnx": publish_onnx_classifier(repository),
        "lightgbm": publish_lightgbm_classifier(repository),
        "multiclass": publish_lightgbm_multiclass(repository),
    }


@pytest.fixture(scope="module")
def worker(repository, offline, tmp_path_factory):
    log = tmp_path_factory.mktemp("worker") / "log"
    with running_worker(repository, log, "--body-bytes-max", "200000") as running:
        yield running


@pytest.mark.parametrize(
    ("runtime", "name", "datatype", "output"),
    [
        ("onnx", "X", "FP32", "malignant"),
        ("lightgbm", "features", "FP32", "malignant"),
        ("multiclass", "features", "FP64", "species"),
    ],
)
def test_scores_over_http_equal_those_offline_for_one_row_and_for_many(
    worker, offline, runtime, name, datatype, output
):
    model = offline[runtime]
    together = worker.score(model.model, model.version, name, model.rows, datatype)[output]
    np.testing.assert_allclose(together, model.scores, rtol=0, atol=1e-6)
    for i in range(5):
        alone = worker.score(model.model, model.version, name, model.rows[i : i + 1], datatype)[output]
        np.testing.assert_allclose(alone, model.scores[i : i + 1], rtol=0, atol=1e-6)


def test_json_and_binary_agree(worker, offline):
    row = offline["lightgbm"].rows[0]
    x = {"name": "features", "datatype": "FP32", "shape": [1, 30], "data": row.tolist()}
    status, _, body = worker.ask("POST", "/v2/models/diagnosis/infer", json.dumps({"inputs": [x], "id": "7"}).encode())
    answer = json.loads(body)
    assert (status, answer["model_version"], answer["id"]) == (200, "2", "7")
    score = worker.score("diagnosis", "2", "features", row[None, :], "FP32")["malignant"][0]
    assert np.float32(answer["outputs"][0]["data"][0]) == score


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_request_is_answered_and_its_header_length_counts_inflated_bytes(
    worker, offline, encoding, compress
):
    body, headers = binary_request("features", offline["lightgbm"].rows[:2], "FP32")
    path = "/v2/models/diagnosis/versions/2/infer"
    status, _, answer = worker.ask("POST", path, compress(body), {**headers, "content-encoding": encoding})
    assert (status, answer) == (200, worker.ask("POST", path, body, headers)[2])


def test_the_manifest_is_served_as_it_lies_on_disk(worker, repository):
    _, _, body = worker.ask("GET", "/v2/models/diagnosis/versions/1/manifest")
    assert body == (repository / "diagnosis" / "1" / FILE_NAME).read_bytes()


def test_metrics_count_what_was_answered(worker, offline):
    def counted():
        text = worker.ask("GET", "/metrics")[2].decode()
        line = next(x for x in text.splitlines() if x.startswith('sekisho_worker_rows_total{model="iris"'))
        return float(line.split()[-1])

    before = counted()
    worker.score("iris", "1", "features", offline["multiclass"].rows[:7], "FP64")
    assert counted() == before + 7


def raw_exchange(port, request):
    """Send bytes as they are. Returns all that comes back until the worker closes or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(request)
        received = b""
        try:
            while chunk := connection.recv(65_536):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return received


INFER = b"POST /v2/models/diagnosis/versions/2/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
HOSTILE = {
    "a declared header length of 99999999999": INFER
    + b"inference-header-content-length: 99999999999\r\ncontent-length: 2\r\n\r\n{}",
    "a negative header length": INFER + b"inference-header-content-length: -1\r\ncontent-length: 2\r\n\r\n{}",
    "a header length in words": INFER + b"inference-header-content-length: two\r\ncontent-length: 2\r\n\r\n{}",
    "a declared body of 99999999999": INFER + b"content-length: 99999999999\r\n\r\n{}",
    "a negative content length": INFER + b"content-length: -1\r\n\r\n{}",
    "length and chunks at once": INFER + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks beyond the limit": INFER
    + b"transfer-encoding: chunked\r\n\r\n"
    + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 8
    + b"0\r\n\r\n",
    "chunks that are no request": INFER + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a bomb of zeroes": INFER
    + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(gzip.compress(b"\0" * 10_000_000))
    + gzip.compress(b"\0" * 10_000_000),
    "an unknown encoding": INFER + b"content-encoding: br\r\ncontent-length: 2\r\n\r\n{}",
    "brackets 100,000 deep": INFER + b"content-length: 100000\r\n\r\n" + b"[" * 100_000,
    "dots that climb": b"GET /v2/models/../../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "dots that climb in disguise": b"GET /v2/models/%2e%2e%2f%2e%2e HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    "a head that does not end": b"GET /v2 HTTP/1.1\r\n" + b"x-more: " + b"y" * 400_000,
    "an empty path": b"GET  HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_get_a_4xx_and_the_worker_lives(worker, request_bytes):
    answer = raw_exchange(worker.port, request_bytes)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]
    assert b"Traceback" not in answer
    assert worker.is_ready()


def test_a_worker_logs_json_lines_and_nothing_else(worker):
    lines = worker.log_lines()
    assert {"ready", "loaded diagnosis@1"} <= {line["message"] for line in lines}
    assert {line["level"] for line in lines} == {"info"}


def test_a_damaged_artifact_is_refused_and_the_other_versions_serve(tmp_path):
    publish_lightgbm_classifier(tmp_path, version="1")
    damaged = tmp_path / "diagnosis" / "2"
    shutil.copytree(tmp_path / "diagnosis" / "1", damaged)
    manifest = (damaged / FILE_NAME).read_text()
    (damaged / FILE_NAME).write_text(manifest.replace('"version": "1"', '"version": "2"'))
    (damaged / "model.txt").write_bytes((damaged / "model.txt").read_bytes() + b"\n")
    with running_worker(tmp_path, tmp_path / "log") as worker:
        assert worker.ask("GET", "/v2/models/diagnosis/versions/1/ready")[0] == 200
        status, _, body = worker.ask("GET", "/v2/models/diagnosis/versions/2/ready")
        assert (status, b"SHA-256 is" in body) == (503, True)
        assert json.loads(worker.ask("GET", "/v2/models/diagnosis")[2])["versions"] == ["1"]
    told = [line["message"] for line in worker.log_lines() if line["level"] == "error"]
    assert len(told) == 1
    assert "the manifest says" in told[0]


def test_a_worker_that_starts_beside_links_that_lead_nowhere_serves_all_models_and_tells_of_each_once(tmp_path):
    publish_onnx_classifier(tmp_path)
    links = [tmp_path / "fs", tmp_path / "diagnosis" / "8"]
    for link in links:
        link.symlink_to(link.name)
    with running_worker(tmp_path, tmp_path / "log", "--poll-s", "0.05") as worker:
        assert json.loads(worker.ask("GET", "/v2/models/diagnosis")[2])["versions"] == ["1"]
    told = [line["message"] for line in worker.log_lines() if line["level"] == "warning"]
    assert sorted(told) == sorted(
        f"{link} was passed over: it cannot be looked into: Too many levels of symbolic links" for link in links
    )


def test_a_worker_that_starts_beside_a_damaged_newest_version_serves_the_one_below(tmp_path):
    publish_onnx_classifier(tmp_path, version="1")
    publish(tmp_path, b"not a model", lightgbm_manifest("diagnosis", "2", 3))
    with running_worker(tmp_path, tmp_path / "log", "--latest", "1") as worker:
        assert json.loads(worker.ask("GET", "/v2/models/diagnosis")[2])["versions"] == ["1"]
    told = [(line["level"], line["message"]) for line in worker.log_lines()]
    assert ("warning", "diagnosis@1 stands in: no selected version of it could be loaded") in told
    assert [message for level, message in told if level == "error" and "diagnosis@2 was not loaded: " in message]


def test_a_worker_that_can_load_nothing_says_why_and_exits_with_1(tmp_path):
    publish(tmp_path, b"not a model", lightgbm_manifest("broken", "1", 3))
    worker = start_worker(tmp_path, tmp_path / "log")
    assert worker.process.wait(30) == 1
    messages = [line["message"] for line in worker.log_lines()]
    assert "not LightGBM's text form" in messages[0]
    assert messages[1] == "no version could be loaded; nothing to serve"


def test_a_manifest_with_other_columns_than_its_model_is_refused(tmp_path):
    publish_lightgbm_classifier(tmp_path / "good")
    artifact = (tmp_path / "good" / "diagnosis" / "2" / "model.txt").read_bytes()
    inputs, outputs = (Input("features", "FP32", (-1, 29)),), (Output("malignant", "FP32"),)
    publish(tmp_path / "bad", artifact, lightgbm_manifest("diagnosis", "2", 29, inputs=inputs, outputs=outputs))
    worker = start_worker(tmp_path / "bad", tmp_path / "log")
    assert worker.process.wait(30) == 1
    assert "29 columns in the manifest, 30 in the model" in worker.log_lines()[0]["message"]


def test_a_worker_runs_from_a_tree_that_holds_nothing_but_its_own_rooms(tmp_path):
    tree, repository = tmp_path / "tree", tmp_path / "repository"
    for room in ("model_workers", "contracts", "telemetry", "settings", "http_server"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    model = publish_onnx_classifier(repository)
    # Beside the worker, a module that fails the import of what a worker image does not carry.
    (tree / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('fastapi', 'pydantic', 'redis', 'pyarrow', 'lightgbm', 'gateway', 'feature_store', 'analysis'):\n"
        "    sys.modules[name] = None\n"
    )
    with running_worker(repository, tmp_path / "log", tree=tree) as worker:
        scores = worker.score("diagnosis", "1", "X", model.rows[:3], "FP32")["malignant"]
        np.testing.assert_allclose(scores, model.scores[:3], rtol=0, atol=1e-6)


def test_bad_usage_is_told_by_a_real_process_with_exit_code_2():
    command = [sys.executable, "-m", "model_workers", "--port", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_that_loads_is_alive_and_not_ready_and_still_stops_when_told(tmp_path):
    # An artifact as large as can be, all hole: it is hashed for so long that the worker stays in the midst of its load.
    publish_lightgbm_classifier(tmp_path)
    os.truncate(tmp_path / "diagnosis" / "2" / "model.txt", HUGE_ARTIFACT_BYTES)
    worker = start_worker(tmp_path, tmp_path / "log")
    try:
        wait_until(lambda: answers(worker, "/v2/health/live"))
        assert worker.ask("GET", "/v2/health/ready")[0] == 503
        # It is alive before it has looked at the repository.
        wait_until(lambda: worker.ask("POST", "/v2/models/diagnosis/infer", b"{}")[0] == 503)
        assert b"it is loading" in worker.ask("POST", "/v2/models/diagnosis/infer", b"{}")[2]
        assert worker.stop() == 0
    finally:
        worker.process.kill()
        worker.process.wait(30)


def answers(worker, path):
    try:
        return worker.ask("GET", path)[0] == 200
    except OSError:
        return False
