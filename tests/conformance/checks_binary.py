"""The binary tensor data extension, where the server lists it."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import HEADER_LENGTH, Answer, NotOffered, expect, expect_answer, expect_refusal
from tests.conformance.probe import BINARY_EXTENSION, Probe
from tests.conformance.sources import BINARY, JSON
from tests.conformance.tensors import FLOATS, extremes, raw_form, with_values

ALL_RAW: Final[Mapping[str, Any]] = {"binary_data_output": True}


def _inputs(probe: Probe) -> None:
    answer = _answer(probe, *probe.raw_request())
    expect(not answer.raw, "outputs in JSON, as nothing else was asked", f"raw {sorted(answer.raw)}")
    _expect_as_json(probe, answer)


def _outputs(probe: Probe) -> None:
    answer = _answer(probe, *probe.raw_request(parameters=ALL_RAW))
    expect(answer.raw == set(answer.names), "every output as raw bytes", f"raw {sorted(answer.raw)}")
    _expect_as_json(probe, answer)


def _outputs_of_json(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    answer = probe.answer(probe.request(parameters=ALL_RAW))
    expect(answer.raw == set(answer.names), "every output as raw bytes", f"raw {sorted(answer.raw)}")
    _expect_as_json(probe, answer)


def _one_output(probe: Probe) -> None:
    name = _names(probe)[-1]
    answer = probe.answer(probe.request(outputs=[{"name": name, "parameters": {"binary_data": True}}]))
    expect(answer.raw == {name}, f"{name!r} as raw bytes", f"raw {sorted(answer.raw)}")


def _override(probe: Probe) -> None:
    name = _names(probe)[0]
    outputs = [{"name": name, "parameters": {"binary_data": False}}]
    answer = probe.answer(probe.request(parameters=ALL_RAW, outputs=outputs))
    expect(not answer.raw, f"{name!r} in JSON, as its own `binary_data` says", "raw bytes")


def _mixed_outputs(probe: Probe) -> None:
    names = _names(probe)
    if len(names) < 2:
        raise NotOffered("the model has one output")
    raw = set(names[::2])
    outputs = [{"name": name, "parameters": {"binary_data": name in raw}} for name in names]
    answer = probe.answer(probe.request(outputs=outputs))
    expect(answer.raw == raw, f"raw {sorted(raw)}, the others in JSON", f"raw {sorted(answer.raw)}")
    _expect_as_json(probe, answer)


def _mixed_inputs(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    tensors = probe.tensors()
    if len(tensors) < 2:
        raise NotOffered("the model has one input")
    document, _ = probe.raw_request()
    document["inputs"] = [tensor.raw() if at % 2 else tensor.flat() for at, tensor in enumerate(tensors)]
    tail = b"".join(raw_form(tensor.datatype, tensor.values) for tensor in tensors[1::2])
    _expect_as_json(probe, _answer(probe, document, tail))


def _extremes(probe: Probe) -> None:
    given = [with_values(tensor, extremes(tensor.datatype)) for tensor in probe.tensors()]
    answer = _answer(probe, *probe.raw_request(given, parameters=ALL_RAW))
    if probe.target.identity:
        for sent, came in zip(given, answer.tensors, strict=True):
            expect(came.values == sent.values, f"{sent.values} in {came.name!r}", str(came.values))


def _content_type(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    found = probe.infer(probe.request(parameters=ALL_RAW)).media_type
    expect(found == "application/octet-stream", "application/octet-stream", found or "no content-type")


def _no_header_for_json(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    reply = probe.infer(probe.request())
    given = reply.headers.get(HEADER_LENGTH)
    expect(given in (None, str(len(reply.body))), f"no {HEADER_LENGTH}, or the whole body's", str(given))


def _nan(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    tensors = probe.tensors()
    if not any(tensor.datatype in FLOATS for tensor in tensors):
        raise NotOffered("the model has no float input")
    nan = [with_values(t, [float("nan")]) if t.datatype in FLOATS else t for t in tensors]
    reply = probe.infer_raw(*probe.raw_request(nan))
    if reply.status == 200:
        expect_answer(reply, probe.target.model)
    else:
        expect_refusal(reply)


def _length(said: Callable[[int, int], str]) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        probe.offers(BINARY_EXTENSION)
        document, tail = probe.raw_request()
        head = len(json.dumps(document).encode())
        expect_refusal(probe.infer_raw(document, tail, length=said(head, head + len(tail))))
        probe.serves_on()

    return run


def _size(change: int) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        probe.offers(BINARY_EXTENSION)
        document, tail = probe.raw_request()
        document["inputs"][-1]["parameters"]["binary_data_size"] += change
        expect_refusal(probe.infer_raw(document, tail))

    return run


def _size_of(size: Any) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        probe.offers(BINARY_EXTENSION)
        document, tail = probe.raw_request()
        document["inputs"][0]["parameters"]["binary_data_size"] = size
        expect_refusal(probe.infer_raw(document, tail))
        probe.serves_on()

    return run


def _tail(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    document, tail = probe.raw_request()
    expect_refusal(probe.infer_raw(document, tail + b"more"))


def _both(probe: Probe) -> None:
    probe.offers(BINARY_EXTENSION)
    document, tail = probe.raw_request()
    document["inputs"][0]["data"] = probe.tensors()[0].values
    expect_refusal(probe.infer_raw(document, tail))


def _names(probe: Probe) -> list[str]:
    probe.offers(BINARY_EXTENSION)
    return probe.answer(probe.request()).names


def _answer(probe: Probe, document: Mapping[str, Any], tail: bytes) -> Answer:
    probe.offers(BINARY_EXTENSION)
    return expect_answer(probe.infer_raw(document, tail), probe.target.model)


def _expect_as_json(probe: Probe, answer: Answer) -> None:
    as_json = probe.answer(probe.request())
    expect(answer.values() == as_json.values(), "the same values as in JSON", "others")


CHECKS: Final = (
    Check("binary.inputs", Level.EXTENSION, BINARY, "raw inputs are answered as those in JSON, in JSON", _inputs),
    Check("binary.outputs", Level.EXTENSION, BINARY, "`binary_data_output` gives every output as raw bytes", _outputs),
    Check("binary.outputs.of-json", Level.EXTENSION, BINARY, "… also where the inputs are JSON", _outputs_of_json),
    Check("binary.output", Level.EXTENSION, BINARY, "`binary_data` gives one output as raw bytes", _one_output),
    Check(
        "binary.output.override",
        Level.EXTENSION,
        BINARY,
        "an output's `binary_data` wins over the request's",
        _override,
    ),
    Check(
        "binary.outputs.mixed",
        Level.EXTENSION,
        BINARY,
        "raw outputs and outputs in JSON share an answer",
        _mixed_outputs,
    ),
    Check(
        "binary.inputs.mixed", Level.EXTENSION, BINARY, "raw inputs and inputs in JSON share a request", _mixed_inputs
    ),
    Check(
        "binary.extremes",
        Level.EXTENSION,
        BINARY,
        "smallest and largest values of each input's datatype go raw",
        _extremes,
    ),
    Check(
        "binary.content-type",
        Level.EXTENSION,
        f"{BINARY}, Examples",
        "a raw answer says `content-type: application/octet-stream`",
        _content_type,
    ),
    Check(
        "binary.header.json",
        Level.EXTENSION,
        BINARY,
        "an answer without raw bytes is no mixed one",
        _no_header_for_json,
    ),
    Check("binary.nan", Level.HARDENING, f"{JSON}, 6", "a raw NaN in never makes an answer that is no JSON", _nan),
    Check(
        "binary.header.long",
        Level.HARDENING,
        BINARY,
        "a header length beyond the body is refused",
        _length(lambda _, whole: str(whole + 1)),
    ),
    Check(
        "binary.header.short",
        Level.HARDENING,
        BINARY,
        "one that cuts the JSON is refused",
        _length(lambda head, _: str(head - 1)),
    ),
    Check(
        "binary.header.huge",
        Level.HARDENING,
        BINARY,
        "one of 99999999999 is refused, and nothing is allocated for it",
        _length(lambda _, __: "99999999999"),
    ),
    Check("binary.header.negative", Level.HARDENING, BINARY, "one of -1 is refused", _length(lambda _, __: "-1")),
    Check(
        "binary.header.word", Level.HARDENING, BINARY, "one that is no number is refused", _length(lambda _, __: "many")
    ),
    Check("binary.size.large", Level.HARDENING, BINARY, "more raw bytes declared than sent are refused", _size(4)),
    Check(
        "binary.size.small",
        Level.HARDENING,
        BINARY,
        "less raw bytes declared than the shape takes are refused",
        _size(-1),
    ),
    Check("binary.size.negative", Level.HARDENING, BINARY, "a negative size is refused", _size_of(-8)),
    Check("binary.size.word", Level.HARDENING, BINARY, "a size that is no number is refused", _size_of("8")),
    Check("binary.tail", Level.HARDENING, BINARY, "bytes after the last tensor are refused", _tail),
    Check("binary.both", Level.HARDENING, BINARY, "`data` and `binary_data_size` at once are refused", _both),
)
