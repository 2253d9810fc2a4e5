import json
from pathlib import Path
from typing import Any

import pytest

from contracts.datatypes import DATATYPES
from contracts.inference import (
    RequestedOutput,
    Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    split_byte_elements,
)


@pytest.fixture
def described(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "inference.json").read_text(encoding="utf-8"))


def values_of(tensors: tuple[Tensor, ...]) -> dict[str, list[Any]]:
    return {
        tensor.datatype: (
            [e.decode() for e in split_byte_elements(tensor.data, tensor.name)]
            if tensor.datatype == "BYTES"
            else tensor.array().ravel().tolist()
        )
        for tensor in tensors
    }


def test_the_golden_bodies_hold_every_datatype(described: dict[str, Any]):
    assert set(described["elements"]) == DATATYPES


def test_the_golden_request_is_read_and_written_byte_for_byte(golden: Path, described: dict[str, Any]):
    expected = described["request"]
    body = (golden / expected["file"]).read_bytes()
    request = decode_request(body, expected["header_length"])
    assert values_of(request.inputs) == described["elements"]
    assert [t.name for t in request.inputs] == [expected["input_prefix"] + d.lower() for d in described["elements"]]
    assert {t.shape for t in request.inputs} == {tuple(expected["shape"])}
    assert request.outputs == tuple(RequestedOutput(*output) for output in expected["outputs"])
    assert (request.id, request.parameters, request.timeout_us) == (expected["id"], expected["parameters"], 50_000)
    document, buffers = encode_request(request)
    assert document + b"".join(buffers) == body


def test_the_golden_response_is_read_and_written_byte_for_byte(golden: Path, described: dict[str, Any]):
    expected = described["response"]
    body = (golden / expected["file"]).read_bytes()
    response = decode_response(body, expected["header_length"])
    assert values_of(response.outputs) == described["elements"]
    assert [t.name for t in response.outputs] == [expected["output_prefix"] + d.lower() for d in described["elements"]]
    assert {t.shape for t in response.outputs} == {tuple(expected["shape"])}
    said = (response.model_name, response.model_version, response.id, response.parameters)
    assert said == (expected["model_name"], expected["model_version"], expected["id"], expected["parameters"])
    document, buffers = encode_response(response, [t.name for t in response.outputs])
    assert document + b"".join(buffers) == body
