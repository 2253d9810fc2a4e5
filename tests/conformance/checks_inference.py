"""Inference in JSON: what a valid request is answered with."""

import json
from typing import Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import Answer, NotOffered, expect
from tests.conformance.probe import Probe
from tests.conformance.sources import BINARY, HTTP, REST, SCHEDULE

ROWS_OF_MANY: Final = 5


def _flat(probe: Probe) -> None:
    probe.answer(probe.request())


def _nested(probe: Probe) -> None:
    flat = probe.answer(probe.request())
    nested = probe.answer(probe.request() | {"inputs": [tensor.nested() for tensor in probe.tensors()]})
    _expect_alike(flat, nested, "flat data")


def _content_type(probe: Probe) -> None:
    found = probe.infer(probe.request()).media_type
    expect(found == "application/json", "application/json", found or "no content-type")


def _rows(probe: Probe) -> None:
    if any(spec.shape[:1] != (-1,) for spec in probe.target.inputs):
        raise NotOffered("the model takes a fixed number of rows")
    for rows in (1, ROWS_OF_MANY):
        answer = probe.answer(probe.request(probe.tensors(rows)))
        expect(
            all(tensor.shape[:1] == (rows,) for tensor in answer.tensors),
            f"{rows} rows in each output",
            ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in answer.tensors),
        )


def _all_outputs(probe: Probe) -> None:
    listed = {spec.name: spec.datatype for spec in probe.target.outputs}
    if not listed:
        raise NotOffered("the model's metadata lists no outputs")
    found = {tensor.name: tensor.datatype for tensor in probe.answer(probe.request()).tensors}
    expect(found == listed, f"the outputs of the metadata, {listed}", str(found))


def _model_version(probe: Probe) -> None:
    versions = _versions(probe)
    found = probe.answer(probe.request()).document.get("model_version")
    expect(found in versions, "`model_version`, one of those listed", f"`model_version` {found!r}")


def _version(probe: Probe) -> None:
    for version in _versions(probe):
        found = probe.answer(probe.request(), version=version).document.get("model_version")
        expect(found == version, "the version of the URL", "another" if found else "no `model_version`")


def _id(probe: Probe) -> None:
    found = probe.answer(probe.request(id="request-42")).document.get("id")
    expect(found == "request-42", "the request's `id`", f"`id` {found!r}")


def _no_id(probe: Probe) -> str:
    given = probe.answer(probe.request()).document.get("id")
    return "no `id`" if given is None else "an empty `id`" if given == "" else "an `id` of the server's own"


def _requested(probe: Probe) -> None:
    every = probe.answer(probe.request())
    name = every.names[-1]
    answer = probe.answer(probe.request(outputs=[{"name": name}]))
    expect(answer.names == [name], f"the output {name!r} alone", str(answer.names))
    expect(answer.values()[name] == every.values()[name], "the same values as without `outputs`", "others")


def _requested_order(probe: Probe) -> None:
    names = probe.answer(probe.request()).names[::-1]
    if len(names) < 2:
        raise NotOffered("the model has one output")
    found = probe.answer(probe.request(outputs=[{"name": name} for name in names])).names
    expect(found == names, "the outputs in the order asked", "another order")


def _input_order(probe: Probe) -> None:
    tensors = probe.tensors()
    if len(tensors) < 2:
        raise NotOffered("the model has one input")
    _expect_alike(probe.answer(probe.request(tensors)), probe.answer(probe.request(tensors[::-1])), "another order")


def _parameters(probe: Probe) -> None:
    document = probe.request(parameters={"x-text": "a", "x-number": 1.5, "x-switch": True})
    document["inputs"][0]["parameters"] = {"x-text": "a"}
    probe.answer(document)


def _output_parameters(probe: Probe) -> None:
    name = probe.answer(probe.request()).names[0]
    probe.answer(probe.request(outputs=[{"name": name, "parameters": {"x-number": 1}}]))


def _model_name_in_body(probe: Probe) -> None:
    probe.answer(probe.request(model_name=probe.target.model))


def _timeout(probe: Probe) -> None:
    probe.answer(probe.request(parameters={"timeout": 4_000_000, "priority": 1}))


