"""What the gateway remembers of requests and answers must not change a byte of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.inference import (
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    encode_request,
    encode_response,
    tensor_of,
)
from contracts.manifest import Artifact, Input, Manifest, Output
from gateway.dispatch.output_decoder import OutputDecoder
from gateway.dispatch.request_encoder import RequestEncoder
from gateway.model_signature import signature_of


def manifest(inputs: tuple[Input, ...], outputs: tuple[Output, ...]) -> Manifest:
    return Manifest(
        model="m",
        version="1",
        runtime="onnxruntime",
        artifact=Artifact("model.onnx", "0" * 64),
        inputs=inputs,
        outputs=outputs,
        created_at="",
    )


FLOATS = manifest((Input("x", "FP32", (-1, 3)), Input("n", "INT64", (-1,))), (Output("score", "FP32"),))
TEXTS = manifest((Input("t", "BYTES", (-1,)),), (Output("score", "FP32"),))
ANSWERS = manifest(
    (Input("x", "FP32", (-1,)),), (Output("score", "FP32"), Output("classes", "FP64", (-1, 2)), Output("n", "INT32"))
)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 10**9)), min_size=1, max_size=8))
def test_a_request_with_a_kept_head_is_byte_for_byte_the_codecs_own(sends):
    encoder = RequestEncoder(signature_of(FLOATS))
    for rows, timeout_us in sends:
        x, n = np.ones((rows, 3), "<f4").tobytes(), np.arange(rows, dtype="<i8").tobytes()
        request = b"".join(encoder.encode(b"worker:1", [x, n], rows, timeout_us))
        head, _, body = request.partition(b"\r\n\r\n")
        expected, _ = encode_request(
            InferenceRequest(
                inputs=(Tensor("x", "FP32", (rows, 3), x), Tensor("n", "INT64", (rows,), n)),
                outputs=(RequestedOutput("score", True),),
                parameters={"timeout": timeout_us},
            )
        )
        assert body == expected + x + n
        assert b"inference-header-content-length: %d\r\n" % len(expected) in head
        assert head.endswith(b"content-length: %d" % len(body))


@given(st.lists(st.lists(st.text(max_size=5), min_size=2, max_size=2), min_size=2, max_size=4))
def test_inputs_of_varying_width_are_never_sent_under_an_earlier_requests_head(batches):
    encoder = RequestEncoder(signature_of(TEXTS))
    for texts in batches:
        data = bytes(tensor_of("t", np.array(texts, dtype=object), "BYTES").data)
        body = b"".join(encoder.encode(b"w:1", [data], 2, 5)).partition(b"\r\n\r\n")[2]
        decoded = decode_request(body, len(body) - len(data))
        assert [e.decode() for e in decoded.inputs[0].array()] == texts


def answer(rows: int, seed: int) -> tuple[bytes, int, list]:
    draw = np.random.default_rng(seed)
    arrays = {
        "n": (draw.integers(0, 99, rows).astype("i4"), "INT32"),
        "score": (draw.normal(size=rows).astype("f4"), "FP32"),
        "classes": (draw.normal(size=(rows, 2)), "FP64"),
    }
    tensors = tuple(tensor_of(name, *given) for name, given in arrays.items())
    head, chunks = encode_response(InferenceResponse(model_name="m", model_version="1", outputs=tensors), arrays)
    expected = [arrays[name][0].tolist() for name in ("score", "classes", "n")]
    return head + b"".join(map(bytes, chunks)), len(head), expected


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 9)), min_size=1, max_size=12))
def test_an_answer_that_is_read_by_a_remembered_head_gives_its_own_values(answers):
    decoder = OutputDecoder(signature_of(ANSWERS))
    for rows, seed in [*answers, *answers]:
        body, header_length, expected = answer(rows, seed)
        assert decoder.decode(body, header_length, rows) == (expected, True)


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_an_answer_shorter_than_its_remembered_head_says_is_still_refused(cut):
    decoder = OutputDecoder(signature_of(ANSWERS))
    body, header_length, expected = answer(3, 0)
    assert decoder.decode(body, header_length, 3) == (expected, True)
    with pytest.raises(ValueError, match="bytes"):
        decoder.decode(body[:-cut], header_length, 3)


def test_a_remembered_head_does_not_serve_another_number_of_rows():
    decoder = OutputDecoder(signature_of(ANSWERS))
    body, header_length, _ = answer(3, 0)
    decoder.decode(body, header_length, 3)
    with pytest.raises(ValueError, match="not FP32"):
        decoder.decode(body, header_length, 2)


@pytest.mark.parametrize("rows", [2, 100])
def test_a_value_that_is_not_finite_is_told_however_the_answer_is_read(rows):
    decoder = OutputDecoder(signature_of(FLOATS))
    values = np.zeros(rows, "f4")
    for last in (0.0, np.nan, 0.0, np.inf):
        values[-1] = last
        response = InferenceResponse(model_name="m", model_version="1", outputs=(tensor_of("score", values, "FP32"),))
        head, chunks = encode_response(response, ["score"])
        body = head + b"".join(map(bytes, chunks))
        assert decoder.decode(body, len(head), rows)[1] is bool(np.isfinite(last))
