import json
import struct

import numpy as np
import pytest

from contracts.inference import InferenceResponse, encode_response, tensor_of
from contracts.manifest import Input, Output
from gateway.dispatch.output_decoder import OutputDecoder
from gateway.model_signature import ModelSignature

OUTPUTS = (
    Output("score", "FP32"),
    Output("classes", "FP64", (-1, 3)),
    Output("count", "INT64"),
    Output("label", "BYTES"),
)


def decoder(*outputs: Output) -> OutputDecoder:
    return OutputDecoder(
        ModelSignature(
            model="m",
            version="1",
            inputs=(Input("x", "FP32", (-1,)),),
            outputs=outputs or OUTPUTS,
            batch_rows_max=64,
            server_model="m",
            server_version="1",
            binary=True,
        )
    )


def answer(rows: int = 2, *, binary: bool = True, **changes) -> tuple[bytes, int | None]:
    arrays = {
        "score": (np.arange(rows, dtype="f4"), "FP32"),
        "classes": (np.arange(rows * 3, dtype="f8").reshape(rows, 3), "FP64"),
        "count": (np.arange(rows, dtype="i8"), "INT64"),
        "label": (np.array(["é"] * rows, dtype=object), "BYTES"),
        **changes,
    }
    tensors = tuple(tensor_of(name, *given) for name, given in arrays.items() if given is not None)
    response = InferenceResponse(model_name="m", model_version="1", outputs=tensors)
    head, chunks = encode_response(response, arrays if binary else ())
    return head + b"".join(map(bytes, chunks)), len(head) if binary else None


@pytest.mark.parametrize("binary", [True, False])
def test_values_come_by_output_with_an_entry_a_row(binary):
    values, finite = decoder().decode(*answer(binary=binary), rows=2)
    assert values == [[0.0, 1.0], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [0, 1], ["é", "é"]]
    assert finite


def test_outputs_come_in_the_order_of_the_manifest_and_others_are_left_out():
    values, _ = decoder(OUTPUTS[2], OUTPUTS[0]).decode(*answer(), rows=2)
    assert values == [[0, 1], [0.0, 1.0]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_told(value):
    _, finite = decoder().decode(*answer(score=(np.array([1, value], "f4"), "FP32")), rows=2)
    assert not finite


def test_a_label_that_is_not_utf8_is_replaced_not_raised():
    raw = (np.array([b"\xff", b"ok"], dtype=object), "BYTES")
    values, _ = decoder().decode(*answer(label=raw), rows=2)
    assert values[3] == ["\ufffd", "ok"]


WRONG = {
    "fewer rows": answer(1),
    "more rows": answer(3),
    "an output that is missing": answer(count=None),
    "another datatype": answer(score=(np.zeros(2), "FP64")),
    "another width": answer(classes=(np.zeros((2, 4)), "FP64")),
    "a flat matrix": answer(classes=(np.zeros(6), "FP64")),
    "one dimension too many": answer(score=(np.zeros((2, 1), "f4"), "FP32")),
    "no rows": answer(0),
}


@pytest.mark.parametrize("claim", WRONG)
def test_an_answer_that_the_manifest_does_not_declare_is_refused(claim):
    with pytest.raises(ValueError, match="output"):
        decoder().decode(*WRONG[claim], rows=2)


def document(**tensor) -> bytes:
    listed = {"name": "score", "datatype": "FP32", "shape": [2], "data": [1, 2], **tensor}
    listed = {key: value for key, value in listed.items() if value is not ...}
    return json.dumps({"model_name": "m", "outputs": [listed]}).encode()


def raw_document(size: int) -> bytes:
    return document(data=..., parameters={"binary_data_size": size})


TWICE = document()[:-2] + b", " + document()[document().index(b"[{") + 1 :]

HOSTILE = {
    "nothing": (b"", None),
    "no JSON": (b"<html>", None),
    "an array": (b"[]", None),
    "not UTF-8": (b'{"model_name": "\xff"}', None),
    "a header longer than the body": (document(), 10_000),
    "a header of no length": (document(), 0),
    "nested ten thousand deep": (b"[" * 10_000, None),
    "an output twice": (TWICE, None),
    "more bytes than declared": (raw_document(8) + b"x" * 9, len(raw_document(8))),
    "fewer bytes than declared": (raw_document(8) + b"x" * 7, len(raw_document(8))),
    "a negative size": (raw_document(-8), None),
    "a huge size": (raw_document(1 << 62), None),
    "a negative dimension": (document(shape=[-2]), None),
    "dimensions that overflow": (document(shape=[1 << 28] * 8), None),
    "fewer elements than the shape": (document(data=[1]), None),
    "text for numbers": (document(data=["a", "b"]), None),
    "an unknown datatype": (document(datatype="FP128"), None),
    "no data": (document(data=...), None),
}


def test_the_document_of_an_output_twice_is_json():
    assert len(json.loads(TWICE)["outputs"]) == 2


@pytest.mark.parametrize("claim", HOSTILE)
def test_a_hostile_answer_is_a_value_error_and_nothing_worse(claim):
    with pytest.raises(ValueError):  # noqa: PT011 - whichever it is, the type is the claim
        decoder(Output("score", "FP32")).decode(*HOSTILE[claim], rows=2)


@pytest.mark.parametrize(
    "raw",
    [struct.pack("<I", 100) + b"ab", struct.pack("<I", 2) + b"ab", b"\x01"],
    ids=["a length that overruns", "too few elements", "half a length"],
)
def test_labels_whose_lengths_lie_are_refused(raw):
    head = document(name="label", datatype="BYTES", data=..., parameters={"binary_data_size": len(raw)})
    with pytest.raises(ValueError, match="label"):
        decoder(Output("label", "BYTES")).decode(head + raw, len(head), rows=2)


@pytest.mark.parametrize("binary", [True, False])
def test_a_column_of_a_matrix_that_a_foreign_server_sends_is_kept_under_the_clients_name(binary):
    narrowing = decoder(Output("second", "FP64", source="classes", column=1), Output("score", "FP32"))
    for rows in (2, 3, 2):
        body, head = answer(rows, binary=binary)
        (second, score), finite = narrowing.decode(body, head, rows)
        assert second == [3.0 * row + 1 for row in range(rows)]
        assert score == list(range(rows))
        assert finite


@pytest.mark.parametrize(("source", "column"), [("classes", 3), ("score", 0)])
def test_a_column_that_is_not_there_is_an_error(source, column):
    with pytest.raises(ValueError, match="no column"):
        decoder(Output("y", "FP64", source=source, column=column)).decode(*answer(), 2)
