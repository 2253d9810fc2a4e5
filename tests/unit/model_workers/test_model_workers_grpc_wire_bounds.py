import pytest

from contracts.inference import HEADER_BYTES_MAX, InferenceFormatError
from model_workers.grpc_edge.messages import inference_messages
from model_workers.grpc_edge.wire_bounds import FIELDS_MAX, UNSCANNED_BYTES_MAX, check_growth

REQUEST = inference_messages()["ModelInferRequest"]
RAW_FIELD = REQUEST.DESCRIPTOR.fields_by_name["raw_input_contents"].number
LARGE = b"\0" * UNSCANNED_BYTES_MAX


def check(data):
    check_growth(data, RAW_FIELD)


def test_a_large_tensor_in_raw_contents_passes():
    check(REQUEST(model_name="m", raw_input_contents=[b"\0" * (HEADER_BYTES_MAX + 1)]).SerializeToString())


def test_the_same_bytes_outside_raw_contents_are_refused_with_the_way_out():
    request = REQUEST(model_name="m")
    request.inputs.add(name="x").contents.bytes_contents.append(b"\0" * HEADER_BYTES_MAX)
    with pytest.raises(InferenceFormatError, match="send large tensors in raw_input_contents"):
        check(request.SerializeToString())


def test_two_bytes_for_one_more_input_do_not_become_a_million_inputs():
    with pytest.raises(InferenceFormatError, match=f"more than {FIELDS_MAX} fields"):
        check(b"\x2a\x00" * 1_000_000)


def test_a_small_message_is_not_looked_at():
    check(b"\xff" * UNSCANNED_BYTES_MAX)


@pytest.mark.parametrize("field", [b"\x08\x96\x01", b"\x09" + b"\0" * 8, b"\x0d" + b"\0" * 4, b"\x0a\x02ab"])
def test_fields_of_every_kind_are_passed_over(field):
    check(field * 5 + b"\x3a" + b"\x80\x80\x04" + LARGE)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x0b" + LARGE, "wire type 3"),
        (b"\x3a" + b"\xff" * 20 + LARGE, "a number that does not end"),
        (b"\x3a\x80\x80\x04" + LARGE + b"\x80", "a number that does not end"),
    ],
)
def test_bytes_that_are_no_message_are_refused_with_the_place(data, said):
    with pytest.raises(InferenceFormatError, match=said):
        check(data)
