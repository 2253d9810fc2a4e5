import asyncio
import contextlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from contracts.datatypes import FLOATS
from model_workers.grpc_edge.contents import FIELD_BY_DATATYPE, raw_elements
from model_workers.grpc_edge.messages import inference_messages
from tests.integration.identity_models import DATATYPES, TYPED, as_text, model_of, publish_identity_models, values_of
from tests.unit.model_workers.running_worker import ROOT, free_port, running_worker, start_worker, wait_until

pytestmark = pytest.mark.integration

BODY_BYTES_MAX = 200_000
CLASSES = inference_messages()
FUZZ_MESSAGES = 1_500


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    publish_identity_models(folder)
    return folder


@pytest.fixture(scope="module")
def worker(repository, tmp_path_factory):
    log = tmp_path_factory.mktemp("worker") / "log"
    ports = free_port(), free_port()
    flags = ("--grpc-port", str(ports[0]), "--grpc-admin-port", str(ports[1]), "--body-bytes-max", str(BODY_BYTES_MAX))
    with running_worker(repository, log, *flags) as running:
        running.grpc_port, running.grpc_admin_port = ports
        yield running


@pytest.fixture(scope="module")
def client(worker):
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{worker.grpc_port}") as connected:
        yield connected


@pytest.fixture(scope="module")
def admin(worker):
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{worker.grpc_admin_port}") as connected:
        yield connected


def given(datatype, values=None, *, name="x", kind=tritonclient.grpc.InferInput):
    values = values_of(datatype) if values is None else values
    entry = kind(name, list(values.shape), datatype)
    entry.set_data_from_numpy(values)
    return entry


def code_of(refused):
    return refused.value.status().removeprefix("StatusCode.")


def test_a_client_finds_the_server_live_ready_and_described(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model_of("FP32"))
    assert client.is_model_ready(model_of("FP32"), "1")
    assert client.get_server_metadata().name == "sekisho-worker"
    metadata = client.get_model_metadata(TYPED)
    assert {i.name: i.datatype for i in metadata.inputs} == {f"in_{d.lower()}": d for d in DATATYPES}
    assert list(metadata.inputs[0].shape) == [-1, 2]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_goes_in_as_raw_bytes_comes_out_as_raw_bytes(client, datatype):
    answer = client.infer(model_of(datatype), [given(datatype)], request_id="7")
    np.testing.assert_array_equal(as_text(answer.as_numpy("y")), values_of(datatype), strict=True)
    response = answer.get_response()
    assert (response.id, response.model_version, len(response.raw_output_contents)) == ("7", "1", 1)


@pytest.mark.parametrize("datatype", sorted(FIELD_BY_DATATYPE))
def test_what_goes_in_typed_comes_out_typed(worker, datatype):
    values = values_of(datatype)
    request = CLASSES["ModelInferRequest"](model_name=model_of(datatype))
    entry = request.inputs.add(name="x", datatype=datatype, shape=values.shape)
    plain = [e.encode() if isinstance(e, str) else e for e in values.ravel().tolist()]
    getattr(entry.contents, FIELD_BY_DATATYPE[datatype]).extend(plain)
    with grpc.insecure_channel(f"127.0.0.1:{worker.grpc_port}") as channel:
        answer = CLASSES["ModelInferResponse"].FromString(raw_call(channel, request.SerializeToString()))
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape), len(answer.raw_output_contents)) == (datatype, [2, 2], 0)
    assert raw_elements("y", datatype, output.contents) == raw_elements("x", datatype, entry.contents)


def raw_call(channel, data, method="ModelInfer"):
    """Send bytes as they are. Returns the bytes of the answer."""
    return channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(data, timeout=10)


