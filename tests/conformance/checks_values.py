"""Values: the ends of every datatype's range, and JSON that is JSON in every answer."""

from collections.abc import Callable
from typing import Final

from tests.conformance.check import Check, Level
from tests.conformance.expectations import NotOffered, expect
from tests.conformance.probe import Probe
from tests.conformance.sources import JSON, REST
from tests.conformance.tensors import DATATYPES, extremes, with_values
from tests.conformance.wire import NotJson


def _datatype(datatype: str) -> Callable[[Probe], None]:
    def run(probe: Probe) -> None:
        tensors = probe.tensors()
        if all(tensor.datatype != datatype for tensor in tensors):
            raise NotOffered(f"the model has no {datatype} input")
        values = extremes(datatype)
        given = [with_values(tensor, values) if tensor.datatype == datatype else tensor for tensor in tensors]
        answer = probe.answer(probe.request(given))
        if probe.target.identity:
            for sent, came in zip(given, answer.tensors, strict=True):
                expect(came.values == sent.values, f"{sent.values} in {came.name!r}", str(came.values))

    return run


def _whole_float(probe: Probe) -> str:
    document = probe.request()
    for entry in document["inputs"]:
        if "INT" in entry["datatype"]:
            entry["data"] = [float(value) for value in entry["data"]]
            return f"status {probe.infer(document).status}"
    raise NotOffered("the model has no integer input")


def _valid_json(probe: Probe) -> None:
    # Runs last: it looks at every answer of the run.
    wrong = 0
    for reply in probe.replies:
        if reply.media_type != "application/json" or not reply.body:
            continue
        try:
            _ = reply.json
        except NotJson:
            wrong += 1
    expect(wrong == 0, "JSON by RFC 8259 in every answer that says application/json", f"{wrong} that are not")


CHECKS: Final = (
    Check(
        "infer.coerced",
        Level.OBSERVED,
        f"{REST}, Tensor Data",
        "what 1.0 in an integer input gets: a server may coerce or refuse",
        _whole_float,
    ),
    *(
        Check(
            f"infer.datatype.{datatype}",
            Level.REQUIRED,
            f"{REST}, Tensor Data Types",
            f"{datatype} inputs take their smallest and largest values",
            _datatype(datatype),
        )
        for datatype in sorted(DATATYPES)
    ),
)

LAST: Final = Check(
    "json.valid",
    Level.REQUIRED,
    f"{JSON}, 6",
    "no answer of the whole run had NaN, Infinity or other than JSON in it",
    _valid_json,
)
"""Looks back at every answer, so it runs after all others."""
