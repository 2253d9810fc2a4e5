"""Inference bodies: what is written is read again, and what is wrong is refused by the one error."""

import contextlib
import json
from math import prod
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.datatypes import BYTES, DATATYPES, DTYPE_BY_DATATYPE, FLOATS
from contracts.inference import (
    InferenceFormatError,
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    join_byte_elements,
    split_byte_elements,
    tensor_of,
)

# Code points of one to four bytes, quotes and controls. All of Unicode would first build a table of it, for seconds.
CHARACTERS = 'ab"\\\0\n/é関\U0001f600'
TEXTS = st.text(CHARACTERS, max_size=8)
NAMES = st.text(CHARACTERS, min_size=1, max_size=8)
PARAMETERS = st.dictionaries(
    TEXTS.map("p".__add__),
    TEXTS | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=4,
)
SHAPES = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


def elements(datatype: str, *, finite: bool) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype in FLOATS:
        width = DTYPE_BY_DATATYPE[datatype].itemsize * 8
        return st.floats(width=width, allow_nan=not finite, allow_infinity=not finite)
    limits = np.iinfo(DTYPE_BY_DATATYPE[datatype])
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tensors(draw: st.DrawFn, name: str, *, as_json: bool = False) -> Tensor:
    """as_json: only what JSON can say (text and finite numbers)."""
    datatype, shape = draw(st.sampled_from(sorted(DATATYPES))), draw(SHAPES)
    count = prod(shape)
    if datatype == BYTES:
        texts = TEXTS.map(str.encode) if as_json else st.binary(max_size=8)
        return Tensor(name, datatype, shape, join_byte_elements(draw(st.lists(texts, min_size=count, max_size=count))))
    values = draw(st.lists(elements(datatype, finite=as_json), min_size=count, max_size=count))
    return Tensor(name, datatype, shape, np.array(values, DTYPE_BY_DATATYPE[datatype]).tobytes())


@st.composite
def requests(draw: st.DrawFn) -> InferenceRequest:
    inputs = [draw(tensors(name)) for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))]
    outputs = [
        RequestedOutput(name, draw(st.none() | st.booleans()))
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    ]
    return InferenceRequest(
        inputs=tuple(inputs), outputs=tuple(outputs), id=draw(TEXTS), parameters=draw(PARAMETERS) or None
    )


@st.composite
def responses(draw: st.DrawFn, *, as_json: bool) -> InferenceResponse:
    outputs = [draw(tensors(name, as_json=as_json)) for name in draw(st.lists(NAMES, max_size=3, unique=True))]
    return InferenceResponse(
        model_name=draw(NAMES),
        model_version=draw(TEXTS),
        outputs=tuple(outputs),
        id=draw(TEXTS),
        parameters=draw(PARAMETERS) or None,
    )


def whole(encoded: tuple[bytes, list[Any]]) -> tuple[bytes, int]:
    document, buffers = encoded
    return document + b"".join(buffers), len(document)


def python_values(tensor: Tensor) -> list[Any]:
    if tensor.datatype == BYTES:
        return [element.decode() for element in split_byte_elements(tensor.data, tensor.name)]
    return list(tensor.array().ravel().tolist())


@given(requests(), st.booleans())
def test_a_binary_request_is_read_as_it_was_written(request: InferenceRequest, binary_output: bool):
    parameters = {**(request.parameters or {}), "binary_data_output": True} if binary_output else request.parameters
    wanted = InferenceRequest(
        inputs=request.inputs,
        outputs=request.outputs,
        id=request.id,
        parameters=parameters,
        binary_output=binary_output,
    )
    body, header_length = whole(encode_request(wanted))
    assert decode_request(body, header_length) == wanted


@given(responses(as_json=False))
def test_a_binary_response_is_read_as_it_was_written(response: InferenceResponse):
    body, header_length = whole(encode_response(response, [tensor.name for tensor in response.outputs]))
    assert decode_response(body, header_length) == response


@given(responses(as_json=True), st.data())
def test_a_response_in_any_mixture_of_json_and_raw_outputs_says_the_same(response: InferenceResponse, data: Any):
    names = [tensor.name for tensor in response.outputs]
    raw = data.draw(st.sets(st.sampled_from(names))) if names else set()
    body, header_length = whole(encode_response(response, raw))
    assert decode_response(body, header_length) == response


@given(tensors("x", as_json=True))
def test_flat_and_nested_json_and_raw_bytes_say_the_same_tensor(tensor: Tensor):
    array = np.empty(prod(tensor.shape), dtype=object)
    array[:] = python_values(tensor)
    described = {"name": "x", "datatype": tensor.datatype, "shape": tensor.shape}
    for data in (array.tolist(), array.reshape(tensor.shape).tolist()):
        read = decode_request(json.dumps({"inputs": [{**described, "data": data}]}).encode(), None)
        assert read.inputs == (tensor,)


@given(tensors("x"))
def test_a_tensor_of_an_array_and_the_array_of_a_tensor_are_inverse(tensor: Tensor):
    again = tensor_of("x", tensor.array(), tensor.datatype)
    assert again == tensor


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_byte_elements_are_split_as_they_were_joined(parts: list[bytes]):
    assert split_byte_elements(join_byte_elements(parts), "x") == parts


def refused_or_read(body: bytes, header_length: int | None) -> None:
    with contextlib.suppress(InferenceFormatError):
        for tensor in decode_request(body, header_length).inputs:
            tensor.array()
    with contextlib.suppress(InferenceFormatError):
        for tensor in decode_response(body, header_length).outputs:
            tensor.array()


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300))
@example(b"", 0)
@example(b'{"inputs": []}', -1)
def test_arbitrary_bytes_raise_nothing_but_the_format_error(body: bytes, header_length: int | None):
    refused_or_read(body, header_length)


@given(requests(), st.data())
@settings(max_examples=200)
def test_a_damaged_body_raises_nothing_but_the_format_error(request: InferenceRequest, data: Any):
    body, header_length = whole(encode_request(request))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    shift = data.draw(st.integers(-3, 3))
    refused_or_read(bytes(damaged), header_length + shift)
    refused_or_read(bytes(damaged[:cut]), header_length)
    refused_or_read(bytes(damaged[:cut]), None)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"name": NAMES | JSON_VALUES, "datatype": st.sampled_from([*sorted(DATATYPES), "FP8"]) | JSON_VALUES},
        optional={
            "shape": st.lists(st.integers(-2, 4) | JSON_VALUES, max_size=9) | JSON_VALUES,
            "data": JSON_VALUES,
            "parameters": st.dictionaries(st.just("binary_data_size"), JSON_VALUES) | JSON_VALUES,
        },
    )
)
@settings(max_examples=300)
def test_a_tensor_of_arbitrary_json_raises_nothing_but_the_format_error(tensor: dict[str, Any]):
    for key in ("inputs", "outputs"):
        refused_or_read(json.dumps({key: [tensor], "model_name": "m"}).encode(), None)