def test_every_datatype_goes_in_and_out_of_one_request_and_only_what_is_asked_comes_back(client):
    inputs = [given(datatype, name=f"in_{datatype.lower()}") for datatype in DATATYPES]
    every = client.infer(TYPED, inputs)
    for datatype in DATATYPES:
        np.testing.assert_array_equal(as_text(every.as_numpy(f"out_{datatype.lower()}")), values_of(datatype))
    asked = [tritonclient.grpc.InferRequestedOutput(name) for name in ("out_fp64", "out_bytes")]
    some = client.infer(TYPED, inputs, outputs=asked).get_response()
    assert [output.name for output in some.outputs] == ["out_fp64", "out_bytes"]


@pytest.mark.parametrize("datatype", sorted(FLOATS))
def test_nan_and_infinities_pass(client, datatype):
    values = np.array([[np.nan, np.inf], [-np.inf, 0]]).astype(values_of(datatype).dtype)
    answer = client.infer(model_of(datatype), [given(datatype, values)])
    np.testing.assert_array_equal(answer.as_numpy("y"), values)


def answer_box():
    """Make a place for answers, a semaphore that counts them, and a maker of callbacks by number."""
    answers, done = {}, threading.Semaphore(0)

    def keep(i):
        def callback(result, error):
            answers[i] = error or result.as_numpy("y")
            done.release()

        return callback

    return answers, done, keep


def test_asynchronous_calls_of_a_synchronous_client_get_their_own_answers(client):
    answers, done, keep = answer_box()
    rows = [np.full((1, 2), i, dtype=np.float32) for i in range(50)]
    for i, row in enumerate(rows):
        client.async_infer(model_of("FP32"), [given("FP32", row)], callback=keep(i))
    assert all(done.acquire(timeout=10) for _ in rows)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(answers[i], row)


def test_the_asyncio_client_asks_and_infers(worker):
    async def scenario():
        async with tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{worker.grpc_port}") as client:
            ready = await client.is_server_ready(), await client.is_model_ready(TYPED)
            rows = [np.full((1, 2), i, dtype=np.float64) for i in range(20)]
            calls = [client.infer(model_of("FP64"), [given("FP64", row)]) for row in rows]
            answers = await asyncio.gather(*calls)
            return ready, rows, [answer.as_numpy("y") for answer in answers]

    ready, rows, answers = asyncio.run(scenario())
    assert ready == (True, True)
    np.testing.assert_array_equal(answers, rows)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_message_is_read(client, algorithm):
    answer = client.infer(model_of("INT32"), [given("INT32")], compression_algorithm=algorithm)
    np.testing.assert_array_equal(answer.as_numpy("y"), values_of("INT32"))


@pytest.mark.parametrize(
    ("model", "version", "entry", "code", "said"),
    [
        ("other", "", given("FP32"), "NOT_FOUND", "other is not served here"),
        (model_of("FP32"), "9", given("FP32"), "NOT_FOUND", "@9 is not served here"),
        (model_of("FP32"), "", given("FP64"), "INVALID_ARGUMENT", "input 'x' is FP64; this model takes FP32"),
        (
            model_of("FP32"),
            "",
            given("FP32", np.zeros((1, 3), np.float32)),
            "INVALID_ARGUMENT",
            "input 'x' has shape [1, 3]; this model takes [-1, 2]",
        ),
        (model_of("FP32"), "", given("FP32", name="z"), "INVALID_ARGUMENT", "the inputs are ['z']"),
    ],
)
def test_a_client_is_told_what_was_wrong(client, model, version, entry, code, said):
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [entry], model_version=version)
    assert (code_of(refused), said in refused.value.message()) == (code, True)


