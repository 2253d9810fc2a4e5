import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from contracts.manifest import Input, Output
from gateway.configuration.signature_file import SignatureFileError, decode_signature, encode_signature, signature_file
from gateway.model_signature import ModelSignature
from gateway.routes_file import VersionRoute

GOLDEN = Path(__file__).parents[2] / "golden" / "model_signature_v1.json"

ROUTE = VersionRoute(workers=("http://churn-1:8090",))
SIGNATURE = ModelSignature(
    model="churn",
    version="1",
    inputs=(Input("X", "FP32", (-1, 2), ("user_profile:age", "request:hour")),),
    outputs=(Output("score", "FP64", (-1,), "predict_proba", 1),),
    batch_rows_max=64,
    server_model="churn-sklearn",
    server_version=None,
    binary=False,
)


def decoded(data: bytes, route: VersionRoute = ROUTE) -> ModelSignature:
    return decode_signature(data, "churn", "1", route)


def test_the_golden_file_of_format_1_is_what_is_written_and_read():
    assert encode_signature(SIGNATURE, ROUTE) == GOLDEN.read_bytes()
    assert decoded(GOLDEN.read_bytes()) == SIGNATURE


def test_other_workers_change_nothing_of_what_they_serve():
    moved = VersionRoute(workers=("http://elsewhere:8090",))
    assert decoded(encode_signature(SIGNATURE, ROUTE), moved) == SIGNATURE


def test_what_was_learned_under_another_server_is_not_taken():
    other = msgspec.convert({"workers": ["http://churn-1:8090"], "server": {"model": "other"}}, VersionRoute)
    with pytest.raises(SignatureFileError, match="the route says something else"):
        decoded(encode_signature(SIGNATURE, ROUTE), other)


def test_the_signature_of_another_version_is_not_taken():
    with pytest.raises(SignatureFileError, match="churn@2"):
        decoded(encode_signature(replace(SIGNATURE, version="2"), ROUTE))


WRONG = {
    "a later format": ({"format": 2, "new": True}, "format 2 is not known here"),
    "an unknown field": ({"later": 1}, "later"),
    "no inputs": ({"inputs": []}, "inputs"),
    "a datatype that is none": ({"inputs": [{"name": "X", "dtype": "FP8", "shape": [-1]}]}, "FP8"),
    "a row without end": ({"inputs": [{"name": "X", "dtype": "FP32", "shape": [-1, 1 << 40]}]}, "elements"),
    "a batch of none": ({"batch_rows_max": 0}, "batch_rows_max"),
    "a server's model that is a path": ({"server_model": "../x"}, "server_model"),
}


@pytest.mark.parametrize("claim", WRONG)
def test_a_file_that_is_wrong_is_refused_with_what_was_expected(claim):
    change, expected = WRONG[claim]
    with pytest.raises(SignatureFileError, match=expected):
        decoded(json.dumps(json.loads(GOLDEN.read_bytes()) | change).encode())


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"[]", b"{}", b'{"format": "1"}', b"[" * 100_000, b'"\xff"'])
def test_a_file_that_is_no_signature_is_refused(data):
    with pytest.raises(SignatureFileError):
        decoded(data)


def test_names_as_long_as_they_may_be_fit_into_a_file_name():
    assert max(len(part) for part in signature_file("m" * 128, "v" * 128).split("/")) <= 255 - len(".") - len(
        ".4194304"
    )
