"""What a worker remembers of requests and answers: never another meaning than reading and writing them anew."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.datatypes import DTYPE_BY_DATATYPE
from contracts.inference import (
    InferenceFormatError,
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    encode_request,
    encode_response,
)
from model_workers.wire_memory import PARTS_MAX, WireMemory

DATATYPES = ("FP32", "INT64", "UINT8", "BOOL", "BYTES")


def raw(datatype: str, elements: int, seed: int) -> bytes:
    if datatype == "BYTES":
        return b"\x02\0\0\0ab" * elements
    values = np.random.default_rng(seed).integers(0, 2 if datatype == "BOOL" else 100, elements)
    return values.astype(DTYPE_BY_DATATYPE[datatype]).tobytes()


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, int]:
    tensors = []
    for i in range(draw(st.integers(1, 2))):
        datatype = draw(st.sampled_from(DATATYPES))
        rows, columns = draw(st.integers(0, 3)), draw(st.integers(1, 3))
        data = raw(datatype, rows * columns, draw(st.integers(0, 5)))
        tensors.append(Tensor(f"x{i}", datatype, (rows, columns), data))
    request = InferenceRequest(
        inputs=tuple(tensors),
        outputs=(RequestedOutput("score", draw(st.sampled_from([None, True, False]))),),
        id=draw(st.sampled_from(["", "a"])),
        parameters=draw(st.sampled_from([None, {"timeout": 5_000}, {"priority": 1}])),
        binary_output=draw(st.booleans()),
    )
    part, buffers = encode_request(request, binary=draw(st.booleans()))
    return b"".join((part, *buffers)), len(part)


def outcome(decode, body: bytes, header_length: int | None) -> object:
    try:
        request = decode(body, header_length)
    except InferenceFormatError as error:
        return str(error)
    tensors = [(t.name, t.datatype, t.shape, bytes(t.data)) for t in request.inputs]
    return tensors, request.outputs, request.id, request.parameters, request.binary_output


@given(
    st.lists(requests(), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3), st.integers(0, 4), st.booleans()), max_size=12),
)
def test_a_request_means_the_same_whether_its_head_was_seen_before_or_not(sent, asked):
    memory = WireMemory()
    for which, off_by, cut, flip in asked:
        body, header_length = sent[which % len(sent)]
        changed = body[: len(body) - cut] if cut else body
        if flip and len(changed) > header_length:
            changed = changed[:-1] + bytes([changed[-1] ^ 0xFF])
        for length in (header_length, header_length + off_by, None):
            assert outcome(memory.decode, changed, length) == outcome(decode_request, changed, length)


@given(
    st.lists(
        st.tuples(st.sampled_from(["FP32", "INT64"]), st.integers(0, 3), st.sampled_from(["", "a"]), st.booleans()),
        max_size=12,
    )
)
def test_an_answer_is_written_the_same_whether_its_like_was_written_before_or_not(answers):
    memory = WireMemory()
    for datatype, rows, request_id, binary in answers:
        tensor = Tensor("score", datatype, (rows,), raw(datatype, rows, 1))
        response = InferenceResponse(model_name="m", model_version="1", outputs=(tensor,), id=request_id)
        names = ["score"] if binary else []
        assert memory.encode(response, names) == encode_response(response, names)


def test_what_is_remembered_is_bounded():
    memory = WireMemory()
    for timeout in range(PARTS_MAX + 10):
        tensor = Tensor("x", "FP32", (1,), bytes(4))
        part, buffers = encode_request(InferenceRequest(inputs=(tensor,), parameters={"timeout": timeout + 1}))
        memory.decode(b"".join((part, *buffers)), len(part))
        assert len(memory._requests) <= PARTS_MAX


def test_a_remembered_head_does_not_lend_its_checks_to_a_header_length_that_is_too_large():
    memory = WireMemory()
    part, _ = encode_request(InferenceRequest(inputs=(Tensor("x", "FP32", (0,), b""),)))
    memory.decode(part, len(part))
    with pytest.raises(InferenceFormatError):
        memory.decode(part, len(part) + 1)