@contextlib.contextmanager
def stopped(worker):
    """Keep the worker from answering anything for a while."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_a_spent_budget_and_a_spent_deadline_are_told_and_counted(worker, client):
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model_of("FP32"), [given("FP32")], timeout=1)
    assert code_of(refused) == "DEADLINE_EXCEEDED"
    assert "of a timeout of 1 µs; the model was not run" in refused.value.message()
    with stopped(worker), pytest.raises(InferenceServerException) as refused:
        client.infer(model_of("FP32"), [given("FP32")], client_timeout=0.2)
    assert "Deadline Exceeded" in refused.value.message()
    metrics = worker.ask("GET", "/metrics")[2].decode()
    assert 'sekisho_worker_failures_total{model="identity-fp32",reason="expired",version="1"}' in metrics


def test_a_cancelled_call_leaves_the_others_alone(worker, client):
    answers, done, keep = answer_box()
    rows = [np.full((1, 2), i, dtype=np.float32) for i in range(3)]
    with stopped(worker):
        calls = [
            client.async_infer(model_of("FP32"), [given("FP32", row)], callback=keep(i)) for i, row in enumerate(rows)
        ]
        calls[1].cancel()
        assert done.acquire(timeout=10)
        assert "CANCELLED" in str(answers[1])
    assert all(done.acquire(timeout=10) for _ in range(2))
    np.testing.assert_array_equal([answers[0], answers[2]], [rows[0], rows[2]])


def test_a_message_beyond_the_limit_is_told_by_its_size(client):
    wide = np.zeros((BODY_BYTES_MAX // 4, 2), np.float32)
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model_of("FP32"), [given("FP32", wide)])
    assert code_of(refused) == "RESOURCE_EXHAUSTED"
    assert "larger than max" in refused.value.message()


def test_versions_are_loaded_and_unloaded_on_the_admin_port_only(client, admin):
    with pytest.raises(InferenceServerException) as refused:
        client.unload_model(TYPED)
    assert (code_of(refused), "--grpc-admin-port" in refused.value.message()) == ("PERMISSION_DENIED", True)
    admin.unload_model(TYPED)
    states = {model.name: model.state for model in admin.get_model_repository_index().models}
    assert (states[TYPED], states[model_of("BOOL")]) == ("UNAVAILABLE", "READY")
    assert not client.is_model_ready(TYPED)
    assert not client.is_model_ready("no-such-model")
    admin.load_model(TYPED)
    assert client.is_model_ready(TYPED)
    with pytest.raises(InferenceServerException) as refused:
        admin.load_model(TYPED, config="{}")
    assert code_of(refused) == "INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException) as refused:
        admin.infer(model_of("FP32"), [given("FP32")])
    assert (code_of(refused), "--grpc-port" in refused.value.message()) == ("PERMISSION_DENIED", True)


def test_a_client_reads_statistics_on_both_ports(client, admin):
    def rows(connected):
        (told,) = connected.get_inference_statistics(model_of("UINT8")).model_stats
        return told.inference_count

    before = rows(client)
    client.infer(model_of("UINT8"), [given("UINT8")])
    assert rows(client) == rows(admin) == before + 2


def test_bytes_of_any_kind_never_make_a_fault_of_the_worker(worker):
    chance = random.Random(0)
    request = service_pb2.ModelInferRequest(model_name=model_of("FP32"), id="1")
    request.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    request.outputs.add(name="y")
    request.parameters["timeout"].int64_param = 10_000_000
    request.raw_input_contents.append(b"\0" * 16)
    valid, codes = request.SerializeToString(), set()
    with grpc.insecure_channel(f"127.0.0.1:{worker.grpc_port}") as channel:
        for _ in range(FUZZ_MESSAGES):
            try:
                raw_call(channel, altered(valid, chance))
            except grpc.RpcError as error:
                codes.add(error.code().name)
    assert codes <= {"INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert {"INVALID_ARGUMENT", "NOT_FOUND"} <= codes
    assert worker.is_ready()
    assert [line for line in worker.log_lines() if line["level"] == "error"] == []


def altered(valid, chance):
    """Random bytes, or a valid message with a few bytes changed, cut, doubled or put in."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(300))
    data = bytearray(valid)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 9)]
            case 2:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
        data = data or bytearray(b"\0")
    return bytes(data)


