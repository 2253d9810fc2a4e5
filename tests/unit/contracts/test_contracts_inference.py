import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from contracts.inference import (
    DIMENSIONS_MAX,
    ELEMENTS_MAX,
    HEADER_BYTES_MAX,
    NAME_LENGTH_MAX,
    PARAMETERS_MAX,
    TENSORS_MAX,
    TIMEOUT_US_MAX,
    InferenceFormatError,
    InferenceRequest,
    InferenceResponse,
    RequestedOutput,
    Tensor,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    json_length,
    tensor_of,
)


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | fields


def raw_tensor(size: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}} | fields


def body_of(*tensors: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": tensors, **fields}).encode()


def refusal(body: bytes, header_length: int | None = None) -> str:
    with pytest.raises(InferenceFormatError) as caught:
        decode_request(body, header_length)
    return str(caught.value)


def raw_refusal(described: dict[str, Any], raw: bytes) -> str:
    document = body_of(described)
    return refusal(document + raw, len(document))


@pytest.mark.parametrize(
    ("header_length", "said"),
    [
        (99_999_999_999, "said to have 99999999999 bytes, the whole body has"),
        (-1, "said to have -1 bytes"),
        (0, "truncated"),
        (5, "malformed|truncated"),
    ],
)
def test_a_wrong_header_length_is_refused(header_length: int, said: str):
    with pytest.raises(InferenceFormatError, match=said):
        decode_request(body_of(tensor()), header_length)


def test_a_json_part_over_the_limit_is_refused_unread():
    assert f"at most {HEADER_BYTES_MAX}" in refusal(b"[" * (HEADER_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([2**28, 2**28], "more than 268435456 elements"),
        ([2**28] * 8, "more than 268435456 elements"),
        ([0, 2**28, 2**28], "more than 268435456 elements"),
        ([2**63], "268435456.*shape"),
        ([2**200], "Integer|out of range|int"),
        ([-1, 2], ">= 0.*shape"),
        ([1] * (DIMENSIONS_MAX + 1), "length <= 8"),
        ([1.5], "Expected `int`"),
        ([True], "Expected `int`"),
        ("2", "Expected `array`"),
        ([3], "asks for 3 elements, `data` holds 2"),
        ([], "asks for 1 elements, `data` holds 2"),
    ],
)
def test_a_wrong_shape_is_refused(shape: Any, said: str):
    with pytest.raises(InferenceFormatError, match=said):
        decode_request(body_of(tensor(shape=shape)), None)


@pytest.mark.parametrize(
    "data",
    [
        [[1, 2, 3], [4, 5, 6]],
        [[1, 2], [3, 4], [5]],
        [[1, 2], [3, 4], 5, 6],
        [[[1], [2]], [[3], [4]], [[5], [6]]],
        [[1, 2, 3, 4, 5, 6]],
    ],
)
def test_data_nested_otherwise_than_the_shape_says_is_refused(data: Any):
    assert refusal(body_of(tensor(shape=[3, 2], data=data))).startswith(("tensor 'x': `data` is neither", "input 'x'"))


def test_data_must_be_nested_as_deep_as_the_shape_or_not_at_all():
    assert "neither flat nor nested" in refusal(body_of(tensor(shape=[2, 2, 1], data=[[1, 2], [3, 4]])))


def test_lists_without_elements_are_told_from_each_other():
    assert decode_request(body_of(tensor(shape=[2, 0], data=[[], []])), None).inputs[0].array().shape == (2, 0)
    assert "neither flat nor nested" in refusal(body_of(tensor(shape=[2, 0], data=[[], [], []])))


def test_a_tensor_without_dimensions_is_one_element():
    read = decode_request(body_of(tensor(shape=[], data=[7])), None).inputs[0]
    assert (read.array().shape, float(read.array())) == ((), 7.0)


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
@pytest.mark.parametrize(
    "place", ['"inputs": [{"data": %s}]', '"unknown": %s', '"inputs": [{"parameters": {"binary_data_size": %s}}]']
)
def test_deep_nesting_is_refused_wherever_it_stands(depth: int, place: str):
    nested = "[" * depth + "]" * depth
    whole = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1]}], ' + place % nested + "}"
    assert refusal(whole.encode()) == "the JSON part is nested too deeply"


