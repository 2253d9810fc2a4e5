import asyncio
import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from contracts.inference import ELEMENTS_MAX, PARAMETERS_MAX, TENSORS_MAX
from http_server.content_encoding import EncodingCorrupt, EncodingUnknown, InflatedTooLarge
from model_workers.edge import STATUS_AND_REASON_BY_ERROR
from model_workers.grpc_edge.address import GrpcAddress
from model_workers.grpc_edge.calls import CODE_BY_ERROR
from model_workers.grpc_edge.wire_bounds import FIELDS_MAX
from model_workers.request_rows import RowReader
from settings.ports import PortTaken
from tests.unit.model_workers.fake_parts import HandExecutor
from tests.unit.model_workers.grpc_bench import (
    CLASSES,
    MESSAGE_BYTES_MAX,
    QUEUE_ROWS_MAX,
    GrpcBench,
    ask,
    infer_request,
    refusal,
    talk,
    until,
)


def named(method, name, version=""):
    return CLASSES[f"{method}Request"](name=name, version=version)


def test_the_server_is_live_and_tells_its_name_release_and_extensions():
    assert ask("ServerLive").live
    metadata = ask("ServerMetadata")
    assert (metadata.name, metadata.version) == ("sekisho-worker", "1.2.3")
    assert list(metadata.extensions) == ["statistics"]
    assert "model_repository" in ask("ServerMetadata", admin=True).extensions


