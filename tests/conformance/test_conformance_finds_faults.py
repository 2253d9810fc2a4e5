"""The kit passes a server that is right, and finds each fault that is planted in one."""

import json
from collections.abc import Iterator, Sequence

import pytest

from tests.conformance.__main__ import main
from tests.conformance.check import Check, Result, Verdict
from tests.conformance.expectations import HEADER_LENGTH
from tests.conformance.faulty_server import Spoil, edited, faulty_server
from tests.conformance.kit import CHECKS, run_checks
from tests.conformance.target import discover
from tests.conformance.wire import Reply, parse_address
from tests.integration.identity_models import TYPED, publish_identity_models
from tests.unit.model_workers.running_worker import WorkerProcess, free_port, running_worker

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[WorkerProcess]:
    directory = tmp_path_factory.mktemp("conformance")
    publish_identity_models(directory / "repository")
    with running_worker(directory / "repository", directory / "log") as running:
        yield running


def named(*ids: str) -> list[Check]:
    found = [check for check in CHECKS if check.id in ids]
    assert len(found) == len(ids)
    return found


def results(url: str, checks: Sequence[Check]) -> list[Result]:
    address = parse_address(url)
    target = discover(address, model=TYPED, version=None, inputs=(), parameters={}, identity=True)
    return list(run_checks(target, checks))


def status(given: int, only: str = "") -> Spoil:
    def spoil(path: str, reply: Reply) -> Reply:
        refused = reply.status >= 400 and only in path
        return Reply(given, reply.headers, reply.body) if refused else reply

    return spoil


def error_form(_path: str, reply: Reply) -> Reply:
    return reply if reply.status < 400 else Reply(422, reply.headers, b'{"detail": []}')


def empty_health(path: str, reply: Reply) -> Reply:
    return Reply(200, {}, b"") if path.startswith("/v2/health") else reply


def nan_token(path: str, reply: Reply) -> Reply:
    if not path.endswith("/infer") or reply.media_type != "application/json":
        return reply
    return Reply(reply.status, reply.headers, reply.body.replace(b"0.25", b"NaN"))


def plain_text(_path: str, reply: Reply) -> Reply:
    return Reply(reply.status, {**reply.headers, "content-type": "text/plain"}, reply.body)


def wrong_header_length(_path: str, reply: Reply) -> Reply:
    if HEADER_LENGTH not in reply.headers:
        return reply
    return Reply(reply.status, {**reply.headers, HEADER_LENGTH: str(int(reply.headers[HEADER_LENGTH]) - 1)}, reply.body)


def hangs_up(_path: str, reply: Reply) -> Reply | None:
    return None if reply.status >= 400 else reply


def tensor(**changes: object) -> Spoil:
    return edited(lambda document: document["outputs"][0].update(changes))


FAULTS: dict[str, tuple[Spoil, str]] = {
    "a framework's own error shape": (error_form, "refuse.json"),
    "an unknown output that is a 500": (status(500), "refuse.output"),
    "an unknown model that is a 200": (status(200, "no-such-model"), "refuse.model"),
    "a connection that is closed on what is refused": (hangs_up, "harden.shape.negative"),
    "health without a body": (empty_health, "server.live.body"),
    "an answer that says text/plain": (plain_text, "infer.content-type"),
    "a header length that is one short": (wrong_header_length, "binary.outputs"),
    "an `id` that is left out": (edited(lambda document: document.pop("id", None)), "infer.id"),
    "outputs in an order of the server's own": (edited(lambda d: d["outputs"].sort(key=str)), "infer.outputs.order"),
    "outputs that nobody asked for": (
        edited(lambda d: d["outputs"].append({"name": "z", "datatype": "FP32", "shape": [1], "data": [1.0]})),
        "infer.outputs.one",
    ),
    "another version": (edited(lambda document: document.update(model_version="7")), "infer.version"),
    "values of another row": (edited(lambda d: d["outputs"][0]["data"].reverse()), "infer.datatype.BOOL"),
}
TRY_OUT_FAULTS: dict[str, Spoil] = {
    "NaN in JSON": nan_token,
    "no `model_name`": edited(lambda document: document.pop("model_name")),
    "a shape of words": tensor(shape=["2", "2"]),
    "fewer elements than the shape says": tensor(data=[True]),
    "a datatype that there is not": tensor(datatype="float32"),
    "numbers for a BOOL": tensor(data=[1, 0, 1, 0]),
    "no data": edited(lambda document: document["outputs"][0].pop("data")),
    "parameters that are a list": tensor(parameters=[1]),
    "outputs that are numbers": edited(lambda document: document.update(outputs=[1, 2])),
    "no outputs": edited(lambda document: document.update(outputs=[])),
}