def test_nesting_that_the_decoder_just_takes_is_told_by_type_where_a_size_was_expected():
    for depth in range(1, 1_000):
        nested = "[" * depth + "]" * depth
        said = refusal(body_of(raw_tensor("N")).replace(b'"N"', nested.encode()))
        assert said.endswith("not list") or "nested too deeply" in said


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "nan", "1e400", "0x1", "01", "+1", "1_0"])
def test_what_is_no_json_number_is_refused(literal: str):
    refusal(body_of(tensor()).replace(b"[1, 2]", f"[1, {literal}]".encode(), 1))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("BOOL", 1),
        ("BOOL", "true"),
        ("INT8", 128),
        ("INT8", -129),
        ("UINT8", -1),
        ("UINT8", 256),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("UINT64", -1),
        ("INT64", 1.0),
        ("INT64", True),
        ("INT64", "1"),
        ("FP16", 65_520),
        ("FP32", 1e39),
        ("FP32", 10**400),
        ("FP64", True),
        ("BYTES", 1),
        ("BYTES", None),
        ("BYTES", {}),
    ],
)
def test_a_value_that_its_datatype_cannot_hold_is_refused(datatype: str, value: Any):
    assert datatype in refusal(body_of(tensor(datatype=datatype, shape=[1], data=[value])))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT64", -(2**63)), ("INT64", 2**63 - 1), ("UINT64", 2**64 - 1), ("FP16", 65_504), ("FP32", 3), ("BOOL", True)],
)
def test_the_extremes_of_a_datatype_are_read_exactly(datatype: str, value: Any):
    read = decode_request(body_of(tensor(datatype=datatype, shape=[1], data=[value])), None)
    assert read.inputs[0].array().tolist() == [value]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (tensor(datatype="FP8"), "unknown datatype 'FP8'"),
        (tensor(datatype="F" * 100_000), "unknown datatype"),
        (tensor(name=""), "length >= 1"),
        (tensor(name="n" * (NAME_LENGTH_MAX + 1)), "length <= 256"),
        (tensor(data=None), "neither a `data` list nor `binary_data_size`"),
        (tensor(data={"0": 1}), "neither a `data` list"),
        (tensor(data="12"), "neither a `data` list"),
        (tensor(parameters={"binary_data_size": 8}), "both `data` and `binary_data_size`"),
        (tensor(parameters={f"p{i}": 1 for i in range(PARAMETERS_MAX + 1)}), "length <= 64"),
        ({"name": "x"}, "missing required field `datatype`"),
        (7, "Expected `object`"),
    ],
)
def test_a_wrong_tensor_is_refused(described: Any, said: str):
    message = refusal(body_of(described))
    assert said in message
    assert len(message) < 1_000


def test_two_tensors_of_one_name_are_refused():
    assert refusal(body_of(tensor(), tensor())) == "input 'x' is listed more than once"


def test_two_requested_outputs_of_one_name_are_refused():
    said = refusal(body_of(tensor(), outputs=[{"name": "y"}, {"name": "y"}]))
    assert said == "output 'y' is listed more than once"


def test_no_tensor_and_too_many_are_refused():
    assert "length >= 1" in refusal(body_of())
    assert "length <= 256" in refusal(body_of(*(tensor(name=f"x{i}") for i in range(TENSORS_MAX + 1))))


@pytest.mark.parametrize("parameters", [{"a": None}, {"a": []}, {"a": {"b": 1}}])
def test_a_parameter_that_is_not_plain_is_refused(parameters: Any):
    assert refusal(body_of(tensor(), parameters=parameters)) == (
        "parameter 'a' of the request must be a string, a number or a boolean"
    )


