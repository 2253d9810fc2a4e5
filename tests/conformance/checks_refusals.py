"""Requests that are wrong: each is refused with a 4xx and an error text."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.checks_metadata import NO_MODEL, NO_VERSION
from tests.conformance.expectations import NotOffered, expect, expect_refusal
from tests.conformance.probe import Probe
from tests.conformance.sources import HTTP, REST
from tests.conformance.target import model_path

_JSON: Final = {"content-type": "application/json"}

Wrong = Callable[[Probe], Mapping[str, Any] | bytes]
"""Makes a wrong request."""


def refused(wrong: Wrong) -> Callable[[Probe], None]:
    """Make the check that a wrong request is refused."""

    def run(probe: Probe) -> None:
        expect_refusal(probe.infer(wrong(probe)))

    return run


def first_input(**changes: Any) -> Wrong:
    """Make a valid request but for these fields of its first input."""

    def wrong(probe: Probe) -> Mapping[str, Any]:
        document = probe.request()
        document["inputs"][0] |= changes
        return document

    return wrong


def _unknown_model(probe: Probe) -> None:
    body = json.dumps(probe.request()).encode()
    expect_refusal(probe.ask("POST", model_path(NO_MODEL, None, "infer"), body, _JSON))


def _unknown_version(probe: Probe) -> None:
    if not probe.target.versions:
        raise NotOffered("the model's metadata lists no versions")
    body = json.dumps(probe.request()).encode()
    expect_refusal(probe.ask("POST", model_path(probe.target.model, NO_VERSION, "infer"), body, _JSON))


def _method(probe: Probe) -> None:
    reply = probe.get(probe.target.path("infer"))
    expect(400 <= reply.status < 500, "a 4xx status (405)", f"status {reply.status}")


def _allowed(probe: Probe) -> str:
    reply = probe.get(probe.target.path("infer"))
    return f"status {reply.status}" + (f", allow {reply.headers['allow']}" if "allow" in reply.headers else "")


def _unknown_path(probe: Probe) -> None:
    expect_refusal(probe.get("/v2/no/such/path"))


def _cut_short(probe: Probe) -> bytes:
    return json.dumps(probe.request()).encode()[:-5]


def _without_inputs(probe: Probe) -> Mapping[str, Any]:
    return {key: value for key, value in probe.request().items() if key != "inputs"}


def _one_less(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    if len(document["inputs"]) < 2:
        raise NotOffered("the model has one input")
    return document | {"inputs": document["inputs"][1:]}


def _one_more(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    return document | {"inputs": [*document["inputs"], {**document["inputs"][0], "name": "no-such-input"}]}


def _twice(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    return document | {"inputs": [*document["inputs"], document["inputs"][0]]}


def _without(field: str) -> Wrong:
    def wrong(probe: Probe) -> Mapping[str, Any]:
        document = probe.request()
        del document["inputs"][0][field]
        return document

    return wrong


def _unknown_output(probe: Probe) -> Mapping[str, Any]:
    return probe.request(outputs=[{"name": "no-such-output"}])


CHECKS: Final = (
    Check("refuse.model", Level.REQUIRED, f"{REST}, Inference Error", "an unknown model", _unknown_model),
    Check(
        "refuse.version",
        Level.REQUIRED,
        f"{REST}, Inference Error",
        "an unknown version of a known model",
        _unknown_version,
    ),
    Check("refuse.path", Level.REQUIRED, f"{HTTP}, 15.5.5", "a path that is none of the protocol's", _unknown_path),
    Check("refuse.method", Level.REQUIRED, f"{HTTP}, 15.5.6", "GET on `/infer`", _method),
    Check(
        "refuse.method.allow", Level.OBSERVED, f"{HTTP}, 15.5.6", "how it is told which method the path takes", _allowed
    ),
    Check("refuse.json", Level.REQUIRED, f"{REST}, Inference Error", "JSON that is cut short", refused(_cut_short)),
    Check("refuse.empty", Level.REQUIRED, f"{REST}, Inference Error", "an empty body", refused(lambda _: b"")),
    Check(
        "refuse.list",
        Level.REQUIRED,
        f"{REST}, Inference Request",
        "a list in place of the request object",
        refused(lambda _: b"[]"),
    ),
    Check(
        "refuse.inputs.none",
        Level.REQUIRED,
        f"{REST}, Inference Request",
        "a request without `inputs`",
        refused(_without_inputs),
    ),
    Check(
        "refuse.inputs.empty",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "an empty list of inputs",
        refused(lambda probe: probe.request([])),
    ),
    Check(
        "refuse.inputs.missing",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "one input left out",
        refused(_one_less),
    ),
    Check(
        "refuse.inputs.name",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "an input under a name that the model does not have",
        refused(first_input(name="no-such-input")),
    ),
    Check(
        "refuse.inputs.more",
        Level.HARDENING,
        f"{REST}, Request Input",
        "an input more than the model has",
        refused(_one_more),
    ),
    Check("refuse.inputs.twice", Level.HARDENING, f"{REST}, Request Input", "the same input twice", refused(_twice)),
    Check(
        "refuse.input.no-name",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "an input without `name`",
        refused(_without("name")),
    ),
    Check(
        "refuse.input.no-shape",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "an input without `shape`",
        refused(_without("shape")),
    ),
    Check(
        "refuse.input.no-datatype",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "an input without `datatype`",
        refused(_without("datatype")),
    ),
    Check(
        "refuse.input.no-data",
        Level.REQUIRED,
        f"{REST}, Request Input",
        "an input without `data`",
        refused(_without("data")),
    ),
    Check(
        "refuse.output",
        Level.REQUIRED,
        f"{REST}, Request Output",
        "an output that the model does not have",
        refused(_unknown_output),
    ),
)
