import json

import pytest

from tests.integration.gateway_stack import Stack, free_ports, lines_of_errors
from tests.integration.openapi_fuzzing import ALIVE, document_of, fuzz
from tests.unit.model_workers.published_models import publish_lightgbm_classifier, publish_onnx_classifier
from tests.unit.model_workers.running_worker import running_worker

pytestmark = pytest.mark.integration

SERVED_BY_WORKER = {"model": ["diagnosis"], "version": ["2", "1"]}
SERVED_BY_GATEWAY = {"model": ["ranking", "basket"], "version": ["1", "2"], "experiment": ["ranking-lightgbm"]}

ROW_OF_WORKER = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 30], "data": [0.5] * 30}]}
ROW_OF_GATEWAY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 9], "data": [0.5] * 9}]}
WORKERS_ONLY = ("/manifest", "/stats")


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    directory = tmp_path_factory.mktemp("worker")
    repository = directory / "repository"
    publish_onnx_classifier(repository)
    publish_lightgbm_classifier(repository)
    admin_port = free_ports(1)[0]
    with running_worker(repository, directory / "log", "--admin-port", str(admin_port)) as running:
        yield running, admin_port


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory):
    """A system of its own: an administration that is fuzzed is not left as it was."""
    system = Stack(tmp_path_factory.mktemp("stack"))
    try:
        system.start()
        yield system
    finally:
        system.stop()


@pytest.mark.parametrize("admin", [False, True], ids=["data port", "admin port"])
def test_a_worker_answers_whatever_its_documents_allow_or_forbid_as_they_say(worker, tmp_path, admin):
    running, admin_port = worker
    port = admin_port if admin else running.port
    fuzz(port, document_of(port), tmp_path, SERVED_BY_WORKER, ROW_OF_WORKER)
    if not admin:
        reached = json.loads(running.ask("GET", "/v2/models/stats")[2])["model_stats"]
        assert sum(version["inference_stats"]["success"]["count"] for version in reached) > 0
    assert running.process.poll() is None
    assert [line for line in running.log_lines() if line["level"] == "error"] == []


def test_a_gateways_data_port_answers_whatever_its_document_allows_or_forbids_as_it_says(own_stack, tmp_path):
    port = own_stack.gateway.port
    fuzz(port, document_of(port), tmp_path, SERVED_BY_GATEWAY)
    check_unharmed(own_stack)


def test_a_gateway_speaks_the_protocol_whatever_the_document_of_a_worker_allows_or_forbids(own_stack, tmp_path):
    document = document_of(own_stack.worker_ports["a"])
    paths = {path: item for path, item in document["paths"].items() if path.startswith("/v2")}
    document["paths"] = {path: item for path, item in paths.items() if not path.endswith(WORKERS_ONLY)}
    fuzz(own_stack.gateway.port, document, tmp_path, SERVED_BY_GATEWAY, ROW_OF_GATEWAY, ALIVE)
    check_unharmed(own_stack)


def test_a_gateways_admin_port_answers_whatever_its_document_allows_or_forbids(own_stack, tmp_path):
    port = own_stack.gateway.admin_port
    fuzz(port, document_of(port), tmp_path, SERVED_BY_GATEWAY)
    check_unharmed(own_stack)


def check_unharmed(stack: Stack) -> None:
    assert stack.gateway.child.ended() is None
    assert lines_of_errors(stack.directory / "gateway-0.log") == []