def test_a_model_tells_its_inputs_outputs_and_loaded_versions():
    metadata = ask("ModelMetadata", named("ModelMetadata", "m"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("m", ["2", "10"], "onnxruntime_onnx")
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("x", "FP32", [-1, 2])]
    assert [output.name for output in metadata.outputs] == ["total", "both", "half"]


def test_without_a_version_the_highest_one_answers_and_ten_is_above_two():
    assert ask("ModelInfer", infer_request()).model_version == "10"
    assert ask("ModelInfer", infer_request(model_version="2")).model_version == "2"


def test_raw_rows_are_answered_raw_and_the_id_comes_back():
    answer = ask("ModelInfer", infer_request(id="a-1"))
    assert (answer.model_name, answer.id) == ("m", "a-1")
    assert [(o.name, o.datatype, list(o.shape)) for o in answer.outputs] == [
        ("total", "FP32", [2]),
        ("both", "FP32", [2, 2]),
        ("half", "FP16", [2]),
    ]
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [3, 7]
    assert np.frombuffer(answer.raw_output_contents[2], "<f2").tolist() == [1.5, 3.5]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_typed_rows_are_answered_typed():
    answer = ask("ModelInfer", infer_request(raw=False, outputs=["both", "total"]))
    assert [(o.name, list(o.contents.fp32_contents)) for o in answer.outputs] == [
        ("both", [1, 2, 3, 4]),
        ("total", [3, 7]),
    ]
    assert not answer.raw_output_contents


def test_typed_rows_are_answered_raw_where_an_output_has_no_typed_field():
    answer = ask("ModelInfer", infer_request(raw=False, outputs=["total", "half"]))
    assert [len(raw) for raw in answer.raw_output_contents] == [8, 4]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_readiness_and_health_follow_loading_and_draining():
    async def scenario(caller, bench):
        async def told():
            model = await caller.call("ModelReady", named("ModelReady", "m"))
            health = await caller.call("Check", service="grpc.health.v1.Health")
            return (await caller.call("ServerReady")).ready, model.ready, health.status

        before = await told()
        bench.models.fail("m", "3", "its artifact is damaged")
        damaged = await caller.call("ModelReady", named("ModelReady", "m", "3"))
        bench.models.draining = True
        return before, damaged.ready, await told(), await caller.call("ModelInfer", infer_request())

    ready, damaged, leaving, served = talk(scenario)
    assert (ready, damaged, leaving) == ((True, True, 1), False, (False, False, 2))
    assert len(served.outputs) == 3


def test_the_health_of_a_service_that_is_not_here_is_not_found():
    request = CLASSES["HealthCheckRequest"](service="other")
    told = talk(lambda caller, _: caller.refused("Check", request, service="grpc.health.v1.Health"))
    assert told == ("NOT_FOUND", "there is no service 'other' here")


def test_statistics_count_the_rows_and_executions_of_each_version():
    async def scenario(caller, _):
        await caller.call("ModelInfer", infer_request())
        return await caller.call("ModelStatistics", named("ModelStatistics", "m", "10")), await caller.call(
            "ModelStatistics"
        )

    one, every = talk(scenario)
    (told,) = one.model_stats
    assert (told.name, told.version, told.inference_count, told.execution_count) == ("m", "10", 2, 1)
    assert (told.inference_stats.success.count, told.last_inference) == (1, 1_700_000)
    assert [(b.batch_size, b.compute_infer.count) for b in told.batch_stats] == [(2, 1)]
    assert [each.version for each in every.model_stats] == ["2", "10"]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelStatistics"])
def test_an_unknown_model_is_not_found(method):
    assert refusal(method, named(method, "other")) == ("NOT_FOUND", "other is not served here; served: m@2, m@10")


@pytest.mark.parametrize(("name", "version"), [("other", ""), ("other", "1"), ("m", "3"), ("", "")])
def test_a_model_or_version_that_is_unknown_is_not_ready_as_over_triton(name, version):
    assert ask("ModelReady", named("ModelReady", name, version)).ready is False


def test_a_version_that_answers_is_ready_while_others_of_the_worker_still_load():
    async def scenario(caller, bench):
        bench.models.ready = False
        bench.models.expect("m", "3")
        versions = ("2", "3")
        models = [(await caller.call("ModelReady", named("ModelReady", "m", version))).ready for version in versions]
        return [(await caller.call("ServerReady")).ready, *models]

    assert talk(scenario) == [False, True, False]


def test_full_queue_expired_budget_and_shutdown_are_told_apart_and_counted():
    executor = HandExecutor()

    async def scenario(caller, bench):
        batcher = bench.models.version("m", "1").batcher
        budget = {"timeout": CLASSES["InferParameter"](int64_param=100)}
        running = asyncio.ensure_future(caller.call("ModelInfer", infer_request()))
        await until(lambda: executor.started)
        late = asyncio.ensure_future(caller.refused("ModelInfer", infer_request([[1, 2]], parameters=budget)))
        await until(lambda: batcher.waiting_rows == 1)
        filling = asyncio.ensure_future(caller.refused("ModelInfer", infer_request([[1, 2]] * (QUEUE_ROWS_MAX - 1))))
        await until(lambda: batcher.waiting_rows == QUEUE_ROWS_MAX)
        full = await caller.refused("ModelInfer", infer_request([[1, 2]]))
        bench.clock.now_us += 100
        executor.run_next()
        told = await running, await late
        batcher.abort()
        return full, *told, await filling, bench.failures()

    full, running, late, filling, failures = talk(scenario, versions=["1"], executor=executor)
    assert full == ("RESOURCE_EXHAUSTED", "8 rows wait already, at most 8 may; retry elsewhere or later")
    assert len(running.outputs) == 3
    assert late == ("DEADLINE_EXCEEDED", "waited 100 µs of a timeout of 100 µs; the model was not run")
    assert filling == ("UNAVAILABLE", "the worker is shutting down; send this elsewhere")
    assert failures == {("m", "1", reason): 1 for reason in ("queue_full", "expired", "shutting_down")}


def test_a_cancelled_call_leaves_the_others_of_its_batch_alone():
    executor = HandExecutor()

    async def scenario(caller, bench):
        batcher = bench.models.version("m", "1").batcher
        submit, answers = batcher.submit, []
        batcher.submit = lambda *given: answers.append(submit(*given)) or answers[-1]
        busy = asyncio.ensure_future(caller.call("ModelInfer", infer_request()))
        await until(lambda: executor.started)
        calls = [asyncio.ensure_future(caller.call("ModelInfer", infer_request([[i, i]]))) for i in range(3)]
        await until(lambda: batcher.waiting_rows == 3)
        calls[1].cancel()
        await until(lambda: any(answer.cancelled() for answer in answers))
        executor.run_next()
        await until(lambda: executor.started)
        ran = executor.run_next()
        await busy
        return ran, await calls[0], await calls[2], calls[1].cancelled()

    ran, first, last, cancelled = talk(scenario, versions=["1"], executor=executor)
    totals = [np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() for answer in (first, last)]
    assert (ran, totals, cancelled) == (2, [[0.0], [4.0]], True)


@pytest.mark.parametrize(("asked_us", "deadline_s"), [(None, 5), (60_000_000, 5), (2_000_000, 60)])
def test_the_smaller_of_deadline_and_timeout_is_the_budget(asked_us, deadline_s):
    seen = []

    async def scenario(caller, bench):
        batcher = bench.models.version("m", None).batcher
        submit = batcher.submit
        batcher.submit = lambda *given: seen.append(given[2]) or submit(*given)
        parameters = {} if asked_us is None else {"timeout": CLASSES["InferParameter"](int64_param=asked_us)}
        await caller.call("ModelInfer", infer_request(parameters=parameters), timeout=deadline_s)

    talk(scenario)
    least_us = min(asked_us or 10**9, deadline_s * 1_000_000)
    assert seen == [pytest.approx(least_us, abs=500_000)]


def test_a_deadline_that_passes_while_rows_wait_is_counted_as_expired():
    async def scenario(caller, bench):
        told = await caller.refused("ModelInfer", infer_request(), timeout=0.2)
        await until(bench.failures)
        return told[0], bench.failures()

    assert talk(scenario, versions=["1"], executor=HandExecutor()) == ("DEADLINE_EXCEEDED", {("m", "1", "expired"): 1})


def hostile():
    """Give messages that must be refused, each with the code and a part of the details."""
    request = infer_request()
    request.inputs[0].shape[:] = [1 << 40, 1 << 40]
    yield "a dimension beyond any", request, "Expected `int` <= 268435456 - at `$.inputs[0].shape[0]`"
    request = infer_request()
    request.inputs[0].shape[:] = [ELEMENTS_MAX, ELEMENTS_MAX]
    yield "a product beyond any", request, f"has more than {ELEMENTS_MAX} elements"
    request = infer_request()
    request.inputs[0].shape[:] = [-2, 2]
    yield "a negative dimension", request, "Expected `int` >= 0 - at `$.inputs[0].shape[0]`"
    request = infer_request()
    request.inputs[0].shape[:] = [1] * 1_000
    yield "a thousand dimensions", request, "Expected `array` of length <= 8 - at `$.inputs[0].shape`"
    request = infer_request()
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
    yield "a byte too few", request, "input 'x': shape [2, 2] of FP32 takes 16 bytes, its contents have 15"
    request = infer_request()
    request.raw_input_contents.append(b"")
    yield "contents of no input", request, "there are raw contents for 2 tensors, 1 are listed"
    request = infer_request()
    request.inputs[0].contents.fp32_contents.append(1)
    yield "typed beside raw", request, "input 'x' has `contents` beside `raw_input_contents`"
    request = infer_request(raw=False)
    request.inputs[0].ClearField("contents")
    yield "no contents", request, "takes 16 bytes, its contents have 0"
    request = infer_request()
    for i in range(10_000):
        request.parameters[f"p{i}"].int64_param = i
    yield "ten thousand parameters", request, f"the message has more than {FIELDS_MAX} fields"
    request = infer_request()
    for i in range(PARAMETERS_MAX + 1):
        request.parameters[f"p{i}"].int64_param = i
    yield "a parameter too many", request, "Expected `object` of length <= 64 - at `$.parameters`"
    request = infer_request()
    request.parameters["empty"].SetInParent()
    yield "a parameter without a value", request, "parameter 'empty' of the request must be a string"
    request = infer_request()
    request.inputs[0].name = ""
    yield "an input without a name", request, "Expected `str` of length >= 1 - at `$.inputs[0].name`"
    request = infer_request()
    request.inputs[0].name = "\N{SNOWMAN}" * 30_000
    yield "a name of 90,000 bytes", request, "Expected `str` of length <= 256 - at `$.inputs[0].name`"
    request = infer_request(id="i" * 1_000)
    yield "a long id", request, "Expected `str` of length <= 256 - at `$.id`"
    request = infer_request()
    request.inputs.extend([request.inputs[0]] * TENSORS_MAX)
    yield "an input too many", request, "Expected `array` of length <= 256 - at `$.inputs`"
    request = infer_request()
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    yield "an input twice", request, "input 'x' is listed more than once"
    request = infer_request()
    request.inputs[0].datatype = "FP99"
    yield "an unknown datatype", request, "input 'x': unknown datatype 'FP99'"
    request = infer_request()
    del request.inputs[:]
    yield "no inputs", request, "Expected `array` of length >= 1 - at `$.inputs`"
    yield "bytes that are no message", b"\xff" * 40, "the bytes are no ModelInferRequest"
    yield "a name that is no text", b"\x0a\x02\xff\xfe", "the bytes are no ModelInferRequest"
    yield "inputs in two bytes each", b"\x2a\x00" * 90_000, f"the message has more than {FIELDS_MAX} fields"


HOSTILE = {what: (request, said) for what, request, said in hostile()}


@pytest.mark.parametrize(("request_", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_message_that_is_no_request_is_an_invalid_argument_that_names_the_fault(request_, said):
    async def scenario(caller, bench):
        return *await caller.refused("ModelInfer", request_), [reason for *_, reason in bench.failures()]

    code, details, reasons = talk(scenario)
    assert (code, reasons) == ("INVALID_ARGUMENT", ["malformed"])
    assert said in details
    assert len(details) <= 500


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"model_name": "other"}, "NOT_FOUND", "other is not served here; served: m@2, m@10"),
        ({"model_version": "3"}, "NOT_FOUND", "m@3 is not served here; served: m@2, m@10"),
        ({"outputs": ["no"]}, "INVALID_ARGUMENT", "there is no output 'no'; this model has ['total', 'both', 'half']"),
        ({"rows": [[1, 2, 3]]}, "INVALID_ARGUMENT", "input 'x' has shape [1, 3]; this model takes [-1, 2]"),
        ({"rows": [[-1, 0]]}, "INTERNAL", "m@10 failed on 1 row: ValueError: a row that this model cannot take"),
        (
            {"rows": [[1, 2]] * (QUEUE_ROWS_MAX + 1)},
            "RESOURCE_EXHAUSTED",
            "rows of one request: 9 given, at most 8 taken",
        ),
    ],
)
def test_what_a_model_does_not_take_is_told_in_the_words_of_the_http_edge(change, code, said):
    assert refusal("ModelInfer", infer_request(**change)) == (code, said)