def http2_frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def http2_call(**headers):
    """Make the bytes of a connection with one call, its headers written out in full (RFC 9113, RFC 7541)."""
    every = {":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ServerLive", **headers}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in every.items()
    )
    opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0)
    return opening + http2_frame(1, 4, 1, block) + http2_frame(0, 1, 1, b"\1\0\0\0\5hello")


GRPC_HEADERS = {":authority": "x", "content-type": "application/grpc", "te": "trailers"}
NO_GRPC = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01" + b"\0" * 500,
    "random bytes": random.Random(1).randbytes(5_000),
    "an unknown encoding": http2_call(**GRPC_HEADERS, **{"grpc-encoding": "snappy"}),
    "a timeout that is no time": http2_call(**GRPC_HEADERS, **{"grpc-timeout": "soon"}),
    "a compressed message that is not": http2_call(**GRPC_HEADERS, **{"grpc-encoding": "gzip"}),
    "no gRPC content": http2_call(**{":authority": "x", "content-type": "text/plain"}),
}


@pytest.mark.parametrize("sent", NO_GRPC.values(), ids=NO_GRPC)
def test_what_is_no_grpc_is_refused_and_leaves_the_worker_and_its_log_whole(worker, sent):
    with socket.create_connection(("127.0.0.1", worker.grpc_port), timeout=0.5) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while connection.recv(65_536):
                pass
    assert worker.is_ready()
    # Each line is JSON: the library's own lines on standard error are off.
    assert {line["level"] for line in worker.log_lines()} <= {"info", "warning"}


def test_a_worker_that_leaves_is_not_ready_at_once_and_serves_on_until_its_grace_is_over(repository, tmp_path):
    port = free_port()
    flags = ("--model", model_of("FP32"), "--grpc-port", str(port), "--shutdown-grace-s", "2")
    with running_worker(repository, tmp_path / "log", *flags) as worker:
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")
        assert client.is_server_ready()
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not client.is_server_ready(), 2)
        assert client.is_server_live()
        client.infer(model_of("FP32"), [given("FP32")])
        assert worker.process.wait(30) == 0
        with pytest.raises(InferenceServerException) as refused:
            client.is_server_live()
        assert code_of(refused) == "UNAVAILABLE"
        client.close()


def without_grpc(tree):
    """Copy a worker's rooms, with a module beside them that fails every import of gRPC and protobuf."""
    for room in ("model_workers", "contracts", "telemetry", "settings", "http_server"):
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "sitecustomize.py").write_text(
        "import sys\nfor name in ('grpc', 'google', 'google.protobuf'):\n    sys.modules[name] = None\n"
    )


def test_without_grpc_a_worker_serves_over_http_and_says_what_the_flag_needs(repository, tmp_path):
    tree = tmp_path / "tree"
    without_grpc(tree)
    with running_worker(repository, tmp_path / "log", "--model", model_of("FP32"), tree=tree) as worker:
        assert worker.ask("GET", f"/v2/models/{model_of('FP32')}/ready")[0] == 200
    worker = start_worker(repository, tmp_path / "log", "--grpc-port", str(free_port()), tree=tree)
    assert worker.process.wait(30) == 2
    said = (tmp_path / "log").read_text().splitlines()[-1]
    assert said.endswith("error: --grpc-port needs gRPC, which is not installed: pip install 'sekisho[grpc]'")


def test_a_grpc_port_that_is_taken_is_told_with_its_flag(repository):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "model_workers", "--repository", str(repository), "--port", str(free_port())]
        ended = subprocess.run(
            [*command, "--grpc-admin-port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken: choose another one with --grpc-admin-port" in ended.stderr


def test_one_port_for_two_servers_is_told_and_ends_the_worker(repository):
    port = str(free_port())
    command = [sys.executable, "-m", "model_workers", "--repository", str(repository), "--port", str(free_port())]
    ended = subprocess.run(
        [*command, "--grpc-port", port, "--grpc-admin-port", port],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("is taken: choose another one with --grpc-admin-port")
    assert "Traceback" not in ended.stderr
