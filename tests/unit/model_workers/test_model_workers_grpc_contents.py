import math

import numpy as np
import pytest

from contracts.datatypes import DTYPE_BY_DATATYPE
from contracts.inference import InferenceFormatError, Tensor, tensor_of
from model_workers.grpc_edge.contents import FIELD_BY_DATATYPE, fill_contents, raw_elements
from model_workers.grpc_edge.messages import inference_messages

CLASSES = inference_messages()


def typed(**fields):
    return CLASSES["InferTensorContents"](**fields)


def test_every_datatype_but_fp16_has_a_typed_field():
    assert set(DTYPE_BY_DATATYPE) - set(FIELD_BY_DATATYPE) == {"FP16"}


@pytest.mark.parametrize("datatype", sorted(set(FIELD_BY_DATATYPE) - {"BYTES"}))
def test_the_ends_of_a_datatypes_range_go_to_typed_contents_and_back(datatype):
    dtype = DTYPE_BY_DATATYPE[datatype]
    if dtype.kind == "f":
        ends = np.array([-math.inf, math.inf, math.nan, -0.0, np.finfo(dtype).max, np.finfo(dtype).tiny], dtype)
    else:
        ends = np.array([0, 1] if dtype.kind == "b" else [np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    contents = typed()
    fill_contents(contents, tensor_of("x", ends, datatype))
    assert [field.name for field, _ in contents.ListFields()] == [FIELD_BY_DATATYPE[datatype]]
    assert raw_elements("x", datatype, contents) == ends.tobytes()


def test_bytes_go_to_typed_contents_and_back():
    tensor = Tensor("x", "BYTES", (3,), b"\1\0\0\0a\0\0\0\0\2\0\0\0\xff\0")
    contents = typed()
    fill_contents(contents, tensor)
    assert list(contents.bytes_contents) == [b"a", b"", b"\xff\0"]
    assert raw_elements("x", "BYTES", contents) == tensor.data


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        ("INT8", "int_contents", 128),
        ("INT8", "int_contents", -129),
        ("INT16", "int_contents", 1 << 15),
        ("UINT8", "uint_contents", 256),
        ("UINT16", "uint_contents", 1 << 16),
    ],
)
def test_a_number_that_its_datatype_cannot_hold_is_refused(datatype, field, value):
    with pytest.raises(InferenceFormatError, match=f"input 'x': a value is out of the range of {datatype}"):
        raw_elements("x", datatype, typed(**{field: [0, value]}))


@pytest.mark.parametrize(
    ("datatype", "fields", "said"),
    [
        ("FP32", {"fp64_contents": [1.0]}, "input 'x' of FP32 takes fp32_contents; fp64_contents is given"),
        (
            "FP32",
            {"fp32_contents": [1.0], "int_contents": [1]},
            "takes fp32_contents; int_contents, fp32_contents is given",
        ),
        ("FP16", {"fp32_contents": [1.0]}, "takes raw_input_contents, and no typed field; fp32_contents is given"),
        ("FP99", {"fp32_contents": [1.0]}, "input 'x' of FP99 takes raw_input_contents"),
    ],
)
def test_another_field_than_the_datatypes_is_refused(datatype, fields, said):
    with pytest.raises(InferenceFormatError, match=said):
        raw_elements("x", datatype, typed(**fields))
