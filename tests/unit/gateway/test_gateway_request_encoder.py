import struct

import msgspec
import pytest

from contracts.inference import decode_request
from contracts.manifest import Input, Output
from gateway.dispatch.request_encoder import RequestEncoder
from gateway.model_signature import ModelSignature


def signature(*, binary: bool, shape: tuple[int, ...] = (-1, 2)) -> ModelSignature:
    return ModelSignature(
        model="m",
        version="1",
        inputs=(Input("x", "FP32", shape),),
        outputs=(
            Output("a", "FP32", source="scores", column=0),
            Output("b", "FP32", source="scores", column=1),
            Output("c", "INT64"),
        ),
        batch_rows_max=64,
        server_model="theirs",
        server_version=None,
        binary=binary,
    )


def sent(encoder: RequestEncoder, tensors: list[bytes], rows: int, **shapes) -> tuple[bytes, bytes]:
    head, _, body = b"".join(encoder.encode(b"host:1", tensors, rows, 1_000, **shapes)).partition(b"\r\n\r\n")
    return head, body


def test_a_server_without_the_binary_extension_is_sent_json_and_nothing_that_tells_of_it():
    data = struct.pack("<4f", 1.5, 2, float("nan"), 4)
    head, body = sent(RequestEncoder(signature(binary=False)), [data], 2)
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v2/models/theirs/infer HTTP/1.1"
    assert b"content-type: application/json" in lines
    assert b"content-length: %d" % len(body) in lines
    assert msgspec.json.decode(body) == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.5, 2.0, None, 4.0]}],
        "outputs": [{"name": "scores"}, {"name": "c"}],
        "parameters": {"timeout": 1_000},
    }


@pytest.mark.parametrize("binary", [True, False])
def test_rows_of_another_shape_than_declared_say_their_own(binary):
    encoder = RequestEncoder(signature(binary=binary, shape=(-1, -1)))
    for columns in (3, 2, 3):
        head, body = sent(encoder, [bytes(4 * 2 * columns)], 2, row_shapes=((columns,),))
        length = head.partition(b"inference-header-content-length: ")[2].partition(b"\r\n")[0]
        request = decode_request(body, int(length) if binary else None)
        assert request.inputs[0].shape == (2, columns)
        assert request.timeout_us == 1_000
