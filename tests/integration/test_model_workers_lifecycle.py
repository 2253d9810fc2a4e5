"""Loading, swapping and unloading in a real worker: what is damaged stays away, and what serves serves on."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contracts.manifest import FILE_NAME, decode_manifest, sha256_of
from tests.unit.model_workers.admin_port import AdminPort
from tests.unit.model_workers.constant_models import constant_artifact, publish_constant
from tests.unit.model_workers.published_models import onnx_manifest, publish, publish_lightgbm_classifier
from tests.unit.model_workers.running_worker import (
    HUGE_ARTIFACT_BYTES,
    free_port,
    running_worker,
    start_worker,
    wait_until,
)

pytestmark = pytest.mark.integration

ROW = np.ones((1, 2), dtype=np.float32)
CYCLES, CYCLES_TO_SETTLE = 200, 50
GROWTH_BYTES_MAX = 8 * 1024 * 1024


@pytest.fixture
def admin():
    return AdminPort(free_port())


def served(worker):
    return json.loads(worker.ask("GET", "/v2/models/churn")[2])["versions"]


def usage(process):
    """Read a process's resident bytes, threads and open files."""
    return process.memory_info().rss, process.num_threads(), process.num_fds()


def answer_of(worker, version):
    return worker.score("churn", str(version), "X", ROW, "FP32")["version"].tolist()