@pytest.mark.parametrize(("spoil", "found_by"), FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_found_by_the_check_that_stands_for_it(worker, spoil, found_by):
    with faulty_server(worker.port, lambda _, reply: reply) as right:
        assert [r.verdict for r in results(right, named(found_by))] == [Verdict.PASSES]
    with faulty_server(worker.port, spoil) as wrong:
        (result,) = results(wrong, named(found_by))
    assert result.verdict is Verdict.DEVIATES
    assert result.sent
    assert result.came


@pytest.mark.parametrize("spoil", TRY_OUT_FAULTS.values(), ids=TRY_OUT_FAULTS.keys())
def test_an_inference_answer_that_is_not_as_specified_is_never_passed(worker, spoil):
    with faulty_server(worker.port, spoil) as wrong:
        (result,) = results(wrong, named("infer.flat"))
    assert result.verdict is Verdict.DEVIATES


@pytest.mark.parametrize("body", [b"[]", b"[1]", b"null", b'"ok"', b'{"outputs": 1, "inputs": 1}', b"{", b""])
def test_a_server_that_answers_anything_with_the_same_words_fails_the_run_and_never_the_program(worker, body):
    started = []

    def same_words(path: str, reply: Reply) -> Reply:
        # Only once the kit has begun: before, it would rightly say that nothing can be driven.
        started.append(path)
        return reply if len(started) <= 3 else Reply(200, reply.headers, body)

    with faulty_server(worker.port, same_words) as wrong:
        found = results(wrong, CHECKS)
    assert len(found) == len(CHECKS)
    assert not [r.check.id for r in found if r.verdict is Verdict.PASSES and r.check.id.startswith("refuse.")]


def test_a_server_that_deviates_where_it_must_not_ends_the_program_with_1_and_another_with_0(
    worker, tmp_path, capsys: pytest.CaptureFixture[str]
):
    document = tmp_path / "results.json"
    with faulty_server(worker.port, error_form) as wrong:
        assert main(["--url", wrong, "--model", TYPED, "--json", str(document)]) == 1
    told = capsys.readouterr()
    assert "DEVIATES  refuse.json" in told.err
    assert told.out.startswith("level")
    by_id = {check["id"]: check for check in json.loads(document.read_bytes())["checks"]}
    assert list(by_id) == [check.id for check in CHECKS]
    assert by_id["refuse.json"]["verdict"] == "deviates"
    assert "detail" in by_id["refuse.json"]["found"]
    assert by_id["refuse.json"]["sent"][0].startswith(f"POST /v2/models/{TYPED}/infer ")
    assert main(["--url", f"http://127.0.0.1:{worker.port}", "--model", TYPED, "--identity", "--markdown"]) == 0
    assert "| required |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no-such-model"], "/v2/models/no-such-model answers 404 and no metadata"),
        ([], "name one with --model"),
        (["--model", TYPED, "--input", "x:FP32:-1,2"], "does not take generated inputs: 400"),
    ],
    ids=["unknown model", "no model named", "wrong inputs named"],
)
def test_a_server_that_cannot_be_driven_is_told_in_one_line_with_exit_code_2(worker, capsys, arguments, said):
    assert main(["--url", f"http://127.0.0.1:{worker.port}", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_where_nothing_listens_the_program_says_so_with_exit_code_2(capsys):
    assert main(["--url", f"http://127.0.0.1:{free_port()}", "--model", TYPED]) == 2
    assert "nothing listens on 127.0.0.1:" in capsys.readouterr().err


def test_inputs_named_by_hand_drive_a_model_whose_metadata_has_none(worker):
    def without_metadata(path: str, reply: Reply) -> Reply:
        named_model = path == "/v2/models/identity-fp32"
        return Reply(200, reply.headers, b'{"name": "identity-fp32"}') if named_model else reply

    with faulty_server(worker.port, without_metadata) as server:
        assert main(["--url", server, "--model", "identity-fp32"]) == 2
        assert main(["--url", server, "--model", "identity-fp32", "--input", "x:FP32:-1,2"]) == 1