@pytest.mark.parametrize("flag", [1, "true", 0.0])
def test_a_switch_that_is_no_boolean_is_refused(flag: Any):
    assert "must be true or false" in refusal(body_of(tensor(), parameters={"binary_data_output": flag}))
    assert "must be true or false" in refusal(
        body_of(tensor(), outputs=[{"name": "y", "parameters": {"binary_data": flag}}])
    )


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (9, "takes 8 bytes, binary_data_size says 9"),
        (7, "takes 8 bytes, binary_data_size says 7"),
        (0, "takes 8 bytes, binary_data_size says 0"),
        (10**12, "1000000000000 bytes are declared, 16 are left"),
        (10**300, "bytes are declared, 16 are left"),
        (-8, "a whole number of bytes, 0 or more, not -8"),
        (True, "not True"),
        (8.0, "not float"),
        ("8", "not str"),
        (None, "not NoneType"),
        ([8], "not list"),
    ],
)
def test_a_wrong_binary_size_is_refused(size: Any, said: str):
    assert said in raw_refusal(raw_tensor(size), bytes(16))


def test_bytes_after_the_last_tensor_are_refused():
    assert raw_refusal(raw_tensor(8), bytes(9)) == "1 bytes follow the last declared input"


def test_bytes_after_json_without_a_header_length_are_refused():
    refusal(body_of(tensor()) + b"\0")


def test_a_raw_bool_other_than_0_and_1_is_refused():
    document = body_of(raw_tensor(2, datatype="BOOL"))
    assert decode_request(document + b"\1\0", len(document)).inputs[0].array().tolist() == [True, False]
    assert "a BOOL is the byte 0 or 1" in raw_refusal(raw_tensor(2, datatype="BOOL"), b"\1\2")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (struct.pack("<I1sI2s", 1, b"a", 3, b"bc"), "an element of 3 bytes, with 2 left"),
        (struct.pack("<I", 2**32 - 1), "an element of 4294967295 bytes, with 0 left"),
        (struct.pack("<II", 0, 0)[:-1], "3 bytes are left where a 4-byte length was expected"),
        (struct.pack("<I", 0), "asks for 2 elements, its bytes hold 1"),
        (struct.pack("<III", 0, 0, 0), "asks for 2 elements, its bytes hold 3"),
        (b"", "asks for 2 elements, its bytes hold 0"),
    ],
)
def test_wrong_raw_byte_elements_are_refused(raw: bytes, said: str):
    assert said in raw_refusal(raw_tensor(len(raw), datatype="BYTES"), raw)


def test_text_with_half_a_surrogate_pair_and_bytes_that_are_not_utf_8_are_refused():
    refusal(body_of(tensor(datatype="BYTES", shape=[1], data=["T"])).replace(b'"T"', rb'"\ud800"'))
    assert refusal(body_of(tensor(name="T")).replace(b'"T"', b'"\xff"')) == "the JSON part is not UTF-8"


@pytest.mark.parametrize(
    "described",
    [
        tensor(shape=[ELEMENTS_MAX], data=[]),
        raw_tensor(0, shape=[ELEMENTS_MAX]),
        raw_tensor(0, shape=[ELEMENTS_MAX], datatype="BYTES"),
        raw_tensor(4 * ELEMENTS_MAX, shape=[ELEMENTS_MAX]),
    ],
)
def test_a_shape_that_claims_a_gigabyte_costs_nothing(described: dict[str, Any]):
    document = body_of(described)
    tracemalloc.start()
    try:
        refusal(document, len(document))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_raw_byte_tensor_of_more_elements_than_its_shape_is_counted_without_being_copied():
    raw = bytes(4 * 100_000)
    document = body_of(raw_tensor(len(raw), datatype="BYTES"))
    body = document + raw
    tracemalloc.start()
    try:
        refusal(body, len(document))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_raw_tensors_are_views_of_the_body():
    document = body_of(raw_tensor(8))
    body = document + struct.pack("<2f", 1, 2)
    data = decode_request(body, len(document)).inputs[0].data
    assert isinstance(data, memoryview)
    assert data.obj is body


