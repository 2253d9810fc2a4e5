"""Tensors that are wrong: of another datatype, kind, shape or number of elements."""

from collections.abc import Mapping
from typing import Any, Final

from tests.conformance.check import Check, Level
from tests.conformance.checks_refusals import Wrong, first_input, refused
from tests.conformance.expectations import NotOffered
from tests.conformance.probe import Probe
from tests.conformance.sources import REST
from tests.conformance.tensors import BYTES, FLOATS


def _other_datatype(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    first = document["inputs"][0]
    other = "INT64" if first["datatype"] != "INT64" else "FP32"
    data = [7] * len(probe.tensors()[0].values)
    return document | {"inputs": [{**first, "datatype": other, "data": data}, *document["inputs"][1:]]}


def _other_kind(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    first = document["inputs"][0]
    word: Any = 7 if first["datatype"] == BYTES else "seven"
    first["data"] = [word] * len(first["data"])
    return document


def _null_element(probe: Probe) -> Mapping[str, Any]:
    document = probe.request()
    first = document["inputs"][0]
    if first["datatype"] in FLOATS:
        raise NotOffered("null may stand for NaN in float data")
    first["data"] = [None, *first["data"][1:]]
    return document


def _one_column_more(probe: Probe) -> Mapping[str, Any]:
    fixed = [at for at, size in enumerate(probe.target.inputs[0].shape) if at and size > 0]
    if not fixed:
        raise NotOffered("the first input has no fixed dimension")
    tensor = probe.tensors()[0]
    shape = list(tensor.shape)
    shape[fixed[-1]] += 1
    return _with_shape(probe, shape)


def _one_dimension_more(probe: Probe) -> Mapping[str, Any]:
    return _with_shape(probe, [*probe.tensors()[0].shape, 2])


def _with_shape(probe: Probe, shape: list[int]) -> Mapping[str, Any]:
    document = probe.request()
    count = 1
    for size in shape:
        count *= size
    values = (document["inputs"][0]["data"] * (count + 1))[:count]
    document["inputs"][0] |= {"shape": shape, "data": values}
    return document


def _elements(change: int) -> Wrong:
    def wrong(probe: Probe) -> Mapping[str, Any]:
        document = probe.request()
        first = document["inputs"][0]
        first["data"] = first["data"][:change] if change < 0 else first["data"] + first["data"][:change]
        return document

    return wrong


def _ragged(probe: Probe) -> Mapping[str, Any]:
    tensor = probe.tensors()[0]
    if len(tensor.shape) < 2:
        raise NotOffered("the first input has one dimension")
    document = probe.request()
    data = tensor.nested()["data"]
    document["inputs"][0]["data"] = [[*data[0], data[0][0]], data[1][:-1], *data[2:]]
    return document


def _row_counts(probe: Probe) -> Mapping[str, Any]:
    if len(probe.target.inputs) < 2 or any(spec.shape[:1] != (-1,) for spec in probe.target.inputs):
        raise NotOffered("there are not two inputs with a free number of rows")
    return probe.request([probe.tensors(2)[0], *probe.tensors(3)[1:]])


CHECKS: Final = (
    Check(
        "refuse.datatype.unknown",
        Level.REQUIRED,
        f"{REST}, Tensor Data Types",
        "a datatype that the protocol does not have",
        refused(first_input(datatype="FP12")),
    ),
    Check(
        "refuse.datatype.other",
        Level.HARDENING,
        f"{REST}, Model Metadata Response",
        "a datatype other than the declared one",
        refused(_other_datatype),
    ),
    Check(
        "refuse.data.kind",
        Level.HARDENING,
        f"{REST}, Tensor Data",
        "words for numbers, or numbers for words",
        refused(_other_kind),
    ),
    Check("refuse.data.null", Level.HARDENING, f"{REST}, Tensor Data", "null for an element", refused(_null_element)),
    Check(
        "refuse.shape.column",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "a row with one element more than declared",
        refused(_one_column_more),
    ),
    Check(
        "refuse.shape.rank",
        Level.REQUIRED,
        f"{REST}, Model Metadata Response",
        "a shape with one dimension more than declared",
        refused(_one_dimension_more),
    ),
    Check(
        "refuse.elements.few",
        Level.REQUIRED,
        f"{REST}, Tensor Data",
        "one element less than the shape says",
        refused(_elements(-1)),
    ),
    Check(
        "refuse.elements.many",
        Level.REQUIRED,
        f"{REST}, Tensor Data",
        "one element more than the shape says",
        refused(_elements(1)),
    ),
    Check(
        "refuse.nested.ragged",
        Level.HARDENING,
        f"{REST}, Tensor Data",
        "nested rows of unequal length, as many elements as the shape says",
        refused(_ragged),
    ),
    Check(
        "refuse.rows",
        Level.HARDENING,
        f"{REST}, Request Input",
        "two inputs with unequal numbers of rows",
        refused(_row_counts),
    ),
)