def _no_content_type(probe: Probe) -> str:
    reply = probe.ask("POST", probe.target.path("infer"), json.dumps(probe.request()).encode(), {})
    return f"status {reply.status}"


def _empty_outputs(probe: Probe) -> str:
    reply = probe.infer(probe.request(outputs=[]))
    if reply.status != 200:
        return f"status {reply.status}"
    return (
        "every output"
        if len(reply.json.get("outputs", ())) == len(probe.answer(probe.request()).names)
        else "fewer outputs"
    )


def _no_rows(probe: Probe) -> str:
    return f"status {probe.infer(probe.request(probe.tensors(0))).status}"


def _versions(probe: Probe) -> tuple[str, ...]:
    if not probe.target.versions:
        raise NotOffered("the model's metadata lists no versions")
    return probe.target.versions


def _expect_alike(one: Answer, other: Answer, what: str) -> None:
    expect(one.values() == other.values(), f"the same values as with {what}", "others")


CHECKS: Final = (
    Check(
        "infer.flat",
        Level.REQUIRED,
        f"{REST}, Tensor Data",
        "inputs with flat data are answered with `model_name` and every output",
        _flat,
    ),
    Check(
        "infer.nested",
        Level.REQUIRED,
        f"{REST}, Tensor Data",
        "inputs nested as their shape says get the same answer",
        _nested,
    ),
    Check(
        "infer.content-type",
        Level.REQUIRED,
        f"{HTTP}, 8.3",
        "an answer in JSON says `content-type: application/json`",
        _content_type,
    ),
    Check(
        "infer.rows",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "shape and data of a batch are those of all its rows, in and out",
        _rows,
    ),
    Check(
        "infer.outputs.all",
        Level.REQUIRED,
        f"{REST}, Inference Request",
        "without `outputs`, all outputs of the metadata come, in their datatypes",
        _all_outputs,
    ),
    Check(
        "infer.outputs.one",
        Level.REQUIRED,
        f"{REST}, Request Output",
        "an output asked for by name comes alone",
        _requested,
    ),
    Check(
        "infer.outputs.order",
        Level.REQUIRED,
        f"{REST}, Request Output",
        "several come in the order asked",
        _requested_order,
    ),
    Check(
        "infer.inputs.order",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "inputs are known by name, not by place",
        _input_order,
    ),
    Check(
        "infer.model-version",
        Level.REQUIRED,
        f"{REST}, Inference Response",
        "`model_version` says which of the listed versions answered",
        _model_version,
    ),
    Check(
        "infer.version", Level.REQUIRED, f"{REST}, Inference", "a version in the URL is the one that answers", _version
    ),
    Check("infer.id", Level.REQUIRED, f"{REST}, Inference Request", "`id` comes back", _id),
    Check(
        "infer.id.absent",
        Level.OBSERVED,
        f"{REST}, Inference Response",
        "what `id` is where the request had none",
        _no_id,
    ),
    Check(
        "infer.parameters",
        Level.REQUIRED,
        f"{REST}, Parameters",
        "parameters of text, number and boolean are taken, unknown ones too",
        _parameters,
    ),
    Check(
        "infer.outputs.parameters",
        Level.REQUIRED,
        f"{REST}, Request Output",
        "so are those of a requested output",
        _output_parameters,
    ),
    Check(
        "infer.timeout", Level.REQUIRED, SCHEDULE, "`timeout` and `priority`, which clients send, are taken", _timeout
    ),
    Check(
        "infer.unknown-field",
        Level.REQUIRED,
        f"{BINARY}, Examples",
        "`model_name` in the body, which the page's example and KServe's client send, does no harm",
        _model_name_in_body,
    ),
    Check(
        "infer.no-content-type",
        Level.OBSERVED,
        f"{HTTP}, 8.3",
        "what a request without content-type gets, as tritonclient sends it",
        _no_content_type,
    ),
    Check(
        "infer.outputs.empty",
        Level.OBSERVED,
        f"{REST}, Inference Request",
        "what an empty list of outputs gets",
        _empty_outputs,
    ),
    Check("infer.rows.none", Level.OBSERVED, f"{REST}, Request Input", "what a batch of no rows gets", _no_rows),
)