@pytest.mark.parametrize(
    ("timeout", "budget"),
    [
        (1, 1),
        (250_000, 250_000),
        (0, None),
        (10**300, TIMEOUT_US_MAX),
    ],
)
def test_a_timeout_is_whole_microseconds_of_at_most_a_day_or_none(timeout: Any, budget: int | None):
    assert decode_request(body_of(tensor(), parameters={"timeout": timeout}), None).timeout_us == budget
    assert InferenceRequest(inputs=()).timeout_us is None


@pytest.mark.parametrize("key", ["timeout", "priority"])
@pytest.mark.parametrize("value", [-1, True, 1.5, "1000"])
def test_a_timeout_or_priority_that_is_no_whole_number_is_refused(key: str, value: Any):
    assert f"parameter '{key}'" in refusal(body_of(tensor(), parameters={key: value}))


@pytest.mark.parametrize("token", ["NaN", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused_with_what_to_send_instead(token: str):
    assert "send null, or raw bytes" in refusal(body_of(tensor()).replace(b"[1, 2]", f"[1, {token}]".encode(), 1))


def test_what_json_cannot_say_is_replaced_in_a_json_response():
    outputs = (
        tensor_of("score", np.array([np.nan, np.inf, -np.inf, 1.5]), "FP64"),
        tensor_of("word", np.array([b"\xff", "é".encode()], dtype=object), "BYTES"),
    )
    document, buffers = encode_response(InferenceResponse(model_name="m", model_version="1", outputs=outputs))
    said = json.loads(document)["outputs"]
    assert buffers == []
    assert (said[0]["data"], said[1]["data"]) == ([None, None, None, 1.5], ["�", "é"])


def test_a_response_is_checked_as_strictly_as_a_request():
    with pytest.raises(InferenceFormatError, match="output 'x': shape"):
        decode_response(json.dumps({"model_name": "m", "outputs": [tensor(shape=[3])]}).encode(), None)
    with pytest.raises(InferenceFormatError, match="missing required field `outputs`"):
        decode_response(b'{"model_name": "m"}', None)


def test_a_response_without_version_and_with_fields_of_other_servers_is_read():
    answer = {"model_name": "m", "outputs": [tensor()], "raw_output_contents": [], "model_state": {"a": 1}}
    assert decode_response(json.dumps(answer).encode(), None).model_version == ""


SPECIFIED = {
    "BOOL": ("<3?", [True, False, True]),
    "UINT8": ("<3B", [0, 1, 255]),
    "UINT16": ("<3H", [0, 1, 65_535]),
    "UINT32": ("<3I", [0, 1, 2**32 - 1]),
    "UINT64": ("<3Q", [0, 1, 2**64 - 1]),
    "INT8": ("<3b", [-128, 0, 127]),
    "INT16": ("<3h", [-(2**15), 0, 2**15 - 1]),
    "INT32": ("<3i", [-(2**31), 0, 2**31 - 1]),
    "INT64": ("<3q", [-(2**63), 0, 2**63 - 1]),
    "FP16": ("<3e", [-0.5, 0.0, 65_504.0]),
    "FP32": ("<3f", [-0.5, 0.0, 2.0**-126]),
    "FP64": ("<3d", [-0.5, 0.1, 5e-324]),
}


@pytest.mark.parametrize("datatype", SPECIFIED)
def test_raw_elements_are_little_endian_as_the_specification_has_them(datatype: str):
    layout, values = SPECIFIED[datatype]
    raw = struct.pack(layout, *values)
    document = body_of(raw_tensor(len(raw), datatype=datatype, shape=[3]))
    read = decode_request(document + raw, len(document)).inputs[0]
    assert read.array().tolist() == values
    assert bytes(tensor_of("x", np.array(values, read.array().dtype), datatype).data) == raw


def test_raw_elements_are_row_major_whatever_order_and_endianness_the_array_has():
    array = np.asfortranarray(np.array([[1, 2, 3], [4, 5, 6]], dtype=">f4"))
    assert bytes(tensor_of("x", array, "FP32").data) == struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def test_a_byte_element_is_its_length_in_4_little_endian_bytes_and_then_itself():
    made = tensor_of("x", np.array([["a", "é"], [b"\xff\0", ""]], dtype=object), "BYTES")
    assert bytes(made.data) == b"\1\0\0\0a" + b"\2\0\0\0\xc3\xa9" + b"\2\0\0\0\xff\0" + b"\0\0\0\0"
    assert made.array().tolist() == [[b"a", "é".encode()], [b"\xff\0", b""]]


def test_a_request_is_laid_out_as_the_specification_has_it():
    request = InferenceRequest(
        inputs=(tensor_of("a", np.array([[1.0, 2.0]]), "FP32"), tensor_of("b", np.array(["x"], dtype=object), "BYTES")),
        outputs=(RequestedOutput("y", binary=True), RequestedOutput("z")),
        id="42",
        parameters={"timeout": 1000},
        binary_output=True,
    )
    document, buffers = encode_request(request)
    assert json.loads(document) == {
        "id": "42",
        "parameters": {"timeout": 1000, "binary_data_output": True},
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "b", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}],
    }
    assert b"".join(buffers) == struct.pack("<2fI1s", 1, 2, 1, b"x")


