import math
import struct

import pytest

from feature_store.errors import WrongFeatureValue
from feature_store.feature_value import STRING_BYTES_MAX, pack_value


@pytest.mark.parametrize(
    ("value", "datatype", "packed"),
    [
        (1.5, "FP16", struct.pack("<e", 1.5)),
        (1.5, "FP32", struct.pack("<f", 1.5)),
        (1.5, "FP64", struct.pack("<d", 1.5)),
        (3, "FP32", struct.pack("<f", 3.0)),
        (-7, "INT32", struct.pack("<i", -7)),
        (2**63 - 1, "INT64", struct.pack("<q", 2**63 - 1)),
        (True, "BOOL", b"\x01"),
        (False, "BOOL", b"\x00"),
        ("é", "BYTES", b"\x02\x00\x00\x00\xc3\xa9"),
        ("", "BYTES", b"\x00\x00\x00\x00"),
    ],
)
def test_a_value_packs_to_its_little_endian_element(value, datatype, packed):
    assert pack_value("f", value, datatype) == packed


@pytest.mark.parametrize(
    ("value", "datatype", "says"),
    [
        (True, "FP32", "expected a number (FP32), got bool True"),
        (True, "INT32", "expected an integer (INT32), got bool True"),
        (1, "BOOL", "expected true or false (BOOL), got int 1"),
        (3.0, "INT64", "expected an integer (INT64), got float 3.0"),
        ("3", "FP64", "expected a number (FP64), got str '3'"),
        (3, "BYTES", "expected a string (BYTES), got int 3"),
        (None, "FP32", "got null"),
        (math.nan, "FP64", "finite"),
        (-math.inf, "FP16", "finite"),
        (1e39, "FP32", "within FP32"),
        (70_000, "FP16", "within FP16"),
        (10**400, "FP64", "an integer of 1329 bits"),
        (2**31, "INT32", "within INT32"),
        (-(2**63) - 1, "INT64", "within INT64"),
        ("\ud800", "BYTES", "a lone surrogate"),
        ("x" * (STRING_BYTES_MAX + 1), "BYTES", "characters"),
        ("é" * (STRING_BYTES_MAX // 2 + 1), "BYTES", "bytes"),
        ({"a": 1}, "FP32", "got dict"),
    ],
)
def test_a_value_of_another_type_or_beyond_the_range_is_refused_by_name(value, datatype, says):
    with pytest.raises(WrongFeatureValue) as caught:
        pack_value("radius", value, datatype)
    assert caught.value.feature == "radius"
    assert says in str(caught.value)


def test_a_list_packs_its_elements_one_after_another():
    assert pack_value("f", [1, 2.5], "FP32", 2) == struct.pack("<2f", 1, 2.5)


@pytest.mark.parametrize("value", [[1.0], [1.0, 2.0, 3.0], 1.0, "ab", None, [1.0, None]])
def test_a_list_of_another_length_or_with_a_wrong_element_is_refused(value):
    with pytest.raises(WrongFeatureValue):
        pack_value("f", value, "FP32", 2)


def test_an_unknown_datatype_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="UINT8"):
        pack_value("f", 1, "UINT8")
