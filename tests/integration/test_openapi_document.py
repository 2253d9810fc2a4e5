import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from contracts.inference import InferenceFormatError, decode_request
from model_workers import admin_edge, edge
from model_workers.openapi import openapi_document

PAGE = Path(__file__).parents[2] / "docs" / "open-inference-protocol.md"
DOCUMENT = openapi_document("0", edge.EXTENSIONS)
ADMIN_DOCUMENT = openapi_document("0", admin_edge.EXTENSIONS)
INFER = "/v2/models/{model}/infer"

BEYOND_A_SCHEMA = re.compile(
    r"is listed more than once|asks for \d+ elements|has more than \d+ elements|neither flat nor nested|"
    r"takes \d+ bytes|are left in the body|are left where|of \w+: Expected|a value is out of the range"
)
"""What relates one part of a request to another, which JSON Schema has no words for."""


def requests() -> Any:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[INFER]["POST"]
    return operation.as_strategy().filter(lambda case: case.media_type == "application/json")


def whole(value: Any) -> Any:
    # To JSON Schema 1.0 is an integer; the protocol's readers, ours among them, want it written as one.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(each) for each in value]
    return {key: whole(each) for key, each in value.items()} if isinstance(value, dict) else value


def refusal_of(body: bytes) -> str | None:
    try:
        decode_request(body, None)
    except InferenceFormatError as error:
        return str(error)
    return None


@given(requests())
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_the_schema_of_a_request_allows_is_refused_only_for_what_no_schema_can_say(case):
    refusal = refusal_of(msgspec.json.encode(whole(case.body)))
    assert refusal is None or BEYOND_A_SCHEMA.search(refusal), refusal


def x(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5], **changes}


def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]})


TAKEN = [
    {"inputs": [x()]},
    {"inputs": [x(data=[[1, None]])], "outputs": [{"name": "y"}], "id": "7", "parameters": {"timeout": 1_000}},
    {
        "inputs": [x(datatype="BYTES", data=["a", "é"])],
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}],
    },
    {"inputs": [x(shape=[0, 2], data=[])], "parameters": {"binary_data_output": True, "ours": "text"}},
]

REFUSED = [
    {},
    [],
    {"inputs": []},
    {"inputs": {}},
    {"inputs": [x()] * 257},
    {"inputs": [{}]},
    {"inputs": [x(name="")]},
    {"inputs": [x(name="n" * 257)]},
    {"inputs": [x(datatype="FP8")]},
    {"inputs": [x(shape=[-1, 2])]},
    {"inputs": [x(shape=[1 << 29])]},
    {"inputs": [x(shape=[1.5])]},
    {"inputs": [x(shape=[1] * 9)]},
    {"inputs": [x(data={})]},
    {"inputs": [x(data=[{}, 1])]},
    {"inputs": [x(parameters={"binary_data_size": 8})]},
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]},
    {"inputs": [x()], "id": "i" * 257},
    {"inputs": [x()], "id": 7},
    {"inputs": [x()], "outputs": [{}]},
    {"inputs": [x()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
    {"inputs": [x()], "parameters": {"binary_data_output": "yes"}},
    {"inputs": [x()], "parameters": {"nested": {}}},
    {"inputs": [x()], "parameters": {f"p{i}": i for i in range(65)}},
]


@pytest.mark.parametrize("request_document", TAKEN, ids=range(len(TAKEN)))
def test_a_request_that_the_decoder_takes_fits_the_schema(request_document):
    decode_request(msgspec.json.encode(request_document), None)
    validator("InferenceRequest").validate(request_document)


@pytest.mark.parametrize("request_document", REFUSED, ids=range(len(REFUSED)))
def test_a_request_that_breaks_the_schema_is_refused_by_the_decoder_too(request_document):
    assert not validator("InferenceRequest").is_valid(request_document)
    with pytest.raises(InferenceFormatError):
        decode_request(msgspec.json.encode(request_document), None)


both_ports = pytest.mark.parametrize("document", [DOCUMENT, ADMIN_DOCUMENT], ids=["data", "admin"])


@both_ports
def test_the_document_is_valid_openapi(document):
    schemathesis.openapi.from_dict(document).validate()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


@both_ports
def test_every_schema_is_referred_to_and_every_reference_leads_to_a_schema(document):
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) == schemas


def told_of(heading: str) -> set[tuple[str, str]]:
    """Every method and path of a section's table; what stands in brackets may be left out."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = set()
    for paths, methods in re.findall(r"^\| ((?:`/[^`]*`(?:, )?)+) \| ([A-Z, ]+) \|", section, re.MULTILINE):
        for written in re.findall(r"`(.*?)`", paths):
            for path in (re.sub(r"\[.*?\]", "", written), re.sub(r"[\[\]]", "", written)):
                named = path.replace("{m}", "{model}").replace("{v}", "{version}")
                found |= {(method.strip(), named) for method in methods.split(",")}
    return found


def described_in(document: dict[str, Any]) -> set[tuple[str, str]]:
    paths = document["paths"].items()
    return {(method.upper(), path) for path, item in paths for method in item if method != "parameters"}


def test_every_path_of_the_data_port_that_the_page_tells_of_is_in_its_document_and_no_other():
    assert described_in(DOCUMENT) == told_of("Paths")


def test_the_admin_ports_document_has_the_data_ports_paths_but_inference_and_its_own():
    reads = {(method, path) for method, path in told_of("Paths") if not path.endswith("/infer")}
    assert described_in(ADMIN_DOCUMENT) == reads | told_of("The admin port")
