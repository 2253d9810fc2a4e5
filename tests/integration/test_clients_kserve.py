"""KServe's own clients, from an environment of their own (`make peers`), against a worker and against a gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.datatypes import BYTES, DTYPE_BY_DATATYPE
from tests.integration.identity_models import DATATYPES, model_of, values_of
from tests.integration.peers import needs_peers, run_script
from tests.integration.raw_tensor_system import RawTensorSystem

pytestmark = [pytest.mark.integration, needs_peers]

SCRIPT = Path(__file__).with_name("kserve_client.py")


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[RawTensorSystem]:
    with RawTensorSystem(tmp_path_factory.mktemp("kserve")) as running:
        yield running


def cases() -> dict[str, dict[str, Any]]:
    described = {}
    for datatype in DATATYPES:
        values = values_of(datatype)
        case: dict[str, Any] = {"model": model_of(datatype), "shape": list(values.shape), "dtype": None}
        if datatype == BYTES:
            case["texts"] = values.ravel().tolist()
        else:
            case |= {"dtype": DTYPE_BY_DATATYPE[datatype].str, "hex": values.tobytes().hex()}
        described[datatype] = case
    return described


def expected(*left_out: str) -> dict[str, Any]:
    return {
        datatype: case.get("texts", case.get("hex")) for datatype, case in cases().items() if datatype not in left_out
    }


@pytest.mark.parametrize("server", ["worker", "gateway"])
def test_kserve_s_rest_client_finds_the_server_ready_and_gets_back_what_it_sends(system, server):
    port = system.worker_port if server == "worker" else system.gateway_port
    found = run_script(SCRIPT, "rest", f"http://127.0.0.1:{port}", as_argument())
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["unknown_ready"] is False
    assert found["binary"] == expected()
    assert found["json"] == expected("FP16")
    assert (found["id"], found["model_name"]) == ("request-9", "identity-fp32")
    assert "no-such-model" in found["unknown"]
    assert "404" in found["unknown"]
    assert "'x' is FP32" in found["datatype"], "the server's own message reaches the caller"


def test_kserve_s_grpc_client_finds_a_worker_ready_and_gets_back_what_it_sends(system):
    found = run_script(SCRIPT, "grpc", f"127.0.0.1:{system.worker_grpc_port}", as_argument())
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["binary"] == expected()
    assert found["unknown"].startswith("NOT_FOUND: ")
    assert "no-such-model" in found["unknown"]


def as_argument() -> str:
    return json.dumps(cases())
