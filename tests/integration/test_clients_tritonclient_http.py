"""The real `tritonclient.http`, with its defaults, against a worker and against a gateway."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from contracts.datatypes import FLOATS
from tests.integration.gateway_client import until
from tests.integration.identity_models import DATATYPES, TYPED, as_text, model_of, values_of
from tests.integration.raw_tensor_system import MODELS, RawTensorSystem

pytestmark = pytest.mark.integration

SERVERS = {"worker": "sekisho-worker", "gateway": "sekisho-gateway"}
IN_FLIGHT = 20


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[RawTensorSystem]:
    with RawTensorSystem(tmp_path_factory.mktemp("raw-tensors")) as running:
        yield running


@pytest.fixture(scope="module", params=SERVERS)
def server(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def address(server: str, system: RawTensorSystem) -> str:
    return f"127.0.0.1:{system.worker_port if server == 'worker' else system.gateway_port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as connected:
        yield connected


@pytest.fixture
def worker(system: RawTensorSystem) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{system.worker_port}") as connected:
        yield connected


@pytest.fixture
def admin(system: RawTensorSystem) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{system.worker_admin_port}") as connected:
        yield connected


def tensor(name: str, datatype: str, values: np.ndarray | None = None, *, binary: bool = True) -> triton.InferInput:
    values = values_of(datatype) if values is None else values
    made = triton.InferInput(name, list(values.shape), datatype)
    return made.set_data_from_numpy(values, binary_data=binary)


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert as_text(found).tolist() == expected.tolist()


def assert_refused(caught: pytest.ExceptionInfo[InferenceServerException], status: str, said: str) -> None:
    assert caught.value.status() == status
    assert said in caught.value.message()


# Health and metadata -----------------------------------------------------------------------------------------------


def test_tritonclient_finds_server_and_models_live_and_ready_and_an_unknown_model_not(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert all(client.is_model_ready(model) and client.is_model_ready(model, "1") for model in MODELS)
    assert not client.is_model_ready("no-such-model")
    assert not client.is_model_ready(TYPED, "7")


def test_tritonclient_reads_the_server_s_metadata(client, server):
    metadata = client.get_server_metadata()
    assert metadata["name"] == SERVERS[server]
    assert "binary_tensor_data" in metadata["extensions"]


def test_tritonclient_reads_a_model_s_metadata(client):
    metadata = client.get_model_metadata(TYPED, "1")
    assert (metadata["name"], metadata["versions"]) == (TYPED, ["1"])
    assert {(i["name"], i["datatype"], tuple(i["shape"])) for i in metadata["inputs"]} == {
        (f"in_{datatype.lower()}", datatype, (-1, 2)) for datatype in DATATYPES
    }


# Inference ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_tritonclient_sends_with_its_defaults_comes_back_unchanged(client, datatype):
    result = client.infer(model_of(datatype), [tensor("x", datatype)])
    assert "data" not in result.get_output("y"), "tritonclient asks for raw bytes where it names no outputs"
    assert_equal(result.as_numpy("y"), values_of(datatype))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_tritonclient_sends_in_json_comes_back_unchanged_in_json(client, datatype):
    outputs = [triton.InferRequestedOutput("y", binary_data=False)]
    result = client.infer(model_of(datatype), [tensor("x", datatype, binary=False)], outputs=outputs)
    assert "data" in result.get_output("y")
    assert_equal(result.as_numpy("y"), values_of(datatype))


def test_tritonclient_sends_every_datatype_at_once_half_of_them_raw(client):
    inputs = [tensor(f"in_{d.lower()}", d, binary=at % 2 == 0) for at, d in enumerate(DATATYPES)]
    result = client.infer(TYPED, inputs)
    for datatype in DATATYPES:
        assert_equal(result.as_numpy(f"out_{datatype.lower()}"), values_of(datatype))


def test_tritonclient_gets_the_outputs_it_asks_for_in_its_order_each_in_the_form_it_asks_for(client):
    wanted = {"out_int8": False, "out_bytes": True, "out_bool": False, "out_fp64": True}
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name, binary in wanted.items()]
    result = client.infer(TYPED, [tensor(f"in_{d.lower()}", d) for d in DATATYPES], outputs=outputs)
    answered = result.get_response()["outputs"]
    assert {output["name"]: "data" not in output for output in answered} == wanted
    assert [output["name"] for output in answered] == list(wanted)
    for name in wanted:
        assert_equal(result.as_numpy(name), values_of(name.removeprefix("out_").upper()))


def test_a_nan_that_tritonclient_sends_raw_is_a_nan_in_raw_bytes_and_in_json(client):
    for datatype in FLOATS:
        nan = np.full((1, 2), np.nan, values_of(datatype).dtype)
        for binary in (True, False):
            outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
            result = client.infer(model_of(datatype), [tensor("x", datatype, nan)], outputs=outputs)
            assert np.isnan(result.as_numpy("y")).all()


def test_a_real_model_s_scores_over_tritonclient_equal_those_offline(client, system):
    model = system.diagnosis
    rows = model.rows[:100]
    result = client.infer("diagnosis", [tensor("features", "FP32", rows)])
    np.testing.assert_allclose(result.as_numpy("malignant"), model.scores[:100], rtol=0, atol=1e-6)


def test_the_version_that_tritonclient_names_answers_and_says_so(client):
    answer = client.infer(model_of("FP32"), [tensor("x", "FP32")], model_version="1").get_response()
    assert (answer["model_name"], answer["model_version"]) == (model_of("FP32"), "1")


def test_tritonclient_s_request_id_comes_back_and_none_where_it_sends_none(client):
    answer = client.infer(model_of("FP32"), [tensor("x", "FP32")], request_id="request-7").get_response()
    assert answer["id"] == "request-7"
    assert not client.infer(model_of("FP32"), [tensor("x", "FP32")]).get_response().get("id")


def test_timeout_priority_and_custom_parameters_of_tritonclient_are_taken(client):
    result = client.infer(
        model_of("INT32"), [tensor("x", "INT32")], timeout=2_000_000, priority=1, parameters={"trace": "a", "depth": 2}
    )
    assert_equal(result.as_numpy("y"), values_of("INT32"))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_worker_takes_what_tritonclient_compresses_and_may_answer_uncompressed(worker, encoding):
    result = worker.infer(
        TYPED,
        [tensor(f"in_{d.lower()}", d) for d in DATATYPES],
        request_compression_algorithm=encoding,
        response_compression_algorithm=encoding,
    )
    for datatype in DATATYPES:
        assert_equal(result.as_numpy(f"out_{datatype.lower()}"), values_of(datatype))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_tritonclient_may_ask_for_a_compressed_answer_anywhere(client, encoding):
    result = client.infer(model_of("FP32"), [tensor("x", "FP32")], response_compression_algorithm=encoding)
    assert_equal(result.as_numpy("y"), values_of("FP32"))


# In flight together ------------------------------------------------------------------------------------------------


def test_many_async_infers_of_tritonclient_each_get_their_own_answer(address):
    with triton.InferenceServerClient(address, concurrency=4) as client:
        sent = [np.full((1, 2), i, np.int64) for i in range(IN_FLIGHT)]
        calls = [client.async_infer(model_of("INT64"), [tensor("x", "INT64", values)]) for values in sent]
        answers = [call.get_result(timeout=10).as_numpy("y") for call in calls]
    assert [a.tolist() for a in answers] == [s.tolist() for s in sent]


def test_an_async_infer_of_tritonclient_raises_what_the_server_says(client):
    call = client.async_infer("no-such-model", [tensor("x", "INT64")])
    with pytest.raises(InferenceServerException) as caught:
        call.get_result(timeout=10)
    assert_refused(caught, "404", "no-such-model")


def test_the_asyncio_client_of_tritonclient_does_all_of_it_too(address):
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(TYPED)
            assert (await client.get_model_metadata(TYPED))["name"] == TYPED
            results = await asyncio.gather(*(client.infer(model_of(d), [tensor("x", d)]) for d in DATATYPES))
            for datatype, result in zip(DATATYPES, results, strict=True):
                assert_equal(result.as_numpy("y"), values_of(datatype))
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("no-such-model", [tensor("x", "INT64")])
            assert_refused(caught, "404", "no-such-model")

    asyncio.run(ask())


# Refusals ----------------------------------------------------------------------------------------------------------


def test_tritonclient_raises_the_server_s_message_for_an_unknown_model_or_version(client):
    for model, version in (("no-such-model", ""), (TYPED, "7")):
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, [tensor("x", "FP32")], model_version=version)
        assert_refused(caught, "404", version or model)
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata(model, version)
        assert_refused(caught, "404", version or model)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([("x", "FP64", (2, 2))], None, "'x' is FP64"),
        ([("x", "FP32", (2, 3))], None, "[2, 3]"),
        ([("x", "FP32", (2,))], None, "[2]"),
        ([("z", "FP32", (2, 2))], None, "'z'"),
        ([("x", "FP32", (2, 2)), ("z", "FP32", (2, 2))], None, "'z'"),
        ([("x", "FP32", (0, 2))], None, "no rows"),
        ([("x", "FP32", (2, 2))], ["z"], "'z'"),
        ([("x", "FP32", (2, 2))], ["y", "y"], "more than once"),
    ],
    ids=["datatype", "columns", "rank", "name", "one-more", "no-rows", "output", "output-twice"],
)
def test_tritonclient_raises_the_server_s_message_for_wrong_tensors(client, inputs, outputs, said):
    made = [
        tensor(name, datatype, np.ones(shape, {"FP32": "f4", "FP64": "f8"}[datatype]))
        for name, datatype, shape in inputs
    ]
    asked = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model_of("FP32"), made, outputs=asked)
    assert caught.value.status() in {"400", "422"}
    assert said in caught.value.message()


def test_a_tritonclient_goes_on_after_a_refusal_on_the_same_connection(client):
    for _ in range(3):
        with pytest.raises(InferenceServerException):
            client.infer(model_of("FP32"), [tensor("x", "FP64")])
        assert_equal(client.infer(model_of("FP32"), [tensor("x", "FP32")]).as_numpy("y"), values_of("FP32"))


# Extensions --------------------------------------------------------------------------------------------------------


def test_tritonclient_reads_a_worker_s_statistics(worker):
    def counted() -> int:
        (entry,) = worker.get_inference_statistics(model_of("UINT8"), "1")["model_stats"]
        assert (entry["name"], entry["version"]) == (model_of("UINT8"), "1")
        assert entry["inference_stats"]["success"].keys() == {"count", "ns"}
        return entry["inference_count"]

    before = counted()
    worker.infer(model_of("UINT8"), [tensor("x", "UINT8")])
    assert counted() == before + 2, "each row of a batch counts as one inference"
    listed = worker.get_inference_statistics()["model_stats"]
    assert {entry["name"] for entry in listed} == {*MODELS, "diagnosis"}


def test_tritonclient_loads_and_unloads_models_on_the_admin_port_only(worker, admin):
    model = model_of("INT16")
    states = {entry["name"]: entry["state"] for entry in admin.get_model_repository_index()}
    assert states == dict.fromkeys((*MODELS, "diagnosis"), "READY")
    admin.unload_model(model)
    until("the model is gone", lambda: not worker.is_model_ready(model))
    with pytest.raises(InferenceServerException):
        worker.infer(model, [tensor("x", "INT16")])
    admin.load_model(model)
    until("the model is back", lambda: worker.is_model_ready(model))
    assert_equal(worker.infer(model, [tensor("x", "INT16")]).as_numpy("y"), values_of("INT16"))
    for call in (worker.get_model_repository_index, lambda: worker.unload_model(model)):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert_refused(caught, "404", "admin port")


def test_tritonclient_is_told_why_a_model_does_not_load(admin):
    with pytest.raises(InferenceServerException) as caught:
        admin.load_model("no-such-model")
    assert "no-such-model" in caught.value.message()