def test_a_message_above_the_limit_is_refused_in_words_and_a_far_larger_one_by_the_library():
    filler = {"raw_input_contents": [b"\0" * MESSAGE_BYTES_MAX]}
    code, said = refusal("ModelInfer", CLASSES["ModelInferRequest"](**filler))
    assert (code, said) == ("RESOURCE_EXHAUSTED", "bytes of a message: 200004 given, at most 200000 taken")
    filler = {"raw_input_contents": [b"\0" * (3 * MESSAGE_BYTES_MAX)]}
    code, said = refusal("ModelInfer", CLASSES["ModelInferRequest"](**filler))
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in said


def test_a_fault_of_the_worker_is_internal_without_its_secrets(monkeypatch, caplog):
    def broken(*_):
        raise KeyError("secret")

    monkeypatch.setattr(RowReader, "outputs", broken)
    told = refusal("ModelInfer", infer_request())
    assert told == ("INTERNAL", "the worker failed on this request; its log says why")
    assert "secret" in caplog.text


def test_a_long_message_of_many_bytes_a_letter_still_reaches_the_caller():
    request = infer_request()
    del request.inputs[:], request.raw_input_contents[:]
    for i in range(PARAMETERS_MAX):
        request.inputs.add(name=f"{i}" + "\N{ROCKET}" * 250, datatype="FP32", shape=[0])
        request.raw_input_contents.append(b"")
    code, details = refusal("ModelInfer", request)
    assert (code, len(details)) == ("INVALID_ARGUMENT", 500)


