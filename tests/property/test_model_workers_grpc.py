import contextlib

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.datatypes import DTYPE_BY_DATATYPE
from contracts.inference import (
    InferenceFormatError,
    InferenceRequest,
    RequestedOutput,
    decode_request,
    encode_request,
    tensor_of,
)
from model_workers.grpc_edge.contents import FIELD_BY_DATATYPE, fill_contents, raw_elements
from model_workers.grpc_edge.inference import read_request
from model_workers.grpc_edge.messages import inference_messages
from model_workers.grpc_edge.wire_bounds import UNSCANNED_BYTES_MAX, check_growth

CLASSES = inference_messages()
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
ANY = st.one_of(
    st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.text(st.characters(codec="utf-8"), max_size=9)
)
WHOLE = st.integers(0, (1 << 63) - 1)
PARAMETERS = st.fixed_dictionaries({}, optional={"timeout": WHOLE, "priority": WHOLE, "unit": ANY, "a": ANY})


@st.composite
def tensors(draw, datatypes=(*DTYPE_BY_DATATYPE, "BYTES")):
    datatype = draw(st.sampled_from(sorted(datatypes)))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    if datatype == "BYTES":
        size = int(np.prod(shape))
        elements = np.empty(size, dtype=object)
        elements[:] = draw(st.lists(st.binary(max_size=5), min_size=size, max_size=size))
        return tensor_of(draw(NAMES), elements.reshape(shape), datatype)
    return tensor_of(draw(NAMES), draw(arrays.arrays(DTYPE_BY_DATATYPE[datatype], shape)), datatype)


@st.composite
def requests(draw):
    names = st.lists(NAMES, max_size=3, unique=True)
    return InferenceRequest(
        inputs=tuple(draw(st.lists(tensors(), min_size=1, max_size=3, unique_by=lambda tensor: tensor.name))),
        outputs=tuple(RequestedOutput(name) for name in draw(names)),
        id=draw(st.text(st.characters(codec="utf-8"), max_size=20)),
        parameters=draw(PARAMETERS) or None,
    )


def message_of(request):
    """Write a request as a client would that sends raw contents."""
    message = CLASSES["ModelInferRequest"](id=request.id)
    for key, value in (request.parameters or {}).items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(message.parameters[key], field, value)
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.data))
    for output in request.outputs:
        message.outputs.add(name=output.name)
    return message


@given(requests())
def test_a_request_means_the_same_over_grpc_and_over_http(request):
    document, buffers = encode_request(request)
    over_http = decode_request(b"".join([document, *buffers]), len(document))
    over_grpc = read_request(CLASSES["ModelInferRequest"].FromString(message_of(request).SerializeToString()), None)
    assert over_grpc == over_http


@given(tensors(FIELD_BY_DATATYPE))
def test_every_tensor_goes_to_typed_contents_and_back(tensor):
    contents = CLASSES["InferTensorContents"]()
    fill_contents(contents, tensor)
    parsed = CLASSES["InferTensorContents"].FromString(contents.SerializeToString())
    assert raw_elements(tensor.name, tensor.datatype, parsed) == tensor.data


@given(requests(), st.data())
@settings(max_examples=300)
def test_a_message_with_altered_bytes_is_read_or_refused_and_nothing_else(request, data):
    altered = bytearray(message_of(request).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(altered)))
        altered[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        message = CLASSES["ModelInferRequest"].FromString(bytes(altered))
    except DecodeError:
        return
    try:
        read = read_request(message, None)
    except InferenceFormatError:
        return
    for tensor in read.inputs:
        try:
            array = tensor.array()
        except InferenceFormatError:
            pytest.fail(f"{tensor} was read but has no elements")
        assert array.shape == tensor.shape


@given(st.binary(max_size=200))
def test_bytes_are_scanned_or_refused_and_nothing_else(start):
    with contextlib.suppress(InferenceFormatError):
        check_growth(start + b"\x0a\x01a" * (UNSCANNED_BYTES_MAX // 3), 7)
