"""Stored bytes that are no register, or nearly one."""

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.register import Register, RegisterError, decode, encode
from tests.unit.experiments.register_documents import golden_register

STORED = encode(golden_register())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def read_or_refused(data: bytes) -> None:
    for known in (None, decode(STORED)):
        with contextlib.suppress(RegisterError):
            assert isinstance(decode(data, known), Register)


@given(st.binary(max_size=40), st.integers(0, len(STORED)), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_are_read_or_refused_by_the_one_error(damage: bytes, place: int, lost: int):
    read_or_refused(STORED[:place] + damage + STORED[place + lost :])


@given(st.data(), JSON)
@settings(max_examples=300, deadline=None)
def test_a_stored_document_with_any_part_replaced_is_read_or_refused_by_the_one_error(data: st.DataObject, value: Any):
    stored = json.loads(STORED)
    node: Any = stored
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    node[key] = value
    read_or_refused(json.dumps(stored).encode())