@pytest.mark.parametrize("method", ["RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"])
def test_repository_calls_on_the_data_port_are_denied_with_the_flag_of_the_right_one(method):
    async def scenario(caller, bench):
        return *await caller.refused(method), bench.control.asked, bench.failures()

    code, details, asked, failures = talk(scenario)
    assert (code, asked, failures) == ("PERMISSION_DENIED", [], {})
    assert "--grpc-admin-port" in details


def test_inference_on_the_admin_port_is_denied_with_the_flag_of_the_right_one():
    code, details = refusal("ModelInfer", infer_request(), admin=True)
    assert (code, "--grpc-port" in details) == ("PERMISSION_DENIED", True)


def test_the_index_lists_what_the_repository_holds_after_a_new_look():
    async def scenario(caller, bench):
        every = await caller.call("RepositoryIndex")
        ready = await caller.call("RepositoryIndex", CLASSES["RepositoryIndexRequest"](ready=True))
        return every, ready, bench.control.asked

    every, ready, asked = talk(scenario, admin=True)
    assert [(m.name, m.version, m.state, m.reason) for m in every.models] == [
        ("m", "2", "READY", ""),
        ("m", "3", "UNAVAILABLE", "its artifact is damaged"),
    ]
    assert [model.version for model in ready.models] == ["2"]
    assert asked == ["refresh", "refresh"]


