"""Bounds on a message's bytes, checked before protobuf makes objects of them.

Two bytes can say "one more input", of which the parsed form takes over a hundred: a message of 64 MiB could so fill
gigabytes. The raw contents of tensors do not grow; everything else is held to what a JSON request may have.

Source: Protocol Buffers, "Encoding".
"""

from typing import Final

from contracts.inference import HEADER_BYTES_MAX, PARAMETERS_MAX, TENSORS_MAX, InferenceFormatError

UNSCANNED_BYTES_MAX: Final = 64 * 1024
"""A smaller message is parsed at once: however it grows, it stays at a few MiB."""

FIELDS_MAX: Final = 3 * TENSORS_MAX + PARAMETERS_MAX + 8
"""Inputs, outputs and raw contents, parameters, and the few fields that stand once."""

NO_FIELD: Final = 0
"""A number that no field has: for messages without raw contents."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_WIDTHS: Final = {_FIXED_64: 8, _FIXED_32: 4}
_VARINT_BYTES_MAX: Final = 10


def check_growth(data: bytes, raw_field: int) -> None:
    """Refuse a message of too many fields, or of too many bytes outside the repeated bytes field `raw_field`.

    Only the outermost fields are looked at. Raises InferenceFormatError.
    """
    if len(data) <= UNSCANNED_BYTES_MAX:
        return
    at = fields = document_bytes = 0
    while at < len(data):
        began = at
        tag, at = _varint(data, at)
        at = _field_end(data, at, tag & 7)
        fields += 1
        if fields > FIELDS_MAX:
            raise InferenceFormatError(f"the message has more than {FIELDS_MAX} fields")
        if tag >> 3 != raw_field:
            document_bytes += at - began
    if document_bytes > HEADER_BYTES_MAX:
        raise InferenceFormatError(
            f"the message has {document_bytes} bytes beside its raw contents; at most {HEADER_BYTES_MAX} are read: "
            "send large tensors in raw_input_contents"
        )


def _field_end(data: bytes, at: int, wire_type: int) -> int:
    if wire_type == _BYTES:
        length, at = _varint(data, at)
        return at + length
    if wire_type == _VARINT:
        return _varint(data, at)[1]
    if wire_type in _FIXED_WIDTHS:
        return at + _FIXED_WIDTHS[wire_type]
    raise InferenceFormatError(f"at byte {at}, there is no field of wire type {wire_type}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte. Returns it, and where it ends."""
    number = 0
    for i, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, at + i + 1
    raise InferenceFormatError(f"at byte {at}, there is a number that does not end")
