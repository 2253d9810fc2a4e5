"""Hostile input: each is refused with a 4xx, and the server goes on serving."""

import json
from collections.abc import Callable
from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import NotOffered, expect, expect_refusal
from tests.conformance.probe import Probe
from tests.conformance.sources import HTTP, JSON, REST
from tests.conformance.target import model_path

DEPTH: Final = 10_000
NAME_CHARACTERS: Final = 5_000
HUGE: Final = 99_999_999_999


def _shape(shape: list[Any]) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        document = probe.request()
        document["inputs"][0]["shape"] = shape
        expect_refusal(probe.infer(document))
        probe.serves_on()

    return run


def _body(make: Callable[[Probe], bytes]) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        expect_refusal(probe.infer(make(probe)))
        probe.serves_on()

    return run


def _first_data(text: str) -> Callable[[Probe], bytes]:
    def make(probe: Probe) -> bytes:
        document = probe.request()
        document["inputs"][0]["data"] = "DATA"
        return json.dumps(document).replace('"DATA"', text).encode()

    return make


def _first_element(text: str) -> Callable[[Probe], bytes]:
    def make(probe: Probe) -> bytes:
        document = probe.request()
        document["inputs"][0]["data"][0] = "ELEMENT"
        return json.dumps(document).replace('"ELEMENT"', text).encode()

    return make


def _field(key: str, value: Any) -> Callable[[Probe], bytes]:
    return lambda probe: json.dumps(probe.request() | {key: value}).encode()


def _out_of_range(probe: Probe) -> bytes:
    document = probe.request()
    for entry in document["inputs"]:
        if "INT" in entry["datatype"]:
            entry["data"] = [1 << 70] * len(entry["data"])
            return json.dumps(document).encode()
    raise NotOffered("the model has no integer input")


def _output_twice(probe: Probe) -> bytes:
    name = probe.answer(probe.request()).names[0]
    return json.dumps(probe.request(outputs=[{"name": name}, {"name": name}])).encode()


def _huge_body(probe: Probe) -> None:
    headers = {"content-type": "application/json", "content-length": str(HUGE)}
    reply = probe.ask_in_parts("POST", probe.target.path("infer"), [b"{"], headers)
    expect(400 <= reply.status < 500, "a 4xx status, without waiting for the body", f"status {reply.status}")
    probe.serves_on()


def _path(path: str) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        expect_refusal(probe.get(path))
        probe.serves_on()

    return run


CHECKS: Final = (
    Check(
        "harden.shape.overflow",
        Level.HARDENING,
        f"{REST}, Request Input",
        "a shape whose product overflows 64 bits",
        _shape([1 << 32, 1 << 32, 1 << 32]),
    ),
    Check(
        "harden.shape.wraps",
        Level.HARDENING,
        f"{REST}, Request Input",
        "a shape whose product is 0 in 64 bits",
        _shape([1 << 63, 2]),
    ),
    Check(
        "harden.shape.huge", Level.HARDENING, f"{REST}, Request Input", "a dimension beyond 64 bits", _shape([1 << 70])
    ),
    Check(
        "harden.shape.negative",
        Level.HARDENING,
        f"{REST}, Request Input",
        "negative dimensions, whose product fits",
        _shape([-1, -1]),
    ),
    Check("harden.shape.fraction", Level.HARDENING, f"{REST}, Request Input", "a dimension of 1.5", _shape([1.5, 2])),
    Check(
        "harden.shape.long",
        Level.HARDENING,
        f"{REST}, Request Input",
        "a shape of 10,000 dimensions",
        _shape([1] * DEPTH),
    ),
    Check("harden.json.deep", Level.HARDENING, f"{JSON}, 9", "brackets 10,000 deep", _body(lambda _: b"[" * DEPTH)),
    Check(
        "harden.data.deep",
        Level.HARDENING,
        f"{JSON}, 9",
        "data nested 10,000 deep",
        _body(_first_data("[" * DEPTH + "1" + "]" * DEPTH)),
    ),
    Check(
        "harden.json.nan",
        Level.HARDENING,
        f"{JSON}, 6",
        "NaN, which is no JSON, as an element",
        _body(_first_element("NaN")),
    ),
    Check("harden.json.infinity", Level.HARDENING, f"{JSON}, 6", "1e999 as an element", _body(_first_element("1e999"))),
    Check(
        "harden.json.utf-8",
        Level.HARDENING,
        f"{JSON}, 8.1",
        "bytes that are not UTF-8",
        _body(lambda _: b'{"inputs": "\xff\xfe"}'),
    ),
    Check(
        "harden.element.object",
        Level.HARDENING,
        f"{REST}, Tensor Data",
        "an object for an element",
        _body(_first_element("{}")),
    ),
    Check(
        "harden.element.range",
        Level.HARDENING,
        f"{REST}, Tensor Data",
        "2 to the 70 in an integer input",
        _body(_out_of_range),
    ),
    Check(
        "harden.id", Level.HARDENING, f"{REST}, Inference Request", "an `id` that is a number", _body(_field("id", 42))
    ),
    Check(
        "harden.parameters",
        Level.HARDENING,
        f"{REST}, Parameters",
        "parameters that are a list",
        _body(_field("parameters", [1])),
    ),
    Check(
        "harden.outputs",
        Level.HARDENING,
        f"{REST}, Inference Request",
        "`outputs` that is a word",
        _body(_field("outputs", "all")),
    ),
    Check(
        "harden.outputs.twice",
        Level.HARDENING,
        f"{REST}, Request Output",
        "the same output twice",
        _body(_output_twice),
    ),
    Check(
        "harden.body.huge",
        Level.HARDENING,
        f"{HTTP}, 15.5.14",
        "a declared body of 99999999999 bytes, of which one comes",
        _huge_body,
    ),
    Check(
        "harden.name.long",
        Level.HARDENING,
        f"{HTTP}, 15.5.15",
        "a model's name of 5,000 characters",
        _path(model_path("m" * NAME_CHARACTERS, None)),
    ),
    Check(
        "harden.name.climbs",
        Level.HARDENING,
        f"{REST}, Model Metadata",
        "a model's name that climbs out of a repository",
        _path(model_path("../../etc", None)),
    ),
)