def operation(method, model, **parameters):
    request = CLASSES[f"RepositoryModel{method}Request"](model_name=model)
    for name, value in parameters.items():
        field = {str: "string_param", bool: "bool_param", bytes: "bytes_param"}[type(value)]
        setattr(request.parameters[name], field, value)
    return f"RepositoryModel{method}", request


def test_loads_and_unloads_reach_the_repository_with_their_version():
    async def scenario(caller, bench):
        await caller.call(*operation("Load", "m"))
        await caller.call(*operation("Load", "m", version="2"))
        await caller.call(*operation("Unload", "m", unload_dependents=True))
        await caller.call(*operation("Unload", "m", version="2"))
        return bench.control.asked

    assert talk(scenario, admin=True) == [
        ("load", "m", None),
        ("load", "m", "2"),
        ("unload", "m", None),
        ("unload", "m", "2"),
    ]


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (operation("Load", "broken"), "FAILED_PRECONDITION", "broken@1 was not loaded: its artifact is damaged"),
        (operation("Load", "other"), "NOT_FOUND", "other is not in the repository; it holds: m"),
        (operation("Load", "m", config="{}"), "INVALID_ARGUMENT", "parameter 'config' is refused"),
        (operation("Load", "m", **{"file:1/model.onnx": b"x"}), "INVALID_ARGUMENT", "parameter 'file:1/model.onnx'"),
        (operation("Load", "m", version=True), "INVALID_ARGUMENT", "parameter 'version' must be a string"),
    ],
)
def test_a_load_that_cannot_be_says_why_and_is_no_failure_to_serve(asked, code, said):
    async def scenario(caller, bench):
        return *await caller.refused(*asked), bench.failures()

    told, details, failures = talk(scenario, admin=True)
    assert (told, failures) == (code, {})
    assert said in details