def test_a_tensor_named_in_both_forms_keeps_the_order_of_the_raw_parts():
    document = body_of(
        raw_tensor(8, name="a"), tensor(name="b"), raw_tensor(2, name="c", datatype="UINT8", shape=[2, 1])
    )
    read = decode_request(document + struct.pack("<2f2B", 3, 4, 5, 6), len(document))
    assert [t.array().ravel().tolist() for t in read.inputs] == [[3, 4], [1, 2], [5, 6]]


def test_an_array_of_a_tensor_has_the_tensors_shape_even_where_it_is_empty():
    assert Tensor("x", "FP32", (0, 3), b"").array().shape == (0, 3)
    assert Tensor("x", "BYTES", (0, 3), b"").array().shape == (0, 3)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_null_is_nan_in_a_tensor_of_floats(datatype):
    tensor = {"name": "x", "datatype": datatype, "shape": [1, 2], "data": [[1.5, None]]}
    (decoded,) = decode_request(json.dumps({"inputs": [tensor]}).encode(), None).inputs
    assert decoded.array().tolist()[0][0] == 1.5
    assert np.isnan(decoded.array()[0, 1])


@pytest.mark.parametrize("datatype", ["BOOL", "INT32", "UINT64", "BYTES"])
def test_null_is_refused_in_every_other_tensor(datatype):
    tensor = {"name": "x", "datatype": datatype, "shape": [1], "data": [None]}
    with pytest.raises(InferenceFormatError, match="'x'"):
        decode_request(json.dumps({"inputs": [tensor]}).encode(), None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [({}, 2), ({"priority": 0}, 2), ({"priority": 1}, 1), ({"priority": 9}, 3)],
)
def test_a_priority_is_one_of_three(given, meant):
    assert InferenceRequest(inputs=(), parameters=given).priority == meant


def test_a_request_for_a_server_without_the_binary_extension_is_all_json():
    tensor = tensor_of("x", np.array([[1.0, np.nan]], "f4"), "FP32")
    head, parts = encode_request(InferenceRequest(inputs=(tensor,)), binary=False)
    assert parts == []
    assert json.loads(head)["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, None]}]
    assert np.array_equal(decode_request(head, None).inputs[0].array(), tensor.array(), equal_nan=True)


LENGTH = b"inference-header-content-length"


def test_the_length_of_the_json_part_is_read_from_its_header():
    assert json_length([(b"content-length", b"9")]) is None
    assert json_length([(LENGTH, b"2")]) == json_length([(LENGTH, b"2"), (LENGTH, b"2")]) == 2


@pytest.mark.parametrize(
    "values",
    [[b"-1"], [b""], [b"2x"], [b"0x10"], [b" 2"], [b"1e3"], [b"9" * 5_000], ["\u0663".encode()], [b"1", b"2"]],
)
def test_a_length_that_is_no_one_number_of_bytes_is_refused(values):
    with pytest.raises(InferenceFormatError, match="inference-header-content-length must be one whole number of bytes"):
        json_length([(LENGTH, value) for value in values])