def test_a_load_serves_a_new_version_and_an_unload_takes_one_away(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        publish_constant(tmp_path, "churn", 2)
        assert admin.states() == {"churn@1": "READY", "churn@2": "UNAVAILABLE"}
        admin.done("load", "churn")
        assert (answer_of(worker, 1), answer_of(worker, 2)) == ([1], [2])
        admin.done("unload", "churn", "1")
        assert worker.ask("POST", "/v2/models/churn/versions/1/infer", b"{}")[0] == 404
        assert admin.states() == {"churn@1": "UNAVAILABLE", "churn@2": "READY"}
        exposition = worker.ask("GET", "/metrics")[2]
        assert b'version="1"' not in exposition
        assert b'sekisho_worker_loads_total{model="churn",outcome="loaded"} 2.0' in exposition


def test_the_admin_port_tells_what_the_data_port_does_and_each_says_what_is_on_the_other(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/churn", "/v2/models/churn/ready"):
            assert admin.ask("GET", path)[0] == 200
        assert admin.ask("GET", "/v2")[1]["extensions"] == ["model_repository", "statistics", "sekisho_manifest"]
        status, document = admin.ask("POST", "/v2/models/churn/infer", b"{}")
        assert (status, "data port" in document["error"]) == (404, True)
        status, _, body = worker.ask("POST", "/v2/repository/models/churn/unload")
        assert (status, b"admin port" in body) == (404, True)
        assert answer_of(worker, 1) == [1]


def test_tritonclient_lists_loads_unloads_and_reads_statistics_with_its_defaults(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    with (
        running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker,
        tritonclient.http.InferenceServerClient(f"127.0.0.1:{admin.port}") as client,
    ):
        client.unload_model("churn", unload_dependents=True)
        assert [entry["state"] for entry in client.get_model_repository_index()] == ["UNAVAILABLE"]
        client.load_model("churn")
        assert client.is_model_ready("churn", "1")
        answer_of(worker, 1)
        (stats,) = client.get_inference_statistics("churn", "1")["model_stats"]
        assert (stats["inference_count"], stats["inference_stats"]["success"]["count"]) == (1, 1)
        assert stats["last_inference"] > 1_700_000_000_000
        assert client.get_inference_statistics()["model_stats"] == [stats]
        for refused in ({"model_name": "fraud"}, {"model_name": "churn", "config": "{}"}):
            with pytest.raises(InferenceServerException):
                client.load_model(**refused)


def truncate(folder):
    artifact = folder / "model.onnx"
    artifact.write_bytes(artifact.read_bytes()[:-10])
    return "SHA-256 is"


def forge_the_hash(folder):
    path = folder / FILE_NAME
    path.write_text(path.read_text().replace(decode_manifest(path.read_bytes()).artifact.sha256, "0" * 64))
    return "SHA-256 is"


def delete_the_artifact(folder):
    (folder / "model.onnx").unlink()
    return "the artifact cannot be read"


def put_a_pipe_in_its_place(folder):
    delete_the_artifact(folder)
    os.mkfifo(folder / "model.onnx")
    return "model.onnx: is no regular file"


def put_an_endless_device_in_its_place(folder):
    delete_the_artifact(folder)
    (folder / "model.onnx").symlink_to("/dev/zero")
    return "model.onnx: is no regular file"


def break_the_manifest(folder):
    (folder / FILE_NAME).write_text("{")
    return FILE_NAME


def bring_no_model(folder):
    publish_over(folder, b"not a model")
    return "cannot open model.onnx"


def publish_over(folder, artifact):
    """Publish other bytes with their own right hash."""
    shutil.rmtree(folder)
    publish(folder.parent.parent, artifact, onnx_manifest(folder.parent.name, folder.name, 2))


NO_FILES = [put_a_pipe_in_its_place, put_an_endless_device_in_its_place]
DAMAGES = [truncate, forge_the_hash, delete_the_artifact, break_the_manifest, *NO_FILES]


@pytest.mark.parametrize("damage", [*DAMAGES, bring_no_model])
def test_a_damaged_version_is_refused_with_the_reason_and_what_serves_serves_on(tmp_path, admin, damage):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", "--latest", "1", *admin.flags) as worker:
        said = damage(publish_constant(tmp_path, "churn", 2))
        status, document = admin.operate("load", "churn")
        assert status == 400
        assert said in document["error"]
        assert admin.states() == {"churn@1": "READY", "churn@2": "UNAVAILABLE"}
        assert said in admin.index()["churn@2"][1]
        assert answer_of(worker, 1) == [1]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_version_whose_files_are_damaged_under_the_worker_serves_on_as_it_was_loaded(tmp_path, admin, damage):
    folder = publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        said = damage(folder)
        status, document = admin.operate("load", "churn", "1")
        assert (status, said in document["error"]) == (400, True)
        state, reason = admin.index()["churn@1"]
        assert (state, said in reason) == ("READY", True)
        assert answer_of(worker, 1) == [1]


def test_a_version_that_was_replaced_under_the_worker_answers_as_before_until_it_is_loaded_anew(tmp_path, admin):
    folder = publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        artifact, manifest = folder / "model.onnx", folder / FILE_NAME
        before = sha256_of(artifact)
        artifact.write_bytes(constant_artifact(7))
        manifest.write_text(manifest.read_text().replace(before, sha256_of(artifact)))
        assert answer_of(worker, 1) == [1]
        admin.done("load", "churn", "1")
        assert answer_of(worker, 1) == [7]


@pytest.mark.parametrize("damage", NO_FILES)
def test_an_artifact_that_is_no_file_does_not_hold_up_the_loads_after_it(tmp_path, admin, damage):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        damage(publish_constant(tmp_path, "churn", 2))
        assert admin.operate("load", "churn", "2")[0] == 400
        publish_constant(tmp_path, "churn", 3)
        admin.done("load", "churn", "3")
        assert admin.states() == {"churn@1": "READY", "churn@2": "UNAVAILABLE", "churn@3": "READY"}
        assert answer_of(worker, 3) == [3]


def test_a_link_that_leads_to_itself_takes_no_model_off_the_index_nor_from_what_can_be_loaded(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        (tmp_path / "fs").mkdir()
        for link in (tmp_path / "fs" / "8", tmp_path / "churn" / "8"):
            link.symlink_to("8")
        publish_constant(tmp_path, "churn", 2)
        admin.done("load", "churn")
        assert admin.states() == {"churn@1": "READY", "churn@2": "READY"}
        assert worker.log.read_text().count("fs/8 was passed over") == 1


def test_polling_follows_what_is_published_and_withdrawn(tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    publish_constant(repository, "churn", 1)
    with running_worker(repository, tmp_path / "log", "--latest", "1", "--poll-s", "0.05") as worker:
        publish_constant(repository, "churn", 2)
        wait_until(lambda: served(worker) == ["2"], 20)
        shutil.rmtree(repository / "churn" / "2")
        wait_until(lambda: served(worker) == ["1"], 20)
        shutil.rmtree(repository / "churn")
        wait_until(lambda: "serves on" in worker.log.read_text(), 20)
        assert served(worker) == ["1"]
        repository.rename(tmp_path / "elsewhere")
        wait_until(lambda: "is not a directory" in worker.log.read_text(), 20)
        assert answer_of(worker, 1) == [1]
        (tmp_path / "elsewhere").rename(repository)
        publish_constant(repository, "churn", 3)
        wait_until(lambda: served(worker) == ["3"], 20)


def test_with_polling_a_model_that_is_named_may_be_published_later(tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    worker = start_worker(
        repository, tmp_path / "log", "--model", "churn", "--poll-s", "0.05", "--shutdown-grace-s", "0"
    )
    try:
        wait_until(lambda: "waiting for the repository to change" in worker.log.read_text(), 30)
        assert worker.ask("GET", "/v2/health/live")[0] == 200
        assert worker.ask("GET", "/v2/health/ready")[0] == 503
        publish_constant(repository, "churn", 1)
        wait_until(worker.is_ready, 20)
        assert answer_of(worker, 1) == [1]
        assert worker.log.read_text().count("waiting for the repository") == 1
    finally:
        assert worker.stop() == 0


def test_a_worker_stops_in_the_middle_of_a_load_that_takes_long_and_says_so_to_who_asked(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    with running_worker(tmp_path, tmp_path / "log", "--shutdown-grace-s", "0", *admin.flags) as worker:
        # An artifact as large as can be, all hole: its hash is not done for long.
        os.truncate(publish_constant(tmp_path, "churn", 2) / "model.onnx", HUGE_ARTIFACT_BYTES)
        with ThreadPoolExecutor(1) as other:
            asked = other.submit(admin.operate, "load", "churn")
            wait_until(lambda: admin.states()["churn@2"] == "LOADING", 20)
            assert answer_of(worker, 1) == [1]
            assert worker.stop() == 0
            status, document = asked.result()
        assert (status, document["error"]) == (503, "the worker is shutting down; send this elsewhere")
        assert [line for line in worker.log_lines() if line["level"] == "error"] == []


def test_many_loads_and_unloads_leave_memory_threads_and_files_as_they_were(tmp_path, admin):
    publish_constant(tmp_path, "churn", 1)
    model = publish_lightgbm_classifier(tmp_path, model="diagnosis", version="2")
    with running_worker(tmp_path, tmp_path / "log", *admin.flags) as worker:
        process = psutil.Process(worker.process.pid)
        settled = None
        for cycle in range(CYCLES):
            for name in ("churn", "diagnosis"):
                admin.done("unload", name)
                admin.done("load", name)
            assert answer_of(worker, 1) == [1]
            worker.score("diagnosis", "2", "features", model.rows[:4], "FP32")
            if cycle == CYCLES_TO_SETTLE:
                settled = usage(process)
        memory_bytes, threads, files = (now - then for now, then in zip(usage(process), settled, strict=True))
        assert memory_bytes < GROWTH_BYTES_MAX
        assert threads <= 2  # one may still be ending
        assert files <= 2
