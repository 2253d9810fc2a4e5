"""One JSON value of a feature → the little-endian bytes of a tensor element."""

import math
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from feature_store.errors import WrongFeatureValue

STRING_BYTES_MAX = 32 * 1024
"""The longest string that a feature may hold, in UTF-8."""

_LENGTH = struct.Struct("<I")
_BOOL = (b"\0", b"\1")


def pack_value(feature_name: str, value: object, datatype: str, length: int | None = None) -> bytes:
    """Pack one value, or a list of exactly `length` values, as elements of `datatype`.

    Strict: a bool is not a number, a float is not an integer, NaN and infinity are refused, and so is what the datatype
    cannot hold. An integer serves as a float. A BYTES element is its length (u32) and its UTF-8 bytes, as in the Open
    Inference Protocol's binary tensor extension. Raises WrongFeatureValue, and ValueError for an unknown datatype.
    """
    pack = _PACKERS.get(datatype)
    if pack is None:
        raise ValueError(f"no feature is fed as {datatype!r}; known: {', '.join(_PACKERS)}")
    if length is None:
        return pack(feature_name, value)
    if not isinstance(value, list | tuple):
        raise WrongFeatureValue(feature_name, f"a list of {length} values", _described(value))
    if len(value) != length:
        raise WrongFeatureValue(feature_name, f"a list of {length} values", f"{len(value)} values")
    return b"".join([pack(feature_name, element) for element in value])


def _packer_of_floats(datatype: str, code: str) -> Callable[[str, object], bytes]:
    element = struct.Struct("<" + code)

    def pack(feature_name: str, value: object) -> bytes:
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise WrongFeatureValue(feature_name, f"a number ({datatype})", _described(value))
        try:
            number = float(value)
            if not math.isfinite(number):
                raise WrongFeatureValue(feature_name, f"a finite number ({datatype})", repr(value))
            return element.pack(number)
        except OverflowError as error:
            raise WrongFeatureValue(feature_name, f"a number within {datatype}", _described(value)) from error

    return pack


def _packer_of_integers(datatype: str, code: str) -> Callable[[str, object], bytes]:
    element = struct.Struct("<" + code)

    def pack(feature_name: str, value: object) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongFeatureValue(feature_name, f"an integer ({datatype})", _described(value))
        try:
            return element.pack(value)
        except struct.error as error:
            raise WrongFeatureValue(feature_name, f"an integer within {datatype}", _described(value)) from error

    return pack


def _pack_bool(feature_name: str, value: object) -> bytes:
    if not isinstance(value, bool):
        raise WrongFeatureValue(feature_name, "true or false (BOOL)", _described(value))
    return _BOOL[value]


def _pack_string(feature_name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise WrongFeatureValue(feature_name, "a string (BYTES)", _described(value))
    # A character takes one byte or more, so this refuses what is far too long before it is encoded.
    if len(value) > STRING_BYTES_MAX:
        raise WrongFeatureValue(feature_name, f"at most {STRING_BYTES_MAX} bytes", f"{len(value)} characters")
    try:
        text = value.encode()
    except UnicodeEncodeError as error:
        raise WrongFeatureValue(
            feature_name, "text that UTF-8 can say", f"a lone surrogate at {error.start}"
        ) from error
    if len(text) > STRING_BYTES_MAX:
        raise WrongFeatureValue(feature_name, f"at most {STRING_BYTES_MAX} bytes", f"{len(text)} bytes")
    return _LENGTH.pack(len(text)) + text


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"  # printing it could take longer than the request may
    if isinstance(value, bool | int | float | str):
        shown = repr(value[:32] if isinstance(value, str) else value)
        return f"{type(value).__name__} {shown}"
    return type(value).__name__


_PACKERS: Mapping[str, Callable[[str, object], bytes]] = MappingProxyType(
    {
        "FP16": _packer_of_floats("FP16", "e"),
        "FP32": _packer_of_floats("FP32", "f"),
        "FP64": _packer_of_floats("FP64", "d"),
        "INT32": _packer_of_integers("INT32", "i"),
        "INT64": _packer_of_integers("INT64", "q"),
        "BOOL": _pack_bool,
        "BYTES": _pack_string,
    }
)
