import numpy as np
import pytest

from contracts.datatypes import BYTES, DATATYPES, DTYPE_BY_DATATYPE, datatype_of


def test_the_datatypes_are_those_of_the_specification():
    fixed = {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
    assert {"BOOL", "FP16", "FP32", "FP64", "BYTES"} | fixed == DATATYPES


@pytest.mark.parametrize("datatype", DTYPE_BY_DATATYPE)
def test_a_datatype_is_named_after_its_dtype_in_either_byte_order(datatype: str):
    dtype = DTYPE_BY_DATATYPE[datatype]
    assert datatype_of(dtype) == datatype
    assert datatype_of(dtype.newbyteorder(">")) == datatype


@pytest.mark.parametrize("dtype", ["O", "S3", "U3"])
def test_text_and_objects_are_bytes(dtype: str):
    assert datatype_of(np.dtype(dtype)) == BYTES


@pytest.mark.parametrize("dtype", ["M8[us]", "c8", "V4"])
def test_a_dtype_without_a_datatype_is_refused(dtype: str):
    with pytest.raises(ValueError, match="no tensor datatype"):
        datatype_of(np.dtype(dtype))