def test_a_repository_by_name_is_refused_because_there_is_only_one():
    request = CLASSES["RepositoryModelLoadRequest"](repository_name="other", model_name="m")
    code, details = refusal("RepositoryModelLoad", request, admin=True)
    assert (code, "'other' is unknown" in details) == ("INVALID_ARGUMENT", True)


def test_a_method_that_is_not_served_is_unimplemented():
    CLASSES.setdefault("ModelConfigRequest", CLASSES["ModelMetadataRequest"])
    CLASSES.setdefault("ModelConfigResponse", CLASSES["ModelMetadataResponse"])
    assert refusal("ModelConfig")[0] == "UNIMPLEMENTED"


def test_a_port_that_stops_answers_what_it_has_taken_and_takes_nothing_more():
    executor = HandExecutor()

    async def run():
        bench = GrpcBench(executor)
        bench.serve("1")
        server = bench.edges.data_server(GrpcAddress("127.0.0.1", bench.port, "--grpc-port"), MESSAGE_BYTES_MAX)
        await server.start()
        async with bench.calling() as caller, bench.calling() as late:
            running = asyncio.ensure_future(caller.call("ModelInfer", infer_request()))
            await until(lambda: executor.started)
            stopping = asyncio.ensure_future(server.stop(10))
            await asyncio.sleep(0)
            refused = await late.refused("ServerLive")
            still_running = not running.done() and not stopping.done()
            executor.run_next()
            answer = await running
            await stopping
            return refused[0], still_running, len(answer.outputs)

    assert asyncio.run(run()) == ("UNAVAILABLE", True, 3)


def test_a_call_above_the_limit_of_calls_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("model_workers.grpc_edge.server.CALLS_MAX", 2)
    executor = HandExecutor()

    async def scenario(caller, bench):
        batcher = bench.models.version("m", "1").batcher
        taken = [asyncio.ensure_future(caller.call("ModelInfer", infer_request([[1, 1]]))) for _ in range(2)]
        await until(lambda: batcher.waiting_rows + sum(rows for _, rows, _ in executor.started) == 2)
        refused = await caller.refused("ServerLive")
        executor.run_next()
        if not all(call.done() for call in taken):
            await until(lambda: executor.started or all(call.done() for call in taken))
            while executor.started:
                executor.run_next()
        return refused[0], [len(answer.outputs) for answer in await asyncio.gather(*taken)]

    assert talk(scenario, versions=["1"], executor=executor) == ("RESOURCE_EXHAUSTED", [3, 3])


def test_a_taken_port_is_told_with_the_flag_that_moves_it():
    async def scenario(_, bench):
        second = GrpcBench()
        await second.edges.admin_server(GrpcAddress("127.0.0.1", bench.port, "--grpc-admin-port")).start()

    with pytest.raises(PortTaken, match="is taken: choose another one with --grpc-admin-port"):
        talk(scenario)


def test_every_error_that_a_message_can_meet_has_a_code():
    of_http_only = {EncodingCorrupt, EncodingUnknown, InflatedTooLarge}
    assert set(CODE_BY_ERROR) == set(STATUS_AND_REASON_BY_ERROR) - of_http_only
    assert grpc.StatusCode.OK not in CODE_BY_ERROR.values()


def test_every_code_is_documented_with_its_reason_and_nothing_else_is():
    page = (Path(__file__).parents[3] / "docs/grpc.md").read_text(encoding="utf-8").partition("## Errors")[2]
    documented = set(re.findall(r"^\| `([A-Z_]+)` \| `([a-z_]+)` \|", page, re.MULTILINE))
    told = {(code.name, STATUS_AND_REASON_BY_ERROR[error][1]) for error, code in CODE_BY_ERROR.items()}
    assert documented == told | {("INTERNAL", "internal")}
